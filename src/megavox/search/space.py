"""The space that is searched: parameters, and settings of them as points of the unit cube.

A point has one coordinate a parameter. Numbers lie along it evenly (or their logarithms do), levels of a grid and
choices at equal distances. A parameter that a setting does not have, since it stands under a condition, lies in the
middle, so that it makes no difference.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import numpy as np

Setting = dict[str, Any]
MIDDLE = 0.5  # of what a setting does not have


@dataclass(frozen=True)
class Bound:
    """End of a range.

    Attributes:
        number: its value, or where `of` names a parameter the factor of that one's value (of a list, the least).
        of: another parameter, which stands before in the space.
    """

    number: float
    of: str | None = None

    def __str__(self) -> str:
        return f"{self.number:g}" + (f" * {self.of}" if self.of else "")

    def at(self, setting: Mapping[str, Any]) -> float:
        """Its value in a setting."""
        if self.of is None:
            return self.number
        value = setting[self.of]
        found = self.number * float(min(value) if isinstance(value, (list, tuple)) else value)
        return float(f"{found:.12g}")  # 0.3, and not 0.1 * 3


@dataclass(frozen=True)
class Number:
    """A number between two bounds.

    Attributes:
        name: key of the study.
        low, high: both included.
        log: equal ratios are equal distances.
        step: from low upwards; None for any number.
        integer: values are whole.
        when: parameter with choices -> those of its choices with which this one is there.
    """

    name: str
    low: Bound
    high: Bound
    log: bool = False
    step: float | None = None
    integer: bool = False
    when: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    def __str__(self) -> str:
        how = [*(["log"] if self.log else []), *([] if self.step is None else [f"steps of {self.step:g}"]),
               *_conditions(self.when)]
        return f"{self.low} to {self.high}" + (f" ({', '.join(how)})" if how else "")

    @property
    def fixed(self) -> bool:
        """Whether its bounds are those of every setting."""
        return self.low.of is None and self.high.of is None

    def bounds(self, setting: Mapping[str, Any]) -> tuple[float, float]:
        """Its bounds in a setting."""
        low, high = self.low.at(setting), self.high.at(setting)
        if self.integer:
            low, high = float(np.ceil(low - 1e-9)), float(np.floor(high + 1e-9))
        return low, max(low, high if self.step is None else _level(low, self.step, (high - low) / self.step))

    def value(self, place: float, setting: Mapping[str, Any]) -> float | int:
        """What lies at a place from 0 to 1."""
        low, high = self.bounds(setting)
        found = float(_values(np.array(place), low, high, self.log, self.step))
        if self.integer:
            return round(found)
        return found if self.step is None else _level(low, self.step, (found - low) / self.step)

    def place(self, value: float, setting: Mapping[str, Any]) -> float:
        """Where a value lies, from 0 to 1."""
        return float(_places(np.array(float(value)), *self.bounds(setting), self.log))

    def holds(self, value: Any, setting: Mapping[str, Any]) -> bool:
        """Whether it can have a value in a setting."""
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            return False
        (low, high), step = self.bounds(setting), self.step
        return low <= value <= high and (step is None or abs((value - low) / step % 1 - 0.5) > 0.5 - 1e-9)

    def snapped(self, places: np.ndarray) -> np.ndarray:
        """`(N,)` moved onto its levels, where those are the same in every setting."""
        if self.step is None or not self.fixed:
            return places
        low, high = self.bounds({})
        return _places(_values(places, low, high, self.log, self.step), low, high, self.log)

    def uniform(self, drawn: np.ndarray) -> np.ndarray:
        """`(N,)` drawn evenly from 0 to 1, to places: of levels each is equally likely."""
        if self.step is None or not self.fixed:
            return drawn
        low, high = self.bounds({})
        outer = low - self.step / 2, high + self.step / 2
        wide = _values(drawn, *outer, self.log and outer[0] > 0, None)
        return self.snapped(_places(np.clip(wide, low, high), low, high, self.log))


@dataclass(frozen=True)
class Choice:
    """One of several values.

    Attributes:
        name: key of the study.
        choices: two or more; numbers and truth values are taken to be in order, others to be equally far apart.
        when: as for `Number`.
    """

    name: str
    choices: tuple[Any, ...]
    when: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    def __str__(self) -> str:
        return "; ".join(["one of " + ", ".join(map(str, self.choices)), *_conditions(self.when)])

    @property
    def ordered(self) -> bool:
        """Whether neighbours resemble each other more than others do."""
        return len(self.choices) == 2 or all(isinstance(one, (bool, int, float)) for one in self.choices)

    def numbers(self, places: np.ndarray) -> np.ndarray:
        """`(N,)` places to numbers of choices."""
        return np.round(np.clip(places, 0, 1) * (len(self.choices) - 1)).astype(int)

    def value(self, place: float, setting: Mapping[str, Any]) -> Any:
        """What lies at a place from 0 to 1."""
        return self.choices[int(self.numbers(np.array(place)))]

    def place(self, value: Any, setting: Mapping[str, Any]) -> float:
        """Where a value lies, from 0 to 1."""
        return self.choices.index(value) / (len(self.choices) - 1)

    def holds(self, value: Any, setting: Mapping[str, Any]) -> bool:
        """Whether it can have a value."""
        return value in self.choices

    def snapped(self, places: np.ndarray) -> np.ndarray:
        """`(N,)` moved onto its levels."""
        return self.numbers(places) / (len(self.choices) - 1)

    def uniform(self, drawn: np.ndarray) -> np.ndarray:
        """`(N,)` drawn evenly from 0 to 1, to places, each choice equally likely."""
        count = len(self.choices)
        return np.minimum(np.floor(drawn * count), count - 1) / (count - 1)


Parameter = Number | Choice


class Space:
    """Parameters in order.

    Args:
        parameters: those that others depend on come before them.
    """

    def __init__(self, parameters: Sequence[Parameter]) -> None:
        self.parameters = tuple(parameters)
        self._column = {one.name: number for number, one in enumerate(self.parameters)}

    @property
    def size(self) -> int:
        """How many parameters."""
        return len(self.parameters)

    def decode(self, point: np.ndarray) -> Setting:
        """The setting at a point `(P,)`."""
        setting: Setting = {}
        for one, place in zip(self.parameters, point, strict=True):
            if self._there(one, setting):
                setting[one.name] = one.value(float(place), setting)
        return setting

    def example(self) -> Setting:
        """A setting, with a value of every parameter, also of those under conditions."""
        found: Setting = {}
        for one in self.parameters:
            found[one.name] = one.value(1.0, found)
        return found

    def encode(self, setting: Mapping[str, Any]) -> np.ndarray:
        """The point `(P,)` of a setting."""
        return np.array([one.place(setting[one.name], setting) if one.name in setting else MIDDLE
                         for one in self.parameters])

    def active(self, setting: Mapping[str, Any]) -> Iterator[Parameter]:
        """The parameters that a setting has, in order; `setting` may grow while this goes on."""
        return (one for one in self.parameters if self._there(one, setting))

    def widest(self, one: Number) -> tuple[float, float]:
        """Bounds between which its value lies in every setting."""
        ends: list[float] = []
        for bound in (one.low, one.high):
            parent = self.parameters[self._column[bound.of]] if bound.of else None
            if isinstance(parent, Choice):
                ends += [bound.at({parent.name: choice}) for choice in parent.choices]
            else:
                ends += [bound.number] if parent is None else [bound.number * end for end in self.widest(parent)]
        return min(ends), max(ends)

    def uniform(self, drawn: np.ndarray) -> np.ndarray:
        """`(N, P)` drawn evenly from the cube, to points."""
        return self._with_middles(np.column_stack(
            [one.uniform(drawn[:, column]) for column, one in enumerate(self.parameters)]))

    def snapped(self, points: np.ndarray) -> np.ndarray:
        """Points `(N, P)` moved into the cube and onto the levels of their parameters."""
        points = np.clip(points, 0, 1)
        return self._with_middles(np.column_stack(
            [one.snapped(points[:, column]) for column, one in enumerate(self.parameters)]))

    def features(self, points: np.ndarray) -> np.ndarray:
        """Points `(N, P)` to `(N, F)` with a coordinate for each of several choices without an order."""
        columns = []
        for places, one in zip(points.T, self.parameters, strict=True):
            if isinstance(one, Choice) and not one.ordered:
                columns += list(np.eye(len(one.choices))[one.numbers(places)].T / np.sqrt(2))
            else:
                columns.append(places)
        return np.column_stack(columns)

    @property
    def levels(self) -> np.ndarray:
        """`(P,)`, how many values each can have; 0 for any number, or where settings differ in that."""
        return np.array([len(one.choices) if isinstance(one, Choice) else
                         0 if one.step is None or not one.fixed else
                         1 + round((one.bounds({})[1] - one.low.number) / one.step) for one in self.parameters])

    def _there(self, one: Parameter, setting: Mapping[str, Any]) -> bool:
        return all(name in setting and setting[name] in values for name, values in one.when.items())

    def _with_middles(self, points: np.ndarray) -> np.ndarray:
        there: dict[str, np.ndarray] = {}
        for column, one in enumerate(self.parameters):
            here = np.ones(len(points), dtype=bool)
            for name, values in one.when.items():
                parent = self.parameters[self._column[name]]
                assert isinstance(parent, Choice)
                wanted = [number for number, choice in enumerate(parent.choices) if choice in values]
                here &= there[name] & np.isin(parent.numbers(points[:, self._column[name]]), wanted)
            points[~here, column] = MIDDLE
            there[one.name] = here
        return points


def _conditions(when: Mapping[str, tuple[Any, ...]]) -> list[str]:
    return [f"where {name} is {' or '.join(map(str, values))}" for name, values in when.items()]


def _level(low: float, step: float, count: float) -> float:
    """What lies so many whole steps above `low`, in decimals, as people write them: 0.1 + 6 x 0.1 is 0.7."""
    return float(Decimal(repr(float(low))) + math.floor(count + 1e-9) * Decimal(repr(float(step))))


def _values(places: np.ndarray, low: float, high: float, log: bool, step: float | None) -> np.ndarray:
    places = np.clip(places, 0, 1)
    values = np.exp(np.log(low) + places * (np.log(high) - np.log(low))) if log else low + places * (high - low)
    if step is not None:
        values = low + step * np.round((values - low) / step)
    return np.clip(values, low, high)


def _places(values: np.ndarray, low: float, high: float, log: bool) -> np.ndarray:
    if high <= low:
        return np.full_like(values, MIDDLE)
    if log:
        values, low, high = np.log(values), float(np.log(low)), float(np.log(high))
    return np.clip((values - low) / (high - low), 0, 1)

"""What the report of a search holds: plain values, gathered from its ledger and shown by `search_page`.

Nothing here reads a file or asks a storage.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, Literal

State = Literal["done", "stopped", "failed", "running"]


@dataclass(frozen=True)
class ParameterRow:
    """A hyper-parameter that was searched.

    Attributes:
        name: key of the study, `training.optimiser.rate`.
        kind: whether it is a number, or one of several choices.
        log: whether equal ratios count as equal steps.
    """

    name: str
    kind: Literal["number", "choice"]
    log: bool = False


@dataclass(frozen=True)
class TrialRow:
    """A trial, which is one job of the search, however often it was tried again.

    Attributes:
        number: of the trial, from 0.
        setting: values of the parameters that it has.
        state: "stopped" is ended early, since it promised nothing.
        value: of the objective, finite; None unless it is done.
        cause: where it failed, whose fault that was: "setting" or "machine", or that somebody "cancelled" it; else "".
        told: how it failed, in a sentence.
        began, ended: s since 1970, UTC; None where that has not happened, or is not known.
        seconds: of work, all attempts together.
        ranks: processes of its job, each of which has a device of its own.
        scores: share of the training and validation score then, the latest last; finite.
    """

    number: int
    setting: Mapping[str, Any]
    state: State
    value: float | None = None
    cause: Literal["", "setting", "machine", "cancelled"] = ""
    told: str = ""
    began: float | None = None
    ended: float | None = None
    seconds: float = 0.0
    ranks: int = 1
    scores: Sequence[tuple[float, float]] = ()

    def __post_init__(self) -> None:
        assert (self.state == "done") == (self.value is not None), f"trial {self.number}: {self.state}, {self.value}"
        assert self.value is None or isfinite(self.value), f"trial {self.number}: {self.value}"

    @property
    def latest(self) -> float | None:
        """Its value, or the latest score of one that has none."""
        return self.value if self.value is not None else self.scores[-1][1] if self.scores else None

    @property
    def machine_hours(self) -> float:
        """Hours of work of all its processes."""
        return self.seconds * self.ranks / 3600


@dataclass(frozen=True)
class SearchContent:
    """All that the page of a search is made from.

    Attributes:
        study_name: title of the page.
        objective: the validation score that is searched for.
        goal: whether large or small ones are good.
        workers: M, trials at a time.
        method: who proposed.
        trials: by number.
        parameters: in the study's order.
        defaults: value of each parameter in the study as it was given.
        default_value: value of the objective with the defaults; None where that was not tried.
        importance: parameter -> share, from `search.importance`; {} where it cannot be told yet.
        best_study: text of a study file with the best setting, or "".
        provenance: `core.provenance.provenance`.
    """

    study_name: str
    objective: str
    goal: Literal["maximise", "minimise"]
    workers: int
    method: str
    trials: Sequence[TrialRow] = ()
    parameters: Sequence[ParameterRow] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    default_value: float | None = None
    importance: Mapping[str, float] = field(default_factory=dict)
    best_study: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def sign(self) -> int:
        """What values are multiplied by so that large ones are good."""
        return 1 if self.goal == "maximise" else -1

    @property
    def done(self) -> list[TrialRow]:
        """Trials with a value, the best first; of equal ones the earlier."""
        found = [(-self.sign * one.value, one.number, one) for one in self.trials if one.value is not None]
        return [one for _, _, one in sorted(found, key=lambda item: item[:2])]

    @property
    def best(self) -> TrialRow | None:
        """The trial with the best value; None before any has one."""
        return next(iter(self.done), None)

    @property
    def ended(self) -> list[TrialRow]:
        """Trials that are over, in the order in which they ended."""
        over = [one for one in self.trials if one.state != "running"]
        return sorted(over, key=lambda one: (one.ended is None, one.ended or 0.0, one.number))

    @property
    def began(self) -> float | None:
        """The first moment that is known, s since 1970; None before any is."""
        return min((moment for one in self.trials for moment in (one.began, one.ended) if moment is not None),
                   default=None)

    def of_state(self, state: State) -> list[TrialRow]:
        """Trials in a state, by number."""
        return [one for one in self.trials if one.state == state]

    def hours(self, moment: float) -> float:
        """Hours from the search's beginning to a moment, s since 1970."""
        return (moment - (self.began or 0.0)) / 3600

"""What settings did: each parameter against the value, and whole settings as lines."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter
from scipy.stats import rankdata

from megavox.core.randomness import generator
from megavox.report.canvas import COLOURS, INK, label, new_figure, plain_number, styled
from megavox.report.search_charts import draw_failures, draw_values, faded, limits
from megavox.report.search_content import ParameterRow, SearchContent, TrialRow
from megavox.report.wording import cell, heading

SLICE = 2.9  # inches, width of a panel of one parameter
RAMP = [COLOURS[1], COLOURS[3], COLOURS[0]]  # from early to late trials
EARLY_TO_LATE = LinearSegmentedColormap.from_list("order", RAMP)
BAD_TO_GOOD = LinearSegmentedColormap.from_list("rank", ["#aab4bc", COLOURS[4], COLOURS[0]])
MOST_ROWS = 30  # parameters of the parallel coordinates
MOST_CHOICES = 12  # written out beside each other


@styled
def parameter_slice(content: SearchContent, parameter: ParameterRow) -> Figure | str:
    """Values against one parameter, coloured by the order of the trials; marks for those that failed.

    Args:
        content: of the report.
        parameter: of `content.parameters`; trials without it are left out.

    Returns:
        SVG, or a sentence where no trial with this parameter has a value.
    """
    with_it = [one for one in content.trials if parameter.name in one.setting]
    done = [one for one in with_it if one.value is not None]
    if not done:
        return "No trial that has it ended with a value yet."
    scale = _Scale(parameter, with_it)
    aside = {one.number: float(generator(0, "aside", one.number).uniform(-0.22, 0.22))
             if parameter.kind == "choice" else 0.0 for one in with_it}

    def place(one: TrialRow) -> float:
        return scale.at(one.setting[parameter.name]) + aside[one.number]

    figure, (axes,) = new_figure(2.3, width=SLICE)
    low, high = limits([one.value for one in done if one.value is not None],
                       [one.value for one in content.done[:1] if one.value is not None])
    axes.set_ylim(low, high)
    age = np.array([one.number for one in done]) / (content.trials[-1].number or 1)
    draw_values(axes, [(place(one), one.value or 0.0) for one in done], low, high, EARLY_TO_LATE(age), s=20, alpha=0.8,
                linewidths=0)
    draw_failures(axes, with_it, place, low, high)
    for one in done:
        if one is content.best:
            axes.plot(place(one), one.value or 0.0, linestyle="", marker="o", markersize=8, markerfacecolor="none",
                      markeredgecolor=INK, markeredgewidth=1.6)
    axes.set_yticks([tick for tick in MaxNLocator(4).tick_values(low, high) if low <= tick <= high])
    axes.set_ylabel(label(heading(content.objective), 24))
    scale.draw(axes)
    return figure


@styled
def parallel_coordinates(content: SearchContent) -> Figure | str:
    """A line from top to bottom for each setting that has a value; a parameter is a row, from its least value to its
    largest. Colour goes by rank, the best one is drawn on top. A line has a gap where its setting lacks a parameter.

    Args:
        content: of the report.

    Returns:
        SVG, or a sentence where fewer than two settings have a value.
    """
    done = content.done
    shown = [one for one in content.parameters if any(one.name in trial.setting for trial in done)][:MOST_ROWS]
    if len(done) < 2 or not shown:
        return "Fewer than two settings have a value yet, so there is nothing to compare."
    rows = [_Scale(one, [trial for trial in content.trials if one.name in trial.setting]) for one in shown]
    figure, (axes,) = new_figure(0.9 + 0.46 * (len(rows) + 1))
    low, high, across = _values_across(done)
    lines = np.array([[row.share(trial.setting[row.name]) if row.name in trial.setting else np.nan for row in rows]
                      + [share] for trial, share in zip(done, across, strict=True)])
    good = rankdata([content.sign * (one.value or 0.0) for one in done]) / len(done)  # 1 is the best
    _lines(axes, lines[::-1], BAD_TO_GOOD(good[::-1], alpha=(0.1 + 0.8 * good[::-1] ** 2) * faded(len(done))))
    axes.plot(lines[0], range(len(rows) + 1), color=INK, linewidth=2.6, marker="o", markersize=4.5)
    names = [*(f"{label(row.name, 34)}\n{row.extent}" for row in rows),
             f"{label(heading(content.objective), 34)}\n{between(cell(low), cell(high))}"]
    axes.set_yticks(range(len(rows) + 1), names)
    axes.set_ylim(len(rows) + 0.25, -0.25)
    axes.set_xlim(-0.02, 1.02)
    axes.set_xticks([])
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    bar = figure.colorbar(ScalarMappable(Normalize(0, 1), BAD_TO_GOOD), ax=axes, orientation="horizontal",
                          fraction=0.03, aspect=40, pad=0.02)
    bar.set_ticks([0, 0.5, 1], labels=["worst", "middle", "best"])
    bar.outline.set_visible(False)  # type: ignore[operator]
    return figure


class _Scale:
    """Where values of a parameter lie on its axis; choices are 0, 1, 2 ...

    Args:
        parameter: whose.
        trials: that have it.
    """

    def __init__(self, parameter: ParameterRow, trials: Sequence[TrialRow]) -> None:
        self.name, self.log, values = parameter.name, parameter.log, [one.setting[parameter.name] for one in trials]
        self.choices = _ordered(values) if parameter.kind == "choice" else []
        places = range(len(self.choices)) if self.choices else values
        self.low, self.high = min(places), max(places)
        self.log = self.log and self.low > 0

    @property
    def extent(self) -> str:
        """Its values from left to right, in words."""
        if self.choices and len(", ".join(self.choices)) <= 34:
            return label(", ".join(self.choices), 34)
        first, last = (self.choices[0], self.choices[-1]) if self.choices else (short(self.low), short(self.high))
        return between(first, last) if last != first else first

    def at(self, value: Any) -> float:
        """Where a value lies."""
        return float(self.choices.index(short(value)) if self.choices else value)

    def share(self, value: Any) -> float:
        """The same from 0 to 1; in the middle where there is one value only."""
        low, high, here = (math.log(x) if self.log else x for x in (self.low, self.high, self.at(value)))
        return (here - low) / (high - low) if high > low else 0.5

    def draw(self, axes: Axes) -> None:
        """The axis across."""
        if self.choices:
            axes.set_xlim(-0.6, len(self.choices) - 0.4)
            step = math.ceil(len(self.choices) / MOST_CHOICES)
            long = max(map(len, self.choices)) * len(self.choices) > 26
            axes.set_xticks(range(0, len(self.choices), step), [label(one, 16) for one in self.choices[::step]],
                            rotation=35 if long else 0, ha="right" if long else "center")
            axes.grid(axis="x", visible=False)
        elif self.log:
            axes.set_xscale("log")
            room = (self.high / self.low) ** 0.06 if self.high > self.low else 1.5
            axes.set_xlim(self.low / room, self.high * room)
            axes.xaxis.set_major_locator(FixedLocator(_log_ticks(self.low, self.high)))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
            axes.xaxis.set_minor_formatter(NullFormatter())
        else:
            room = 0.06 * (self.high - self.low) or 0.05 * abs(self.high) or 1.0
            axes.set_xlim(self.low - room, self.high + room)
            whole = isinstance(self.low, int) and isinstance(self.high, int)
            axes.xaxis.set_major_locator(MaxNLocator(4, integer=whole))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: plain_number(value)))


def short(value: Any) -> str:
    """A value of a parameter as tables and axes have it."""
    if value is None:
        return "none"
    if isinstance(value, float) and value and not 1e-3 <= abs(value) < 1e5:
        mantissa, _, exponent = f"{value:.2e}".partition("e")
        return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}".replace("-", "\u2212")
    return cell(value)


def between(first: str, last: str) -> str:
    """What an axis spans, as a line of text."""
    return f"{label(first, 16)} to {label(last, 16)}"


def _ordered(values: Sequence[Any]) -> list[str]:
    """Choices that occur, as text: numbers by size, truth values no before yes, others by name."""
    found: Mapping[str, Any] = {short(value): value for value in values}
    numeric = all(isinstance(value, (bool, int, float)) for value in found.values())
    return sorted(found, key=lambda text: found[text]) if numeric else sorted(found)


def _log_ticks(low: float, high: float) -> list[float]:
    """At most five: powers of ten, or 1, 2 and 5 of them on a short axis, or its ends on a very short one."""
    digits = (1,) if high / low > 300 else (1, 2, 5)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [tick for tick in (digit * 10.0**power for power in powers for digit in digits) if low <= tick <= high]
    return ticks[::math.ceil(len(ticks) / 5)] if len(ticks) > 1 else [low, high]


def _values_across(done: Sequence[TrialRow]) -> tuple[float, float, np.ndarray]:
    """Ends of the row of values, and where each lies from 0 to 1; those far from the others lie at its end."""
    values = [one.value or 0.0 for one in done]
    low, high = np.clip(limits(values, values[:1]), min(values), max(values)).tolist()
    return low, high, np.clip((np.array(values) - low) / ((high - low) or 1.0), 0, 1)


def _lines(axes: Axes, lines: np.ndarray, colours: np.ndarray) -> None:
    """Lines `(N, R)` over their rows; where one has a gap on both sides of a row, a dot."""
    rows = np.arange(lines.shape[1])
    axes.add_collection(LineCollection([np.column_stack([line, rows]) for line in lines], colors=colours,
                                       linewidths=1.1))
    known = np.pad(~np.isnan(lines), ((0, 0), (1, 1)))
    line, row = np.nonzero(known[:, 1:-1] & ~known[:, :-2] & ~known[:, 2:])
    axes.scatter(lines[line, row], row, s=8, c=colours[line], linewidths=0)

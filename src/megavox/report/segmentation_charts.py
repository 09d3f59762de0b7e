"""How well the structures were found: Dice of every case, and volumes against the reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from megavox.core.randomness import generator
from megavox.report.canvas import FAINT, INK, colour, label, new_figure, plain_number, styled

MOST_DOTS = 400  # of one class; more are thinned evenly along their order
MOST_PANELS = 12


@styled
def dice_distribution(case_rows: Sequence[Mapping[str, Any]], classes: Sequence[str]) -> Figure | str:
    """A dot for each case and a box (quartiles, median; whiskers to 1.5 interquartile ranges) a class.

    Args:
        case_rows: from `segmentation_case_rows`.
        classes: one line of the chart each.

    Returns:
        SVG, or a sentence where no case has a defined Dice.
    """
    values = {name: np.sort([v for v in _column(case_rows, name, "dice") if v is not None]) for name in classes}
    if not any(len(v) for v in values.values()):
        return "No test case has a Dice that is defined (the structures occur in no reference), so there is no " \
               "distribution to draw."
    figure, (axes,) = new_figure(0.9 + 0.5 * len(classes))
    for place, name in enumerate(classes):
        dots = values[name]
        if len(dots) > 1:
            axes.boxplot([dots], positions=[place], orientation="horizontal", widths=0.55, showfliers=False,
                         boxprops={"color": INK}, whiskerprops={"color": INK}, capprops={"color": INK},
                         medianprops={"color": colour(5), "linewidth": 2})
        if len(dots) > MOST_DOTS:
            dots = dots[np.linspace(0, len(dots) - 1, MOST_DOTS).astype(int)]
        aside = generator(0, "dice dots", place).uniform(-0.18, 0.18, len(dots))
        axes.plot(dots, place + aside, linestyle="", marker="o", markersize=4, color=colour(0), alpha=0.55,
                  markeredgewidth=0)
        if not len(dots):
            axes.text(0.01, place, "undefined in every case", color=FAINT, va="center", fontsize=8.5,
                      transform=axes.get_yaxis_transform())
    axes.set_yticks(range(len(classes)), [f"{label(name, 22)}\nn = {len(values[name])}" for name in classes])
    axes.set_ylim(len(classes) - 0.5, -0.5)
    axes.set_xlim(min(0.98, max(0.0, min(v[0] for v in values.values() if len(v)) - 0.05)), 1.005)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("Dice (1 is perfect agreement)")
    return figure


@styled
def volume_agreement(case_rows: Sequence[Mapping[str, Any]], classes: Sequence[str]) -> Figure | str:
    """Difference of the volumes over their mean, a panel a class, in mm^3 (Bland and Altman 1986).

    The lines are the mean difference and the 95 % limits of agreement, mean +- 1.96 standard deviations.

    Args:
        case_rows: from `segmentation_case_rows`.
        classes: at most the first `MOST_PANELS` are drawn.

    Returns:
        SVG, or a sentence where no volume is known.
    """
    pairs = {}
    for name in classes:
        both = zip(_column(case_rows, name, "volume_prediction_mm3"),
                   _column(case_rows, name, "volume_reference_mm3"), strict=True)
        kept = [(p, r) for p, r in both if p is not None and r is not None and p + r > 0]
        if kept:
            pairs[name] = np.array(kept)
    if not pairs:
        return "No structure was found or drawn in any test case, so there are no volumes to compare."
    shown = list(pairs)[:MOST_PANELS]
    columns = 1 if len(shown) == 1 else 2
    rows = ceil(len(shown) / columns)
    figure, panels = new_figure(3.6 if rows == 1 and columns == 1 else 0.5 + 2.7 * rows, rows, columns)
    for axes, name in zip(panels, shown, strict=False):
        _bland_altman(axes, pairs[name])
        axes.set_title(label(name, 24))
    for axes in panels[len(shown):]:
        axes.set_visible(False)
    figure.supxlabel("mean of prediction and reference (mm³)", fontsize=9.5)
    figure.supylabel("prediction \u2212 reference (mm³)", fontsize=9.5)
    return figure


def _bland_altman(axes: Axes, pairs: np.ndarray) -> None:
    """One panel from prediction and reference in mm^3, `(N, 2)`."""
    mean, difference = pairs.mean(axis=1), pairs[:, 0] - pairs[:, 1]
    if len(pairs) > MOST_DOTS:
        keep = np.argsort(difference, kind="stable")[np.linspace(0, len(pairs) - 1, MOST_DOTS).astype(int)]
    else:
        keep = np.arange(len(pairs))
    axes.plot(mean[keep], difference[keep], linestyle="", marker="o", markersize=4.5, color=colour(0), alpha=0.6,
              markeredgewidth=0)
    axes.axhline(0, color=FAINT, linewidth=0.8)
    middle = difference.mean()
    axes.axhline(middle, color=colour(5), linewidth=1.4)
    low, high = min(0.0, difference.min()), max(0.0, difference.max())
    if len(pairs) > 2:
        spread = 1.96 * difference.std(ddof=1)
        for edge in (middle - spread, middle + spread):
            axes.axhline(edge, color=colour(5), linewidth=1, linestyle="--")
        low, high = min(low, middle - spread), max(high, middle + spread)
    room = 0.08 * (high - low) or 0.05 * mean.max()
    axes.set_ylim(low - room, high + room)
    room = 0.06 * np.ptp(mean) or 0.5 * mean.max()
    axes.set_xlim(mean.min() - room, mean.max() + room)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(4 if axis is axes.yaxis else 2))
        axis.set_major_formatter(FuncFormatter(lambda value, _: plain_number(value)))


def _column(case_rows: Sequence[Mapping[str, Any]], name: str, measure: str) -> list[float | None]:
    """A measure of a class in every case; None where it is undefined or not there."""
    values = [row["classes"].get(name, {}).get(measure) for row in case_rows]
    return [None if v is None or not np.isfinite(v) else float(v) for v in values]

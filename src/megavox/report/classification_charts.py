"""How well classes were told apart: ROC curves, confusion matrix, reliability of the probabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter

from megavox.report.canvas import COLOURS, FAINT, LINE, colour, label, legend_below, new_figure, stroke, styled
from megavox.report.wording import shown

MOST_NUMBERED = 12  # classes up to which the cells of a confusion matrix carry numbers
MOST_PANELS = 24
_BLUES = LinearSegmentedColormap.from_list("share", ["#f4f8fb", COLOURS[0]])


@styled
def roc_curves(evaluation: Mapping[str, Any]) -> Figure | str:
    """ROC curves of the defined classes; the legend has AUROC with its interval, the best first.

    Args:
        evaluation: of `summarise_classification`. Of two exclusive classes only the last (positive)
            one is drawn: the other's curve is its mirror image.

    Returns:
        SVG, or a sentence where no class is defined.
    """
    curves, classes = evaluation.get("roc") or {}, evaluation.get("classes") or {}
    names = list(curves)
    if len(classes) == 2 and not evaluation.get("multilabel"):
        names = names[-1:]
    if not names:
        return "No class has enough positive and negative test cases, so there is no ROC curve to draw."
    names.sort(key=lambda name: -(classes[name]["auroc"]["value"] or 0.0))
    figure, (axes,) = new_figure(4.2 + 0.19 * len(names))
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=0.9, linestyle=":")
    handles = []
    for number, name in enumerate(names):
        line, = axes.plot(curves[name]["false_positive_rate"], curves[name]["sensitivity"], color=colour(number),
                          linestyle=stroke(number))
        handles.append(line)
    _unit_square(axes, "false positive rate (1 \u2212 specificity)", "sensitivity")
    legend_below(figure, handles, [f"{label(name)}: {shown(classes[name]['auroc']).text}" for name in names], 1)
    return figure


@styled
def confusion_matrix(counts: Sequence[Sequence[int]] | None, classes: Sequence[str]) -> Figure | str:
    """Counts and shares of each reference class (row), by predicted class (column).

    Args:
        counts: `(K, K)`, reference down and prediction across; None for multi-label tasks.
        classes: the K names.

    Returns:
        SVG, or a sentence where there is no matrix.
    """
    if counts is None:
        return "A case can have several labels at once here, so there is no confusion matrix."
    table = np.asarray(counts, dtype=float)
    if not table.size or not table.sum():
        return "There is no test case, so there is no confusion matrix."
    total = table.sum(axis=1, keepdims=True)
    share = np.where(total > 0, table / np.maximum(total, 1), np.nan)
    k = len(classes)
    figure, (axes,) = new_figure(min(1.6 + 0.85 * k, 5.6))
    axes.grid(False)
    axes.pcolormesh(np.ma.masked_invalid(share), cmap=_BLUES, vmin=0, vmax=1, edgecolors=LINE, linewidth=0.8)
    if k <= MOST_NUMBERED:
        size = 10 if k <= 4 else 8 if k <= 7 else 6
        for (row, column), count in np.ndenumerate(table):
            part = share[row, column]
            text = f"{count:.0f}" + (f"\n{100 * part:.0f} %" if part == part else "\nno case")
            axes.text(column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=size,
                      color="#ffffff" if part > 0.55 else FAINT if part != part else "#10181e")
    names = [label(name, 18) for name in classes]
    wide = k > 3 or max(map(len, names)) > 12
    axes.set_xticks(np.arange(k) + 0.5, names, rotation=35 if wide else 0, ha="right" if wide else "center")
    axes.set_yticks(np.arange(k) + 0.5, names)
    axes.tick_params(length=0)
    axes.set_ylim(k, 0)
    axes.set_xlabel("predicted")
    axes.set_ylabel("reference")
    return figure


@styled
def reliability(calibration: Mapping[str, Sequence[Mapping[str, float]]], left_out: Sequence[str] = ()) -> Figure | str:
    """Observed frequency over mean predicted probability, a panel a curve.

    Args:
        calibration: points by label (`reliability_curve`); "top label" for exclusive classes.
        left_out: labels not to draw because too few cases have them.

    Returns:
        SVG, or a sentence where there are no points.
    """
    curves = {name: points for name, points in calibration.items() if points and name not in left_out}
    if not curves:
        return "No class has enough test cases to compare its probabilities with what happened."
    names = list(curves)[:MOST_PANELS]
    columns = min(len(names), 3)
    rows = ceil(len(names) / columns)
    figure, panels = new_figure(4.3 if columns == 1 else 0.5 + 5.1 / columns * rows, rows, columns)
    for axes, name in zip(panels, names, strict=False):
        axes.plot([0, 1], [0, 1], color=FAINT, linewidth=0.9, linestyle=":")
        axes.plot([point["confidence"] for point in curves[name]], [point["frequency"] for point in curves[name]],
                  color=colour(0), marker="o", markersize=4 if columns < 3 else 3, linewidth=1.2)
        _unit_square(axes, "", "")
        if columns > 1:
            axes.set_title(label(name, 48 // columns), fontsize=9)
    for axes in panels[len(names):]:
        axes.set_visible(False)
    what = "of the chosen class" if names == ["top label"] else "of the label"
    figure.supxlabel(f"predicted probability {what}", fontsize=9.5)
    figure.supylabel("how often it was right" if names == ["top label"] else "how often it was there", fontsize=9.5)
    return figure


def _unit_square(axes: Axes, across: str, up: str) -> None:
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    axes.set_aspect("equal")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(FixedLocator([0, 0.25, 0.5, 0.75, 1]))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}" if value in (0, 0.5, 1) else ""))
    axes.set_xlabel(across)
    axes.set_ylabel(up)

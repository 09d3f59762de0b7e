"""How the training went: one chart of loss, learning rate and validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from scipy.ndimage import gaussian_filter1d

from megavox.report.canvas import FAINT, INK, colour, label, legend_below, new_figure, plain_number, stroke, styled
from megavox.report.wording import heading

MOST_POINTS = 800  # of a drawn line; longer ones are averaged in blocks of steps
SMOOTHING = 1 / 60  # of the loss: standard deviation of the window as a share of the points
MOST_LINES = 10  # of single classes in the validation panel


@styled
def training_curves(lines: Sequence[Mapping[str, Any]], metric: str) -> Figure | str:
    """Loss and learning rate above, validation below, over the steps.

    Args:
        lines: of metrics.jsonl: `step` with `loss` and `learning_rate`, or with `validation`.
        metric: the validation score to show; scores called "<metric> <class>" are drawn lightly.

    Returns:
        SVG, or a sentence where there is nothing to draw.
    """
    losses = _series(lines, lambda line: line.get("loss"))
    rates = _series(lines, lambda line: line.get("learning_rate"))
    names = dict.fromkeys(name for line in lines for name in line.get("validation") or {})
    scores = {name: _series(lines, lambda line, name=name: (line.get("validation") or {}).get(name))  # type: ignore[misc]
              for name in names if name == metric or name.startswith(metric + " ")}
    scores = {name: series for name, series in scores.items() if len(series)}
    if not len(losses) and not scores:
        return "No step of the training was recorded with a finite loss, so there is no curve to draw."
    figure, (above, below) = new_figure(4.6 + (0.16 * len(scores) if len(scores) > 2 else 0), rows=2, sharex=True)
    handles = _losses(above, losses, rates)
    above.set_ylabel("loss")
    handles += _validation(below, scores, metric)
    below.set_ylabel(f"validation {heading(metric)}")
    below.set_xlabel("step")
    below.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    below.xaxis.set_major_formatter(FuncFormatter(lambda value, _: plain_number(value)))
    legend_below(figure, [handle for handle, _ in handles], [name for _, name in handles],
                 columns=1 if len(handles) > 5 else 2)
    return figure


def _losses(axes: Any, losses: np.ndarray, rates: np.ndarray) -> list[tuple[Any, str]]:
    """Draw the upper panel; `(P, 2)` of step and value each. Returns what the legend names."""
    handles = []
    if len(losses):
        points = _thinned(losses)
        faint, = axes.plot(*points.T, color=colour(0), alpha=0.3, linewidth=1, marker="." if len(points) == 1 else "")
        smooth, = axes.plot(points[:, 0], _smooth(points[:, 1]), color=colour(0))
        handles += [(faint, "loss"), (smooth, "loss, smoothed")]
        top = np.quantile(points[:, 1], 0.995)  # a spike of the first steps must not flatten the rest
        low, high = points[:, 1].min(), max(top, _smooth(points[:, 1])[len(points) // 20:].max())
        room = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
        axes.set_ylim(low - room, high + room)
    if len(rates):
        right = axes.twinx()
        right.grid(False)
        right.spines["right"].set_visible(True)
        line, = right.plot(*_thinned(rates).T, color=FAINT, linewidth=1, linestyle=":")
        right.set_ylabel("learning rate", color=FAINT)
        right.tick_params(axis="y", labelcolor=FAINT)
        right.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.2g}".replace("-", "\u2212")))
        right.set_ylim(0, (rates[:, 1].max() or 1.0) * 1.1)
        handles.append((line, "learning rate"))
    return handles


def _validation(axes: Any, scores: Mapping[str, np.ndarray], metric: str) -> list[tuple[Any, str]]:
    """Draw the lower panel. Returns what the legend names."""
    if not scores:
        axes.text(0.5, 0.5, "no validation was recorded", transform=axes.transAxes, ha="center", color=FAINT)
        axes.set_yticks([])
        return []
    handles = []
    single = [name for name in scores if name != metric]
    for number, name in enumerate(single if len(single) > 1 else []):
        line, = axes.plot(*scores[name].T, color=colour(number + 1), linestyle=stroke(number + 1), linewidth=1,
                        alpha=0.75)
        if number < MOST_LINES:
            handles.append((line, label(heading(metric) + name.removeprefix(metric))))
    if metric in scores:
        steps, values = scores[metric].T
        line, = axes.plot(steps, values, color=INK, marker="o", markersize=3)
        best = int(values.argmax())
        dot, = axes.plot(steps[best], values[best], linestyle="", marker="o", markersize=7, color=colour(5))
        mark = f"best: {values[best]:.3f} at step {plain_number(steps[best])}"
        handles = [(line, heading(metric)), (dot, mark), *handles]
    return handles


def _series(lines: Sequence[Mapping[str, Any]], value: Any) -> np.ndarray:
    """Step and value of the lines that have a finite one, `(P, 2)`, by rising step."""
    found = [(line["step"], value(line)) for line in lines]
    points = np.array([(step, v) for step, v in found if v is not None and np.isfinite(v)], dtype=float)
    return points[np.argsort(points[:, 0], kind="stable")] if len(points) else np.empty((0, 2))


def _thinned(points: np.ndarray) -> np.ndarray:
    """Means over blocks of steps: `(P, 2)` to at most `(MOST_POINTS, 2)`."""
    if len(points) <= MOST_POINTS:
        return points
    return np.array([block.mean(axis=0) for block in np.array_split(points, MOST_POINTS)])


def _smooth(values: np.ndarray) -> np.ndarray:
    """Gaussian-weighted mean of the neighbours on both sides, so that the curve does not lag behind."""
    return gaussian_filter1d(values, SMOOTHING * len(values), mode="nearest")

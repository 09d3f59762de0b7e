"""How a search went: the best value so far, scores on the way, and what mattered."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from megavox.report.canvas import FAINT, INK, colour, label, legend_below, new_figure, plain_number, styled
from megavox.report.search_content import SearchContent, TrialRow
from megavox.report.wording import cell, heading

MOST_BARS = 24
MOST_OPAQUE = 50  # lines over each other; more of them are fainter
STRIP = 0.16  # height of the strip under a chart for trials that failed, in heights of the chart
FAR = 3.0  # quartile ranges beyond which a value does not stretch the axis
FAULTS = {"setting": ("failed by its setting", "x", colour(5)), "machine": ("failed by the machine", "+", FAINT),
          "cancelled": ("cancelled", "|", FAINT)}
Along = Literal["jobs", "hours", "machine-hours"]
_AXIS = {"jobs": "jobs ended", "hours": "hours since the search began", "machine-hours": "machine-hours of ended jobs"}


@styled
def progress(content: SearchContent, along: Along) -> Figure | str:
    """The best value so far, a dot for each trial, and marks for those that failed.

    Args:
        content: of the report.
        along: number of ended jobs, with jobs by workers on the upper axis; hours since the first job began; or hours
            of work times processes of all jobs that had ended.

    Returns:
        SVG, or a sentence where no trial has a value.
    """
    trials, places = _along(content, along)
    best = content.best
    if best is None or best not in trials:
        return "No job has ended with a value yet, so there is no best one to follow."
    figure, (axes,) = new_figure(3.7)
    handles = _outcomes(axes, content, trials, places)
    at = [place for one, place in zip(trials, places, strict=True) if one.value is not None]
    values = [one.value for one in trials if one.value is not None]
    so_far = (np.maximum if content.goal == "maximise" else np.minimum).accumulate(values)
    line, = axes.plot([*at, places[-1]], [*so_far, so_far[-1]], drawstyle="steps-post", color=INK)
    handles = [(line, "best so far"), _best_dot(axes, best, places[trials.index(best)]), *handles]
    if content.default_value is not None:
        dashed = axes.axhline(content.default_value, color=colour(2), linestyle="--", linewidth=1.2)
        handles.append((dashed, f"default setting: {cell(content.default_value)}"))
    axes.set_xlim(0, 1.03 * places[-1] or 1.0)
    axes.set_xlabel(_AXIS[along])
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=along == "jobs"))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: plain_number(value)))
    if along == "jobs" and content.workers > 1:
        workers: Any = content.workers
        above = axes.secondary_xaxis("top", functions=(lambda x: x / workers, lambda x: x * workers))
        above.set_xlabel(f"jobs ended / M   (M = {content.workers} at a time)")
        above.spines["top"].set_visible(True)
    legend_below(figure, [handle for handle, _ in handles], [name for _, name in handles], columns=2)
    return figure


@styled
def learning_curves(content: SearchContent) -> Figure | str:
    """Validation score of every trial over its training; those that were stopped early are dashed.

    Args:
        content: of the report.

    Returns:
        SVG, or a sentence where no trial told scores on the way.
    """
    told = [one for one in content.trials if one.scores and one.state != "failed"]
    if not told:
        return "No trial has told a score on the way yet, so there are no learning curves."
    figure, (axes,) = new_figure(3.7)
    looks: Mapping[str, dict[str, Any]] = {
        "done": {"color": colour(0), "alpha": 0.4 * faded(len(told))},
        "stopped": {"color": colour(1), "linestyle": "--", "alpha": 0.9 * faded(len(told))},
        "running": {"color": colour(2), "linestyle": "-."}}
    names = {"done": "ran to its end", "stopped": "stopped early", "running": "under way"}
    handles: dict[str, Any] = {}
    for one in told:
        handles[names[one.state]], = axes.plot(*np.transpose(one.scores), linewidth=1, **looks[one.state],
                                               marker="." if len(one.scores) == 1 else "")
    best = content.best
    if best is not None and best.scores:
        handles[f"best: trial {best.number}"], = axes.plot(*np.transpose(best.scores), color=INK, linewidth=2.2)
    low, high = limits([score for one in told for _, score in one.scores],
                       [one.value for one in content.done[:1] if one.value is not None])
    _value_axis(axes, content, low, high)
    axes.set_xlim(0, 1)
    axes.set_xlabel("share of the training")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
    legend_below(figure, list(handles.values()), list(handles), columns=2)
    return figure


@styled
def importance_bars(importance: Mapping[str, float]) -> Figure | str:
    """A bar for each parameter, the most important first.

    Args:
        importance: parameter -> share.

    Returns:
        SVG, or a sentence where it cannot be told.
    """
    if not importance:
        return "Too few trials have a value, or all have the same, to tell which hyper-parameters matter."
    shown = sorted(importance.items(), key=lambda item: -item[1])[:MOST_BARS]
    figure, (axes,) = new_figure(0.7 + 0.3 * len(shown))
    axes.barh(range(len(shown)), [share for _, share in shown], height=0.62, color=colour(0))
    for place, (_, share) in enumerate(shown):
        axes.text(share + 0.015 * shown[0][1], place, f"{share:.0%}", va="center", fontsize=8.5)
    axes.set_yticks(range(len(shown)), [label(name, 34) for name, _ in shown])
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.set_xlim(0, 1.14 * shown[0][1] or 1.0)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("share of the difference between settings")
    return figure


def faded(lines: int) -> float:
    """Opacity, as a share, with which so many lines over each other can still be told apart."""
    return min(1.0, (MOST_OPAQUE / lines) ** 0.5)


def limits(values: Sequence[float], always: Sequence[float] = ()) -> tuple[float, float]:
    """Ends of an axis of values, with room: those far from the others are left out, but for `always`.

    Far is three quartile ranges beyond the quartiles (Tukey 1977, "far out").
    """
    lower, upper = np.quantile(values, [0.25, 0.75])
    far = FAR * (upper - lower) or np.inf
    near = [*always, *(value for value in values if lower - far <= value <= upper + far)]
    low, high = min(near), max(near)
    room = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    return low - room, high + room


def draw_values(axes: Any, points: Sequence[tuple[float, float]], low: float, high: float, colours: Any = None,
                **looks: Any) -> Any:
    """Dots at `points`; those beyond the axis from `low` to `high` become triangles at its edge.

    Args:
        axes: of the chart.
        points: where, and the value.
        low, high: ends of the axis of values.
        colours: one for each point, or None.
        looks: as Matplotlib's `scatter` takes them.

    Returns:
        What a legend shows.
    """
    places, values = np.transpose(points)
    groups = {"^": values > high, "v": values < low, "o": (low <= values) & (values <= high)}
    for marker, those in groups.items():
        dots = axes.scatter(places[those], values.clip(low, high)[those], marker=marker, clip_on=marker == "o",
                            c=None if colours is None else colours[those], **looks)
    return dots


def draw_failures(axes: Axes, trials: Sequence[TrialRow], place: Callable[[TrialRow], float], low: float,
                  high: float) -> list[tuple[Any, str]]:
    """A strip under the chart with a mark for each trial that failed. Returns what a legend names."""
    failed = [one for one in trials if one.state == "failed"]
    if not failed:
        return []
    strip = STRIP * (high - low)
    axes.set_ylim(low - strip, high)
    axes.axhline(low, color=FAINT, linewidth=0.8)
    handles = []
    for cause, (name, marker, tint) in FAULTS.items():
        those = [place(one) for one in failed if (one.cause or "machine") == cause]
        if those:
            dots, = axes.plot(those, [low - strip / 2] * len(those), linestyle="", marker=marker, markersize=5.5,
                              color=tint, alpha=0.85, clip_on=False)
            handles.append((dots, name))
    return handles


def _outcomes(axes: Axes, content: SearchContent, trials: Sequence[TrialRow],
              places: Sequence[float]) -> list[tuple[Any, str]]:
    """A mark for each trial. Returns what the legend names."""
    done, stopped = ([(place, one.latest) for one, place in zip(trials, places, strict=True)
                      if one.state == state and one.latest is not None] for state in ("done", "stopped"))
    always = [value for value in (content.done[0].value, content.default_value) if value is not None]
    low, high = limits([value for _, value in done], always)
    _value_axis(axes, content, low, high)
    handles = [(draw_values(axes, done, low, high, s=18, color=colour(0), alpha=0.45, linewidths=0),
                "value of a trial")]
    if stopped:
        handles.append((draw_values(axes, stopped, low, high, s=18, facecolors="none", edgecolors=colour(1),
                                    linewidths=1), "stopped early: latest score"))
    where = {one.number: place for one, place in zip(trials, places, strict=True)}
    return handles + draw_failures(axes, trials, lambda one: where[one.number], low, high)


def _value_axis(axes: Axes, content: SearchContent, low: float, high: float) -> None:
    axes.set_ylim(low, high)
    axes.set_yticks([tick for tick in MaxNLocator(5).tick_values(low, high) if low <= tick <= high])
    good = "higher" if content.goal == "maximise" else "lower"
    axes.set_ylabel(f"{label(heading(content.objective))} ({good} is better)")


def _best_dot(axes: Any, best: TrialRow, place: float) -> tuple[Any, str]:
    dot, = axes.plot(place, best.value, linestyle="", marker="o", markersize=7, color=INK, zorder=4)
    return dot, f"best: {cell(best.value)}, trial {best.number}"


def _along(content: SearchContent, along: Along) -> tuple[list[TrialRow], list[float]]:
    """Ended trials and where each lies; without those whose end is not known where that is asked for."""
    trials = content.ended
    if along == "jobs":
        return trials, [float(count) for count in range(1, len(trials) + 1)]
    if along == "machine-hours":
        return trials, np.cumsum([one.machine_hours for one in trials]).tolist()
    return ([one for one in trials if one.ended is not None],
            [content.hours(one.ended) for one in trials if one.ended is not None])

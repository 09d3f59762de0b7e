"""How well findings were found: the FROC curve, and the findings by diameter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from megavox.measures.froc import RATES
from megavox.report.canvas import colour, legend_below, new_figure, plain_number, styled
from megavox.report.wording import plural, shown

MARKED_MM = (1, 3, 5, 8, 15, 30, 60, 120)
SHOWN_MM = (3.0, 30.0)  # at the least
BARS = 20


@styled
def froc_curves(evaluation: Mapping[str, Any]) -> Figure | str:
    """FROC curve of all findings with its pointwise interval, and a thin one for each range of diameters.

    Args:
        evaluation: of `summarise_detection`.

    Returns:
        SVG, or a sentence where no case has a finding.
    """
    curve, whole = evaluation["curve"], evaluation["headline"]
    if not evaluation["n_findings"]:
        return "No test case has a finding, so there is no FROC curve to draw."
    strata = {name: entry for name, entry in evaluation["strata"].items() if entry["n_findings"]}
    strata = strata if len(strata) > 1 else {}  # one alone is the curve of all
    figure, (axes,) = new_figure(3.9 + 0.19 * len(strata))
    rates, low, high = (np.array(curve[key], dtype=float) for key in ("false_rate", "low", "high"))
    axes.fill_between(rates, low, high, color=colour(0), alpha=0.2, linewidth=0)
    line, = axes.plot(rates, curve["sensitivity"], color=colour(0), linewidth=2)
    axes.plot(RATES, [whole[f"sensitivity_at_{rate:g}"]["value"] for rate in RATES], color=colour(0), linestyle="",
              marker="o", markersize=5)
    handles, names = [line], [f"all {plural(evaluation['n_findings'], 'finding')}: {shown(whole['partial_area']).text}"]
    for number, (name, entry) in enumerate(strata.items(), start=1):
        line, = axes.plot(rates, curve["strata"][name], color=colour(number), linewidth=1)
        handles.append(line)
        names.append(f"{name}, {plural(entry['n_findings'], 'finding')}: {shown(entry['partial_area']).text}")
    _rates(axes, rates)
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlabel("false positives per case")
    axes.set_ylabel("sensitivity")
    legend_below(figure, handles, names, 1)
    return figure


@styled
def findings_by_diameter(case_rows: Sequence[Mapping[str, Any]]) -> Figure | str:
    """Numbers of findings over their diameter in mm: found ones, and missed ones on top of them.

    Args:
        case_rows: from `detection_case_rows`. Findings of unknown diameter are left out.

    Returns:
        SVG, or a sentence where no diameter is known.
    """
    found, missed = (np.array([mm for row in case_rows for mm in row[key] if mm > 0])
                     for key in ("found_mm", "missed_mm"))
    both = np.concatenate([found, missed])
    if not len(both):
        return "No finding of known diameter is in any test case, so there are none to count by diameter."
    edges = np.geomspace(min(SHOWN_MM[0], both.min()), max(SHOWN_MM[1], both.max()), BARS + 1)
    figure, (axes,) = new_figure(3.6)
    counts = [np.histogram(sizes, edges)[0] for sizes in (found, missed)]
    bars = [axes.bar(edges[:-1], height, np.diff(edges), bottom, align="edge", color=colour(number))
            for height, bottom, number in zip(counts, (np.zeros(BARS), counts[0]), (0, 5), strict=True)]
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(MARKED_MM))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: plain_number(value)))
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.grid(axis="x", visible=False)
    axes.set_xlabel("diameter (mm)")
    axes.set_ylabel("findings")
    legend_below(figure, bars, [f"found (n = {len(found)})", f"missed (n = {len(missed)})"], 2)
    return figure


def _rates(axes: Axes, rates: np.ndarray) -> None:
    """False positives a case as LUNA16 has them, each twice the one before."""
    axes.set_xscale("log", base=2)
    axes.set_xlim(rates[0], rates[-1])
    axes.xaxis.set_major_locator(FixedLocator(RATES))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: str(Fraction(value))))

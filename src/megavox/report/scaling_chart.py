"""How training scales over ranks: speed-up above, where the time goes below."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from megavox.report.canvas import FAINT, colour, legend_below, new_figure, plain_number, styled


@styled
def scaling_chart(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Chart of a scaling table.

    Args:
        rows: `scaling` (its kind), `ranks`, `speed_up`, and shares of a step's time: `communication`, `uneven`,
            `waiting`.

    Returns:
        SVG.
    """
    figure, (above, below) = new_figure(4.6, rows=2, sharex=True)
    ranks = sorted({int(row["ranks"]) for row in rows})
    [ideal] = above.plot(ranks, [count / ranks[0] for count in ranks], color=FAINT, linestyle=":")
    handles, names = [ideal], ["as many times as ranks"]
    for number, kind in enumerate(dict.fromkeys(row["scaling"] for row in rows)):
        those = [row for row in rows if row["scaling"] == kind]
        at = [row["ranks"] for row in those]
        [line] = above.plot(at, [row["speed_up"] for row in those], "o-", color=colour(number))
        below.plot(at, [row["communication"] for row in those], "o-", color=colour(number))
        [dashed] = below.plot(at, [row["waiting"] for row in those], "s--", color=colour(number),
                              markerfacecolor="none")
        [dotted] = below.plot(at, [row["uneven"] for row in those], "^:", color=colour(number), markerfacecolor="none")
        handles += [line, dotted, dashed]
        names += [f"{kind}; below: communication", f"{kind}, uneven ranks", f"{kind}, waiting for data"]
    above.set_ylabel("times as fast")
    for axes in (above, below):
        axes.set_xscale("log", base=2)
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(FixedLocator(ranks))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: plain_number(value)))
    below.set_ylabel("share of a step")
    shares = (row[name] for row in rows for name in ("communication", "uneven", "waiting"))
    below.set_ylim(top=max(0.1, *(1.1 * share for share in shares)))
    below.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
    below.set_xlabel("ranks")
    legend_below(figure, handles, names, columns=2)
    return figure

"""`megavox tune`: a search, followed on the terminal."""

from __future__ import annotations

import signal
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from megavox.cli_jobs import AskOption, SiteOption
from megavox.cli_options import RunOption, SetOption, StudyFile, WorkspaceOption, project_of
from megavox.core.progress import console, say

if TYPE_CHECKING:
    from rich.table import Table

    from megavox.pipeline.standing import Standing
    from megavox.pipeline.tune import Search

DRAW_EVERY_S = 1.0


def tune(study: StudyFile, workspace: WorkspaceOption = None, change: SetOption = None, run: RunOption = None,
         site: SiteOption = None, ask: AskOption = None,
         dashboard: Annotated[bool, typer.Option("--dashboard", help="serve Optuna's dashboard of the search to this "
                                                 "machine instead")] = False,
         port: Annotated[int, typer.Option("--port", metavar="N", help="of the dashboard")] = 8080) -> None:
    """Search the study's settings, many trials at a time, as jobs of a site; the same command goes on with it."""
    from megavox.core.signals import Stop
    from megavox.jobs.section import asked
    from megavox.pipeline import tune as stage
    from megavox.pipeline.search_report import report_search
    from megavox.pipeline.standing import standing

    search = stage.search_of(project_of(study, workspace, change, run), site or "local", asked(ask or ()))
    if dashboard:
        stage.serve(search, port)
        return
    view = _View(search)
    with Stop("stopping the search; its trials go on") as stop:
        try:
            stage.tune(search, view.tell, lambda: stop.asked)
        finally:
            view.close()
    under_way = search.ledger.under_way()
    if under_way and stop.signal == signal.SIGINT and sys.stdin.isatty() and not typer.confirm(
            f"Leave the {len(under_way)} trials that are under way running?", default=True, err=True):
        stage.end(search)
        say("they are being ended; the same command sends them again, and they go on from their checkpoints")
    print(f"tune:\n  {standing(search).sentence()}\n  the report is {report_search(search)}")
    if search.folder.best.exists():
        print(f"  the best setting, and how to evaluate or train it, is in {search.folder.best}")
    if under_way:
        stop.leave("stopped; the same command goes on with the search")


class _View:
    """A table that moves on a terminal; elsewhere a line whenever a trial is sent, waits, runs or ends.

    Args:
        search: to be shown.
    """

    def __init__(self, search: Search) -> None:
        from megavox.pipeline.standing import standing

        now = standing(search)
        self._search, self._drawn, self._told = search, 0.0, set(now.ended)
        self._states: dict[int, str] = {}
        if self._told or now.under_way:
            say(f"going on: {now.sentence()}; {len(now.under_way)} under way")
        self._live: Any = None
        if console().is_terminal:
            from rich.live import Live

            self._live = Live(console=console(), auto_refresh=False, transient=True)
            self._live.start()

    def tell(self) -> None:
        """Show what is new."""
        from megavox.pipeline.standing import standing

        if self._live and time.monotonic() - self._drawn < DRAW_EVERY_S:
            return
        self._drawn, now = time.monotonic(), standing(self._search)
        for number in sorted(now.ended.keys() - self._told):
            self._told.add(number)
            say(f"trial {number}: {now.ended[number]}" + ("" if self._live else f"; {now.sentence()}"))
        if self._live:
            self._live.update(_table(now), refresh=True)
            return
        for one in now.under_way:
            if self._states.get(one.number) != one.state:
                self._states[one.number] = one.state
                say(f"trial {one.number}: {one.state}")

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._live:
            self._live.stop()


def _table(now: Standing) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=now.sentence(), title_justify="left", box=None, padding=(0, 2, 0, 0))
    for name in ("trial", "job", "trained", now.objective):
        table.add_column(name, min_width=len(name))
    table.add_column("setting", overflow="ellipsis", no_wrap=True)
    for one in now.under_way:
        setting = ", ".join(f"{key.rpartition('.')[2]} {_short(value)}" for key, value in one.setting.items())
        table.add_row(*map(Text, (str(one.number), one.state, f"{one.share:.0%}",
                                  "-" if one.score is None else f"{one.score:.4f}", setting)))
    return table


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)

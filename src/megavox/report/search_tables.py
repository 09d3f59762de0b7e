"""The tables of a search's report: the best setting, what failed and why, and every trial."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import Any

from megavox.report.search_content import SearchContent, TrialRow
from megavox.report.search_setting_charts import short
from megavox.report.tables import DASHED, MOST_ROWS, Cell, Table
from megavox.report.wording import cell, heading, is_number, plural

FAULTS = {"setting": "the setting: it cannot be trained", "": "unknown",
          "machine": "the machine: it says nothing of the setting", "cancelled": "somebody cancelled it"}
_STATES = ("done", "stopped", "failed", "running")


def best_table(content: SearchContent) -> Table | None:
    """The best setting beside the study's own; None before any trial has a value."""
    best = content.best
    if best is None:
        return None
    rows = [[Cell(one.name), _setting(best.setting, one.name),
             _setting(content.defaults, one.name)] for one in content.parameters]
    known = "" if content.default_value is None else cell(content.default_value)
    rows.append([Cell(heading(content.objective)), Cell(cell(best.value)), Cell(known or "not tried")])
    missing = any(one.text == DASHED for row in rows for one in row)
    notes = [f"{DASHED}: the setting has no such value."] if missing else []
    columns = [("hyper-parameter", False), (f"best: trial {best.number}", False), ("the study's own", False)]
    return Table("The best setting beside the study's own", columns, rows, notes)


def failure_table(content: SearchContent) -> Table | None:
    """Failed trials by cause and sentence, the most frequent first; None where none failed."""
    failed = content.of_state("failed")
    if not failed:
        return None
    found = Counter((one.cause, one.told) for one in failed)
    causes = Counter(one.cause for one in failed)
    ordered = sorted(found, key=lambda key: (-causes[key[0]], key[0], -found[key], key[1]))
    rows = [[Cell(FAULTS[cause]), Cell(told or "nothing was told"), _number(found[cause, told]),
             Cell(_some([one.number for one in failed if (one.cause, one.told) == (cause, told)]))]
            for cause, told in ordered]
    return Table("Failures by cause", [("at fault", False), ("how it failed", False), ("jobs", True),
                                       ("trials", False)], rows)


def trial_table(content: SearchContent) -> Table | None:
    """Every trial, the best first, then those that were stopped, failed and run; None where there is none."""
    if not content.trials:
        return None
    names = [one.name for one in content.parameters]
    columns = [("trial", True), (heading(content.objective), True), ("how it ended", False), ("hours", True),
               ("machine-hours", True),
               *((name, all(is_number(one.setting.get(name)) for one in content.trials)) for name in names)]
    numeric = dict(columns)
    rows = [[_number(one.number), _value(one), Cell(_words(one), one.told), _number(one.seconds / 3600),
             _number(one.machine_hours), *(_setting(one.setting, name, numeric[name]) for name in names)]
            for one in in_order(content)[:MOST_ROWS]]
    notes = [f"The first {MOST_ROWS} of {len(content.trials)} trials; all are in trials.csv."] \
        if len(content.trials) > MOST_ROWS else []
    return Table("Every trial, the best first", columns, rows, notes)


def in_order(content: SearchContent) -> list[TrialRow]:
    """The best first; then those that were stopped, the best latest score first; failed ones; running ones."""
    def key(one: TrialRow) -> tuple[int, bool, float, int]:
        score = one.latest
        return _STATES.index(one.state), score is None, -content.sign * (score or 0.0), one.number

    return sorted(content.trials, key=key)


def csv_of(content: SearchContent) -> tuple[list[str], list[dict[str, Any]]]:
    """Columns and rows of trials.csv, by number; moments in ISO 8601, UTC."""
    names = [one.name for one in content.parameters]
    rows = [{"trial": one.number, "state": one.state, content.objective: one.value, "cause": one.cause,
             "told": one.told, "began": _moment(one.began), "ended": _moment(one.ended), "seconds": one.seconds,
             "ranks": one.ranks, **{name: one.setting.get(name) for name in names}} for one in content.trials]
    return ["trial", "state", content.objective, "cause", "told", "began", "ended", "seconds", "ranks", *names], rows


def _words(one: TrialRow) -> str:
    fault = {"setting": ", by its setting", "machine": ", by the machine", "cancelled": ", as it was cancelled"}.get(
        one.cause, "")
    return {"done": "done", "stopped": "stopped early", "failed": f"failed{fault}", "running": "under way"}[one.state]


def _value(one: TrialRow) -> Cell:
    if one.value is not None:
        return Cell(cell(one.value), sort=repr(one.value), numeric=True)
    return Cell(DASHED, f"latest {cell(one.latest)}" if one.latest is not None else "", numeric=True)


def _number(value: float) -> Cell:
    text = str(value) if not isinstance(value, float) else f"{value:.1f}" if value >= 10 else f"{value:.2g}"
    return Cell(text, sort=repr(value), numeric=True)


def _setting(setting: Any, name: str, numeric: bool = False) -> Cell:
    if name not in setting:
        return Cell(DASHED, numeric=numeric)
    return Cell(short(setting[name]), sort=repr(setting[name]) if numeric else "", numeric=numeric)


def _some(numbers: list[int], most: int = 12) -> str:
    text = ", ".join(map(str, numbers[:most]))
    return text if len(numbers) <= most else f"{text} and {plural(len(numbers) - most, 'other')}"


def _moment(seconds: float | None) -> str:
    return "" if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")

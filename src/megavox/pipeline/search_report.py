"""What a search has come to: its trials as rows, its best setting as a study file, and its report."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from optuna.trial import FrozenTrial, TrialState

from megavox.core.errors import WorkspaceError
from megavox.core.files import read_json
from megavox.core.provenance import provenance
from megavox.jobs.job import JobFolder
from megavox.pipeline.project import study_hash
from megavox.pipeline.tune import Search
from megavox.report.search_content import ParameterRow, SearchContent, TrialRow
from megavox.report.search_page import write_search_report
from megavox.search.described import with_setting
from megavox.search.driver import WITHDRAWN, attempt_of
from megavox.search.importance import importance
from megavox.search.ledger import TOLD
from megavox.search.sampler import CAUSE, WHOLE
from megavox.search.space import Number
from megavox.study import show_study

STATES = {TrialState.COMPLETE: "done", TrialState.PRUNED: "stopped", TrialState.FAIL: "failed",
          TrialState.RUNNING: "running"}


def rows_of(search: Search) -> list[TrialRow]:
    """The trials of a search, without those that were cut off before they had a setting."""
    return [_row(search, trial) for trial in search.ledger.trials()
            if trial.state in STATES and search.ledger.setting(trial) is not None]


def _row(search: Search, trial: FrozenTrial) -> TrialRow:
    jobs = [search.trials.job(trial.number, attempt) for attempt in range(1, attempt_of(trial) + 1)]
    return TrialRow(
        trial.number, search.ledger.setting(trial) or {}, STATES[trial.state],  # type: ignore[arg-type]
        trial.value if trial.state is TrialState.COMPLETE else None, trial.user_attrs.get(CAUSE, ""),
        _told(trial), _moment(trial.datetime_start), _ended(jobs[-1]) or _moment(trial.datetime_complete),
        sum(map(_seconds, jobs)), search.trials.asked.ranks,
        [(step / WHOLE, score) for step, score in sorted(trial.intermediate_values.items())])


def _told(trial: FrozenTrial) -> str:
    if trial.state is TrialState.RUNNING and trial.user_attrs.get(WITHDRAWN) == attempt_of(trial):
        return "ended with the search; the same command sends it again"
    return str(trial.user_attrs.get(TOLD, ""))


def _ended(job: JobFolder) -> float | None:
    """When the job itself ended, which may be long before a search that had been left heard of it."""
    with suppress(WorkspaceError, OSError, KeyError):
        return float(read_json(job.verdict())["ended"])
    return None


def _moment(time: datetime | None) -> float | None:
    return None if time is None else time.timestamp()


def _seconds(job: JobFolder) -> float:
    """How long a job has worked, however often the site started it again; 0 where it has not ended."""
    try:
        begun, verdict = read_json(job.begun()), job.verdict()
        ended = float(read_json(verdict).get("ended", verdict.stat().st_mtime))
        latest = 0.0 if "told_to_end" in begun else max(0.0, ended - begun["began"])  # else it is counted already
        return float(begun.get("spent", 0.0) + latest)
    except (WorkspaceError, OSError):
        return 0.0


def report_search(search: Search) -> Path:
    """Write the report of a search, with a study of its best setting.

    Returns:
        The path of index.html.
    """
    return write_search_report(search.folder.report, content_of(search))


def content_of(search: Search) -> SearchContent:
    """Gather what the report shows."""
    rows, space = rows_of(search), search.ledger.space
    own = search.own
    tried = [row.value for row in rows if row.setting == own and row.value is not None]
    parameters = [ParameterRow(one.name, "number", one.log) if isinstance(one, Number)
                  else ParameterRow(one.name, "choice") for one in space.parameters]
    found = SearchContent(
        search.project.run_name, search.objective, search.section.goal, search.section.workers, search.section.method,
        rows, parameters, own or {}, tried[0] if tried else None, importance(search.ledger.study),
        provenance=provenance(study_hash(search.project.study), search.project.study.seed))
    return found if found.best is None else _with_best(found, search, found.best)


def _with_best(content: SearchContent, search: Search, best: TrialRow) -> SearchContent:
    run, place = search.trials.run(best.number).root.name, search.project.workspace.root.absolute()
    head = (f"# {search.project.run_name}: the best of {len(content.ended)} trials that have ended, number "
            f"{best.number}: {search.objective} {best.value:.6g} on the validation cases.\n"
            f"# That run is there: megavox evaluate {search.folder.best.absolute()} --workspace {place} "
            f"--run-name {run}\n"
            f"# To train it anew: megavox train, likewise, with another --run-name.\n")
    return replace(content, best_study=head + show_study(with_setting(search.project.study, best.setting)))

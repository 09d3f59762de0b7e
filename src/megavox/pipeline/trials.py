"""The trials of a search as jobs of a site: sent once each, looked at, ended."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from math import inf, isnan, nan
from pathlib import Path
from typing import Any

import yaml

from megavox.core.errors import SiteError, WorkspaceError
from megavox.core.files import make_folder, read_json, refresh
from megavox.core.progress import say
from megavox.core.workspace import RunFolder
from megavox.jobs.job import JobFolder, State, Status
from megavox.jobs.registry import open_site, read_site
from megavox.jobs.section import Asked
from megavox.jobs.site import Site
from megavox.pipeline.away import STUDY
from megavox.pipeline.project import Project, training_settings
from megavox.pipeline.trial import FAULT
from megavox.search.described import with_setting
from megavox.search.driver import End, Sight
from megavox.search.space import Setting
from megavox.study import AUTO, Study, load_study, show_study
from megavox.study.compare import differences

CASES = "cases.txt"  # of a job: what tells packed cases and their split from others
PATIENCE_S = 3600.0  # with a site that takes no jobs
BY_SETTING = (State.TIME_LIMIT, State.MEMORY)
Line = tuple[float, float, float]  # a validation: share of the training, objective, score by which weights are kept


class Trials:
    """Work of a search, as `search.driver.Work` has it.

    Args:
        project: whose study is searched; the run of a trial is named after the project's and the trial's number.
        site: where the jobs go.
        asked: what each asks for.
        objective: validation score that is searched for; a trial's value is that of the weights which it keeps.
        headline: the task's own score, by which weights are kept.

    Raises:
        StudyError: there is no such site, or what is asked for makes no sense.
    """

    def __init__(self, project: Project, site: str, asked: Asked, objective: str, headline: str) -> None:
        settings = read_site(site, project.study.sites)
        self._project, self._objective, self._headline = project, objective, headline
        self.asked = settings.asked("train", asked)
        self._about: dict[str, Any] = {"name": site, "settings": settings.model_dump(mode="json", exclude_unset=True)}
        self.every_s = open_site(self._about["settings"]).every_s
        self._refused: float | None = None  # since when the site takes no jobs
        self._to_cancel: set[JobFolder] = set()
        self._lines: dict[int, tuple[int, list[Line]]] = {}
        self.seen: dict[int, Sight] = {}

    def run(self, number: int) -> RunFolder:
        """The run of a trial."""
        return self._project.workspace.run(self._name(number))

    def job(self, number: int, attempt: int) -> JobFolder:
        """The job of a trial."""
        return JobFolder(self._project.workspace.jobs / f"{self._name(number)}.{attempt}")

    def _name(self, number: int) -> str:
        return f"{self._project.run_name}-{number:03d}"

    def send(self, number: int, attempt: int, setting: Setting) -> None:
        """See `driver.Work`."""
        make_folder(self._project.workspace.jobs, "Choose another --workspace")
        path, study = self.job(number, attempt).path, with_setting(self._project.study, setting)
        if path.exists():
            self._refuse_other(path, study)
        else:
            command = (sys.executable, "-m", "megavox.pipeline.trial", str(path / STUDY),
                       str(self._project.workspace.root.absolute()), self._name(number))
            JobFolder.create(path, self.asked.request(command, Path.cwd()), self._about,
                             {STUDY: show_study(study), CASES: self._project.split_hash()})
        self._submit(JobFolder(path))

    def _refuse_other(self, path: Path, study: Study) -> None:
        """Where a job is there already, but not the one that would be made."""
        changed = differences(training_settings(load_study(path / STUDY)), training_settings(study))
        if not changed and (path / CASES).read_text() != self._project.split_hash():
            changed = "the cases, or how they are split"
        if changed:
            raise WorkspaceError(f"this job is of another search: {changed}", where=path,
                                 fix="Take another --run-name, or remove the jobs and runs of that name")

    def _submit(self, job: JobFolder) -> None:
        """Hand a job over; where the site does not take it now, the next look tries again."""
        try:
            _site_of(job).submit(job)
            self._refused = None
        except SiteError as error:
            if not any(self._project.workspace.jobs.glob(f"{self._project.run_name}-[0-9]*.[0-9]*/native.json")):
                raise  # nothing was ever taken: rather a mistake than a pause
            if self._refused is None:
                self._refused = time.monotonic()
                say(f"note: {error} The search tries again for {PATIENCE_S / 60:.0f} minutes")
            if time.monotonic() - self._refused > PATIENCE_S:
                raise

    def look(self, trials: Sequence[tuple[int, int]]) -> Mapping[int, Sight]:
        """See `driver.Work`."""
        jobs = {number: self.job(number, attempt) for number, attempt in trials}
        for job in jobs.values():
            if not job.sent:
                self._submit(job)
        for job in list(self._to_cancel):
            self._cancel(job)
        found: dict[Path, list[Status]] = {}
        for settings in {json.dumps(job.site()["settings"]) for job in jobs.values()}:
            those = [job for job in jobs.values() if json.dumps(job.site()["settings"]) == settings]
            found |= open_site(json.loads(settings)).poll(those)
        self.seen = {number: self._sight(number, job, found[job.path][0]) for number, job in jobs.items()}
        return self.seen

    def cancel(self, number: int, attempt: int) -> None:
        """See `driver.Work`."""
        self._cancel(self.job(number, attempt))

    def _cancel(self, job: JobFolder) -> None:
        """Cancel now, or where the site does not answer, at the next look."""
        try:
            _site_of(job).cancel(job)
            self._to_cancel.discard(job)
        except SiteError as error:
            self._to_cancel.add(job)
            say(f"note: {error}")

    def _sight(self, number: int, job: JobFolder, status: Status) -> Sight:
        lines = self._validations(number, anew=status.state.ended)
        scores = [(share, score) for share, score, _ in lines]
        if not status.state.ended:
            return Sight(scores, told=str(status.state))
        told = " ".join(status.told.partition("; the end of ")[0].split())
        if status.state is State.DONE:
            kept = max(lines, key=lambda line: line[2], default=None)  # whose weights are
            return Sight(scores, End.DONE, kept[1] if kept else None, told)
        if (job.path / FAULT).exists():
            fault = read_json(job.path / FAULT)
            return Sight(scores, End.SETTING if fault["setting"] else End.MACHINE, None, fault["told"])
        if status.state is State.CANCELLED:
            return Sight(scores, End.CANCELLED, None, told)
        return Sight(scores, End.SETTING if status.state in BY_SETTING else End.MACHINE, None, told)

    def _validations(self, number: int, anew: bool) -> list[Line]:
        """Each validation so far; `anew`, whatever a network file system says of the file's size."""
        run = self.run(number)
        if anew:
            refresh(run.root)
        size = run.metrics.stat().st_size if run.metrics.exists() else 0
        if size and (anew or self._lines.get(number, (0, []))[0] != size):
            steps = yaml.safe_load(run.study.read_text())["training"]["steps"]
            assert steps != AUTO, "a run's own study has its steps"
            found = [self._line(line, steps) for line in map(_parsed, run.metrics.read_text().splitlines())
                     if "validation" in line]
            self._lines[number] = size, found
        return self._lines.get(number, (0, []))[1]

    def _line(self, line: dict[str, Any], steps: int) -> Line:
        scores = line["validation"]
        objective, headline = (nan if scores[name] is None else float(scores[name])
                               for name in (self._objective, self._headline))
        return line["step"] / steps, objective, -inf if isnan(headline) else headline


def _site_of(job: JobFolder) -> Site:
    """Where a job went, which may be another site than the one that is named now."""
    return open_site(job.site()["settings"])


def _parsed(line: str) -> dict[str, Any]:
    """A line of a run's metrics; {} for one that is still being written."""
    with suppress(ValueError):
        found = json.loads(line)
        if isinstance(found, dict):
            return found
    return {}

"""The trials of a search as jobs of a site: sent once each, looked at, ended."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from megavox.core.errors import SiteError, StudyError
from megavox.core.files import make_folder, read_json
from megavox.core.progress import say
from megavox.core.workspace import RunFolder
from megavox.jobs.job import JobFolder, State, Status
from megavox.jobs.registry import open_site, read_site
from megavox.jobs.section import Asked
from megavox.pipeline.away import STUDY
from megavox.pipeline.project import Project
from megavox.pipeline.trial import FAULT
from megavox.search.described import with_setting
from megavox.search.driver import End, Sight
from megavox.search.space import Setting
from megavox.study import AUTO, show_study

PATIENCE_S = 3600.0  # with a site that takes no jobs
BY_SETTING = (State.TIME_LIMIT, State.MEMORY)


class Trials:
    """Work of a search, as `search.driver.Work` has it.

    Args:
        project: whose study is searched; the run of a trial is named after the project's and the trial's number.
        site: where the jobs go.
        asked: what each asks for.
        objective: validation score.

    Raises:
        StudyError: there is no such site, or what is asked for makes no sense.
    """

    def __init__(self, project: Project, site: str, asked: Asked, objective: str) -> None:
        settings = read_site(site, project.study.sites)
        self._project, self._objective = project, objective
        self.asked = settings.asked("train", asked)
        self._about: dict[str, Any] = {"name": site, "settings": settings.model_dump(mode="json", exclude_unset=True)}
        self._site = open_site(self._about["settings"])
        self._refused: float | None = None  # since when the site takes no jobs
        self._scores: dict[int, tuple[int, list[tuple[float, float]]]] = {}
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
        path = self.job(number, attempt).path
        if not path.exists():
            command = (sys.executable, "-m", "megavox.pipeline.trial", str(path / STUDY),
                       str(self._project.workspace.root.absolute()), self._name(number))
            JobFolder.create(path, self.asked.request(command, Path.cwd()), self._about,
                             {STUDY: show_study(with_setting(self._project.study, setting))})
        self._submit(JobFolder(path))

    def _submit(self, job: JobFolder) -> None:
        """Hand a job over; where the site does not take it now, the next look tries again."""
        try:
            self._site.submit(job)
            self._refused = None
        except SiteError as error:
            if not any(self._project.workspace.jobs.glob(f"{self._project.run_name}-*/native.json")):
                raise  # nothing was ever taken: rather a mistake than a pause
            if self._refused is None:
                self._refused = time.monotonic()
                say(f"note: {error} The search tries again for {PATIENCE_S / 60:.0f} minutes")
            if time.monotonic() - self._refused > PATIENCE_S:
                raise

    def look(self, trials: Sequence[tuple[int, int]]) -> Mapping[int, Sight]:
        """See `driver.Work`.

        Raises:
            StudyError: there is no such validation score.
        """
        jobs = {number: self.job(number, attempt) for number, attempt in trials}
        for job in jobs.values():
            if not job.sent:
                self._submit(job)
        found = self._site.poll(list(jobs.values()))
        self.seen = {number: self._sight(number, job, found[job.path][0]) for number, job in jobs.items()}
        return self.seen

    def cancel(self, number: int, attempt: int) -> None:
        """See `driver.Work`."""
        self._site.cancel(self.job(number, attempt))

    def _sight(self, number: int, job: JobFolder, status: Status) -> Sight:
        scores = self._scores_of(number)
        if not status.state.ended:
            return Sight(scores, told=str(status.state))
        told = " ".join(status.told.partition("; the end of ")[0].split())
        if status.state is State.DONE:
            values = [score for _, score in scores]
            better = max if self._maximise else min
            return Sight(scores, End.DONE, better(values) if values else None, told)
        if (job.path / FAULT).exists():
            fault = read_json(job.path / FAULT)
            return Sight(scores, End.SETTING if fault["setting"] else End.MACHINE, None, fault["told"])
        if status.state is State.CANCELLED:
            return Sight(scores, End.CANCELLED, None, told)
        return Sight(scores, End.SETTING if status.state in BY_SETTING else End.MACHINE, None, told)

    @property
    def _maximise(self) -> bool:
        section = self._project.study.search
        return section is None or section.goal == "maximise"

    def _scores_of(self, number: int) -> list[tuple[float, float]]:
        """Share of the training and score of each validation so far."""
        run = self.run(number)
        size = run.metrics.stat().st_size if run.metrics.exists() else 0
        if size and self._scores.get(number, (0, []))[0] != size:
            steps = yaml.safe_load(run.study.read_text())["training"]["steps"]
            assert steps != AUTO, "a run's own study has its steps"
            found = [self._score(line, steps) for line in map(_parsed, run.metrics.read_text().splitlines())
                     if "validation" in line]
            self._scores[number] = size, found
        return self._scores.get(number, (0, []))[1]

    def _score(self, line: dict[str, Any], steps: int) -> tuple[float, float]:
        scores = line["validation"]
        if self._objective not in scores:
            raise StudyError(f"there is no validation score {self._objective!r}", where="search.objective",
                             expected="one of " + ", ".join(map(repr, scores)))
        value = scores[self._objective]
        return line["step"] / steps, float("nan") if value is None else float(value)


def _parsed(line: str) -> dict[str, Any]:
    """A line of a run's metrics; {} for one that is still being written."""
    with suppress(ValueError):
        found = json.loads(line)
        if isinstance(found, dict):
            return found
    return {}

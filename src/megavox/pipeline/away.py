"""Stages as jobs: to send one to a site, to follow it, and to know those of a workspace.

A job that is under way, or whose end nobody has been told yet, is found again by the same command; only then is a new
one made. So a command that was killed can be started again at any time: nothing runs twice, and nothing is lost.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import time
from codecs import getincrementaldecoder
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from megavox.core.claims import Claims
from megavox.core.errors import SiteError, WorkspaceError
from megavox.core.files import make_folder, plain, text_hash, write_json
from megavox.core.progress import say
from megavox.jobs.job import JobFolder, Request, State, Status
from megavox.jobs.registry import open_site, read_site
from megavox.jobs.section import Asked
from megavox.jobs.site import POLL_S, Site, summary
from megavox.pipeline.project import Project
from megavox.study import show_study
from megavox.study.compare import differences

STUDY = "study.yaml"  # in the job's folder, as it was when the job was sent
CHECK = {"time_limit": "5min", "grace": "1s"}  # what takes a minute takes longer where files are far away


@dataclass(frozen=True)
class Known:
    """A job of a workspace.

    Attributes:
        job: its folder.
        site: name of where it went.
        parts: where it is, one for each element.
    """

    job: JobFolder
    site: str
    parts: Sequence[Status]


def send(project: Project, stage: str, site: str, asked: Asked, arguments: Sequence[str] = (),
         early: Callable[[Request], None] = lambda request: None) -> JobFolder:
    """Hand a command over to a site as a job, or find the job that was sent before.

    Args:
        project: its study goes along as it is now.
        stage: name of the command.
        site: name of the site.
        asked: what this job asks for, over what the site's file says.
        arguments: of the command, besides study, workspace and run.
        early: refuses a new job, where what is wrong with it can be told before.

    Raises:
        StudyError: there is no such site, or what is asked for makes no sense.
        SiteError: the site refuses the job, or cannot be reached.
    """
    name = "-".join([stage, project.run_name, *([text_hash(json.dumps(arguments))[:6]] if arguments else [])])
    command = ["megavox", stage, STUDY, *_place(project), "--run-name", project.run_name, *arguments]
    return dispatch(project, name, site, stage, asked, command, early)


def _place(project: Project) -> list[str]:
    return ["--workspace", str(project.workspace.root.absolute())]


def dispatch(project: Project, name: str, site: str, stage: str, asked: Asked, command: Sequence[str],
             early: Callable[[Request], None] = lambda request: None) -> JobFolder:
    """Hand over a Python module with arguments, in which `STUDY` stands for the study's file; see `send`."""
    make_folder(project.workspace.jobs, "Choose another --workspace")
    with Claims(project.workspace.jobs / "locks") as claims, claims.waiting_for(name):
        attempts = _attempts(project, name)
        settings = read_site(site, project.study.sites)
        request = settings.asked(stage, asked).request([sys.executable, "-m", *command], Path.cwd())
        about = {"name": site, "settings": settings.model_dump(mode="json", exclude_unset=True)}
        study = show_study(project.study)
        if attempts and _same(JobFolder(attempts[-1]), request, site, study):
            job = JobFolder(attempts[-1])
            say(f"{job.name} was sent to {site} before; this follows it")
        else:
            early(request)
            path = project.workspace.jobs.absolute() / f"{name}.{1 + (_number(attempts[-1]) if attempts else 0)}"
            job = JobFolder.create(path, _in_folder(request, path), about, {STUDY: study})
        _submit(job)
    return job


def _in_folder(request: Request, path: Path) -> Request:
    """The request with the study's file in the job's folder."""
    return replace(request, command=tuple(str(path / STUDY) if word == STUDY else word for word in request.command))


def _same(job: JobFolder, request: Request, site: str, study: str) -> bool:
    """Whether a job that was sent before is the one that is asked for now, rather than a new one.

    Raises:
        SiteError: it is under way with other settings.
    """
    parts = _parts(job)
    ended = all(part.state.ended for part in parts)
    if job.told.exists() and ended:
        return False
    changed = differences(_described(job.request(), job.site()["name"], (job.path / STUDY).read_text()),
                          _described(_in_folder(request, job.path), site, study))
    if not changed:
        return True
    if not ended:
        raise SiteError(f"this job is under way with other settings: {changed}", where=job.name,
                        fix=f"`megavox jobs attach STUDY {job.name}` follows it, `megavox jobs cancel STUDY "
                        f"{job.name}` ends it; for one beside it take another --run-name")
    say(f"{job.name}, with other settings, has ended: {summary(parts)}; `megavox jobs log` shows what it printed")
    write_json(job.told, {"at": time.time()})
    return False


def _described(request: Request, site: str, study: str) -> dict[str, Any]:
    """All that makes a job another one, but where the command was given."""
    return plain({**yaml.safe_load(study), "site": site, "asked": {**asdict(request), "folder": ""}})


def _submit(job: JobFolder) -> None:
    """Hand a job over; nothing is left of one that was refused."""
    try:
        open_site(job.site()["settings"]).submit(job)
    except SiteError:
        if not job.sent:
            shutil.rmtree(job.path)
        raise


def _parts(job: JobFolder) -> list[Status]:
    """Where a job is, one status for each element."""
    return open_site(job.site()["settings"]).poll([job])[job.path]


def _attempts(project: Project, name: str) -> list[Path]:
    """Folders of the jobs of one name, in the order in which they were made: name.1, name.2, ..."""
    return sorted((path for path in _folders(project) if path.name.rpartition(".")[0] == name), key=_number)


def _number(path: Path) -> int:
    return int(path.name.rpartition(".")[2])


def _folders(project: Project) -> list[Path]:
    """Folders of all jobs; unfinished ones, and what somebody else has put there, are none."""
    found = sorted(path.parent for path in project.workspace.jobs.glob("*/request.json"))
    return [path for path in found if re.fullmatch(r"[^.].*\.\d+", path.name)]


def find(project: Project, name: str) -> JobFolder:
    """A job by its name.

    Raises:
        WorkspaceError: there is none of that name.
    """
    folders = {path.name: path for path in _folders(project)}
    if name not in folders:
        raise WorkspaceError(f"there is no job {name!r}", where=project.workspace.jobs,
                             expected="one of " + ", ".join(folders) if folders else "a job that was sent from here")
    return JobFolder(folders[name])


def jobs(project: Project) -> list[Known]:
    """All jobs of a workspace and where they are; a site is asked once for all of its own."""
    by_site: dict[str, list[JobFolder]] = {}
    for job in map(JobFolder, _folders(project)):
        by_site.setdefault(json.dumps(job.site(), sort_keys=True), []).append(job)
    found = []
    for about, those in by_site.items():
        parts = open_site(json.loads(about)["settings"]).poll(those)
        found += [Known(job, json.loads(about)["name"], parts[job.path]) for job in those]
    return sorted(found, key=lambda known: known.job.name)


def log_of(project: Project, name: str, element: int | None = None) -> str:
    """What a job has printed so far.

    Raises:
        WorkspaceError: there is no such job, or it has printed nothing.
    """
    job = find(project, name)
    elements = job.request().elements
    if element is not None and not 0 <= element < elements:
        raise WorkspaceError(f"it has no element {element}", where=job.name,
                             expected=f"0 to {elements - 1}" if elements else "no --element: it is no array")
    path = job.log(0 if element is None and elements else element)
    of_site = [] if elements else [one.read_text(errors="replace") for one in sorted(job.path.glob("site-*.txt"))]
    if not path.exists() and not any(of_site):
        raise WorkspaceError("it has printed nothing", where=job.name, fix="`megavox jobs list` says where it is; an "
                             "array has a log for each --element")
    return "".join([*of_site, path.read_text(errors="replace") if path.exists() else ""])


def cancel(job: JobFolder) -> bool:
    """Ask for a job to be ended; who asks need not be told that it did. False: it had ended before."""
    if all(part.state.ended for part in _parts(job)):
        return False
    open_site(job.site()["settings"]).cancel(job)
    write_json(job.told, {"at": time.time()})
    return True


def follow(job: JobFolder, tell: Callable[[str], None]) -> None:
    """Pass on what a job prints until it has ended; it goes on where this is interrupted.

    Args:
        job: to follow.
        tell: gets the text as it comes; of an array nothing, since each element knows of its own part.

    Raises:
        SiteError: it did not end well; with how it ended.
    """
    if not job.native.exists():  # whoever sent it was cut off midway
        _submit(job)
    site, log = open_site(job.site()["settings"]), _Log(job)
    try:
        parts = _until_ended(job, site, lambda: tell(log.more()))
    except KeyboardInterrupt:
        say(f"{job.name} goes on; `megavox jobs cancel` ends it")
        raise
    tell(log.more())
    for part, status in zip(job.request().parts, parts, strict=True):
        if job.judged(part) is None:  # the site's word; it may not know the job any more when it is asked again
            job.judge(status, part)
    write_json(job.told, {"at": time.time()})
    state = summary(parts)
    if state is not State.DONE:
        first = next(part for part in parts if part.state is state)
        number = "" if len(parts) == 1 else f" in {sum(part.state is state for part in parts)} of {len(parts)} elements"
        again = "give the same command again: what is done is kept"
        raise SiteError(f"{state}{number}: {first.told}".rstrip(".\n"), where=job.name,
                        fix=again.capitalize() if state is State.CANCELLED else f"Mend that, and {again}")


def _until_ended(job: JobFolder, site: Site, look: Callable[[], None]) -> Sequence[Status]:
    before = ""
    while True:
        parts = site.poll([job])[job.path]
        if not job.path.exists():
            raise SiteError("the job's folder was removed", where=job.path, fix="The job itself goes on, and only its "
                            "site can end it now")
        look()
        now = _in_words(parts)
        if now != before:
            say(f"{job.name}: {now}")
        before = now
        if all(part.state.ended for part in parts):
            return parts
        time.sleep(POLL_S)


def _in_words(parts: Sequence[Status]) -> str:
    if len(parts) == 1:
        only = parts[0]
        return str(only.state) + (f" ({only.told})" if not only.state.ended and only.told else "")
    counts: Mapping[State, int] = {state: sum(part.state is state for part in parts) for state in State}
    return ", ".join(f"{count} {state}" for state, count in counts.items() if count)


class _Log:
    """What a job has printed since it was last asked."""

    def __init__(self, job: JobFolder) -> None:
        self._path = None if job.request().elements else job.log()
        self._read, self._decode = 0, getincrementaldecoder("utf-8")("replace").decode

    def more(self) -> str:
        if self._path is None or not self._path.exists():
            return ""
        with self._path.open("rb") as stream:
            stream.seek(self._read)
            data = stream.read()
        self._read += len(data)
        return self._decode(data)


def check(project: Project, site: str, tell: Callable[[str], None]) -> None:
    """Send a job to a site that looks at the machine there, which takes a minute at the most, and follow it.

    Raises:
        SiteError: it did not end well.
    """
    alone = Asked.model_validate({"ranks": 1, "nodes": 1, "elements": 0, **CHECK})
    follow(dispatch(project, f"doctor-{site}", site, "doctor", alone, ["megavox", "doctor", *_place(project)]), tell)

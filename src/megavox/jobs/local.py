"""This machine as a site: every job has a supervisor of its own, and there is no daemon."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from megavox.core.errors import SiteError, WorkspaceError
from megavox.core.files import read_json
from megavox.core.provenance import cores
from megavox.jobs.job import JobFolder, State, Status
from megavox.jobs.site import ask_for_cancel, ended


class Local:
    """Jobs as processes of this machine.

    Args:
        place: folder with the locks that stand for cores and GPUs; jobs that share it share the machine.
        cpus: how many cores there are for jobs; None: all of this machine.
        gpus: how many GPUs.
    """

    def __init__(self, place: Path, cpus: int | None = None, gpus: int = 0) -> None:
        self._place, self._cpus, self._gpus = place, cpus or cores(), gpus
        place.mkdir(parents=True, exist_ok=True)

    def submit(self, job: JobFolder) -> None:
        """See `Site.submit`."""
        request = job.request()
        if request.nodes > 1 or request.gpus > self._gpus:
            raise SiteError(f"the job asks for {request.nodes} nodes with {request.gpus} GPUs", where=job.path,
                            expected=f"1 node with at most {self._gpus} GPUs, which is what this machine has",
                            fix="Ask for less, or choose another site")
        command = [sys.executable, "-m", "megavox.jobs.supervisor", str(job.path), str(self._place), str(self._cpus),
                   str(self._gpus)]
        with (job.path / "supervisor.txt").open("ab") as log:
            subprocess.run(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=True,
                           start_new_session=True)

    def poll(self, jobs: Sequence[JobFolder]) -> Mapping[Path, list[Status]]:
        """See `Site.poll`."""
        return {job.path: self._poll(job) for job in jobs}

    def _poll(self, job: JobFolder) -> list[Status]:
        alive = _alive(job)  # before verdicts are looked at: it leaves them, and then ends
        return [job.judged(part) or self._unjudged(job, part, alive) for part in job.request().parts]

    def _unjudged(self, job: JobFolder, part: int | None, alive: bool) -> Status:
        if not alive and (job.native.exists() or job.cancel.exists()):
            return ended(job, State.LOST, part)
        return Status(State.RUNNING if job.begun(part).exists() else State.WAITING)

    def cancel(self, job: JobFolder) -> None:
        """See `Site.cancel`."""
        ask_for_cancel(job)


def _alive(job: JobFolder) -> bool:
    """Whether the job's supervisor runs; another process with its number has another start."""
    try:
        found = read_json(job.native)
        process = psutil.Process(found["pid"])
        return bool(process.create_time() == found["started"]) and process.status() != psutil.STATUS_ZOMBIE
    except (WorkspaceError, psutil.NoSuchProcess):
        return False

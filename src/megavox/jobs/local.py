"""This machine as a site: every job has a supervisor of its own, and there is no daemon."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from megavox.core.claims import Claims
from megavox.core.errors import SiteError
from megavox.core.files import read_json
from megavox.core.provenance import cores
from megavox.jobs.job import JobFolder, State, Status
from megavox.jobs.section import SiteSection
from megavox.jobs.site import ask_for_cancel, ended
from megavox.jobs.supervisor import claim_of
from megavox.memory.machine import main_memory_gb, this_machine
from megavox.study.section import Positive


class LocalSection(SiteSection):
    """This machine, or the part of it that jobs may take."""

    kind: Literal["local"] = "local"
    cpus: Positive | None = Field(None, description="cores for jobs; default: all")
    gpus: Annotated[int, Field(ge=0)] | None = Field(None, description="GPUs for jobs; default: all")
    place: Path | None = Field(None, description="folder with the locks that stand for cores and GPUs; jobs that share "
                               "it share the machine; default: in the user's cache")


class Local:
    """Jobs as processes of this machine.

    Args:
        section: what jobs may take.
    """

    every_s = 0.2

    def __init__(self, section: LocalSection) -> None:
        self._cpus, self._gpus = section.cpus or cores(), section.gpus
        place = section.place or Path.home() / ".cache" / "megavox" / "slots" / socket.gethostname()
        place.mkdir(parents=True, exist_ok=True)
        self._slots = place / "slots"

    def submit(self, job: JobFolder) -> None:
        """See `Site.submit`."""
        with Claims(self._slots) as claims:
            if _elsewhere(job) or (job.native.exists() and claims.held(claim_of(job))):
                return
        request = job.request()
        gpus = [] if request.gpus == 0 else self._names_of_gpus()
        if request.nodes > 1 or (request.gpus or 0) > len(gpus):
            raise SiteError(f"the job asks for {request.nodes} nodes with {request.gpus or 0} GPUs", where=job.path,
                            expected=f"1 node with at most {len(gpus)} GPUs, which is what this machine has",
                            fix="Ask for less, or choose another site")
        if (request.cpus or 1) > self._cpus or (request.memory_gb or 0) > main_memory_gb():
            raise SiteError(f"the job asks for {request.cpus or 1} cores for a rank and {request.memory_gb or 0:g} GB",
                            where=job.path, expected=f"at most {self._cpus} cores and {main_memory_gb():.0f} GB, which "
                            "is what there is here", fix="Ask for less, or choose another site")
        command = [sys.executable, "-m", "megavox.jobs.supervisor", str(job.path), str(self._slots), str(self._cpus),
                   ",".join(gpus)]
        with (job.path / "supervisor.txt").open("ab") as log:
            subprocess.run(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=True,
                           start_new_session=True)

    def _names_of_gpus(self) -> list[str]:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        if visible is None:
            found = range(len(this_machine().gpus)) if shutil.which("nvidia-smi") else ()  # importing torch takes long
            visible = ",".join(map(str, found))
        names = [name for name in visible.split(",") if name]
        return names if self._gpus is None else names[:self._gpus]

    def poll(self, jobs: Sequence[JobFolder]) -> Mapping[Path, list[Status]]:
        """See `Site.poll`."""
        with Claims(self._slots) as claims:
            return {job.path: self._poll(job, claims) for job in jobs}

    def _poll(self, job: JobFolder, claims: Claims) -> list[Status]:
        host, parts = _elsewhere(job), job.request().parts
        if host:
            return [job.judged_anew(part) or Status(State.UNKNOWN, f"it runs on {host}") for part in parts]
        alive = claims.held(claim_of(job))  # before verdicts are looked at: a supervisor leaves them, and then ends
        return [job.judged(part) or self._unjudged(job, part, alive) for part in parts]

    def _unjudged(self, job: JobFolder, part: int | None, alive: bool) -> Status:
        if not alive and (job.native.exists() or job.cancel.exists()):
            return ended(job, State.LOST, part)
        return Status(State.RUNNING if job.begun(part).exists() else State.WAITING)

    def cancel(self, job: JobFolder) -> None:
        """See `Site.cancel`."""
        ask_for_cancel(job)


def _elsewhere(job: JobFolder) -> str:
    """Name of another machine that the job was handed over on; or ""."""
    host = str(read_json(job.native)["host"]) if job.native.exists() else socket.gethostname()
    return "" if host == socket.gethostname() else host

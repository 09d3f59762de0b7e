"""Where jobs go: the interface that every site has, and what is the same for all.

A new site is one new file with these three functions, and one line in `registry.KINDS`; `tests/contracts` runs
against it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from megavox.core.files import read_json, write_json
from megavox.jobs.job import JobFolder, State, Status
from megavox.jobs.told import how_it_ended

POLL_S = 2.0


class Site(Protocol):
    """A machine, or a cluster with a batch queue.

    Attributes:
        every_s: how often it may be asked for hours on end.
    """

    every_s: float

    def submit(self, job: JobFolder) -> None:
        """Hand a job over. Once is enough: a second call finds the job, even if the first was cut off midway.

        Raises:
            SiteError: the site refuses it, or cannot be reached.
        """

    def poll(self, jobs: Sequence[JobFolder]) -> Mapping[Path, list[Status]]:
        """Where jobs are, by folder; one status for each element, a single one for what is no array."""

    def cancel(self, job: JobFolder) -> None:
        """Ask for a job to be ended; it ends as cancelled unless it is done before."""


def ask_for_cancel(job: JobFolder) -> None:
    """Note in the job's folder that it is to be cancelled, so that its end is not taken for a failure."""
    write_json(job.cancel, {"asked": time.time()})


def summary(parts: Sequence[Status]) -> State:
    """One state for a whole array: what goes on, then what went wrong, then done."""
    for state in (State.UNKNOWN, State.RUNNING, State.WAITING):
        if any(part.state is state for part in parts):
            return state
    return next((part.state for part in parts if part.state is not State.DONE), State.DONE)


def wait(site: Site, jobs: Iterable[JobFolder], every_s: float = POLL_S) -> Iterator[tuple[JobFolder, list[Status]]]:
    """Jobs in the order in which they end, with the status of each of their elements."""
    left = list(jobs)
    while left:
        found = site.poll(left)
        for job in list(left):
            if all(part.state.ended for part in found[job.path]):
                left.remove(job)
                yield job, found[job.path]
        if left:
            time.sleep(every_s)


def ended(job: JobFolder, state: State, element: int | None = None, said: str = "") -> Status:
    """The status of a job that left no verdict itself, told for people; `said` is what the site wrote of it."""
    if state in (State.FAILED, State.LOST) and (job.cancel.exists() or _told_to_end(job, element)):
        state = State.CANCELLED
    return Status(state, how_it_ended(state, None, job, element, said))


def _told_to_end(job: JobFolder, element: int | None) -> bool:
    return job.begun(element).exists() and bool(read_json(job.begun(element)).get("told_to_end"))

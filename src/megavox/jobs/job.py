"""What a job is: a folder that says what was asked, where it went, and how it ended.

    request.json     what was asked; written once
    site.json        where it goes: the site's name and settings; written once
    intent.json      before it is handed to the site: a token by which the site's queue can be searched
    native.json      after: the site's own number for it
    cancel.json      somebody asked for it to be cancelled
    log.txt          what it printed; of every attempt
    begun.json       by the job itself: where and when this attempt began
    verdict.json     by the job itself, last: how it ended
    told.json        somebody was told of the end

An array has a log, a beginning and a verdict for each element: `log-3.txt`. Jobs are commands and files, so that
whatever happens to the process that submitted them, anybody can look into the folder and go on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from megavox.core.errors import WorkspaceError
from megavox.core.files import read_json, refresh, whole_folder, write_json, write_text

REQUEST, SITE = "request.json", "site.json"
ELEMENT = "MEGAVOX_ELEMENT"  # variable that tells an array's element its number


class State(StrEnum):
    """Where a job is, or how it ended."""

    WAITING = "waiting"
    RUNNING = "running"
    UNKNOWN = "unknown"  # the site cannot be asked now: no verdict
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIME_LIMIT = "time limit"
    MEMORY = "memory"
    PREEMPTED = "pre-empted"
    NODE_FAILED = "node failed"
    LOST = "lost"  # nothing knows it and it left no verdict

    @property
    def ended(self) -> bool:
        """Whether nothing more will come of it."""
        return self not in (State.WAITING, State.RUNNING, State.UNKNOWN)


@dataclass(frozen=True)
class Request:
    """What is asked of a site.

    Attributes:
        command: program and arguments.
        folder: where it runs.
        ranks: processes in all, evenly on the nodes; with more than one, `torchrun` starts the command for each.
        nodes: machines.
        cpus: cores of a rank; None: what the site gives.
        gpus: of a node; None: what the site gives.
        memory_gb: of a node, GB; None: what the site gives.
        time_limit_s: None: what the site gives.
        grace_s: how long before the time limit the job is told.
        elements: of an array, of which each has its number in the variable MEGAVOX_ELEMENT; 0: no array.
        partition, account: None: those of the site.
        environment: more variables.
    """

    command: tuple[str, ...]
    folder: str
    ranks: int = 1
    nodes: int = 1
    cpus: int | None = None
    gpus: int | None = None
    memory_gb: float | None = None
    time_limit_s: float | None = None
    grace_s: float = 120.0
    elements: int = 0
    partition: str | None = None
    account: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        assert self.command and self.ranks % self.nodes == 0, self

    @property
    def parts(self) -> Sequence[int | None]:
        """Numbers of the elements; a single None for what is no array."""
        return range(self.elements) if self.elements else [None]


@dataclass(frozen=True)
class Status:
    """Where a job, or an element of an array, is.

    Attributes:
        state: in one word.
        told: for people: one sentence, with the end of the log where it failed.
        exit: status of the command, where there is one; negative: minus the signal that ended it.
    """

    state: State
    told: str = ""
    exit: int | None = None


class JobFolder:
    """All files of a job; the only place that knows their names.

    Args:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()  # the job runs elsewhere

    @classmethod
    def create(cls, path: Path, request: Request, site: Mapping[str, Any] | None = None,
               files: Mapping[str, str] | None = None) -> JobFolder:
        """Make the folder with the request in it, whole or not at all.

        Args:
            path: the folder.
            request: what is asked.
            site: where it goes: name, and settings as `registry.open_site` takes them.
            files: further files that the command needs, by their names in the folder.

        Raises:
            WorkspaceError: there is one already.
        """
        if path.exists():
            raise WorkspaceError("there is a job of that name already", where=path, fix="Choose another name")
        with whole_folder(path, replace=False) as temporary:
            write_json(temporary / REQUEST, asdict(request))
            write_json(temporary / SITE, site or {})
            for name, text in (files or {}).items():
                write_text(temporary / name, text)
        return cls(path)

    def request(self) -> Request:
        """What was asked."""
        found = read_json(self.path / REQUEST)
        return Request(**{**found, "command": tuple(found["command"])})

    def site(self) -> dict[str, Any]:
        """Where it goes."""
        return dict(read_json(self.path / SITE))

    @property
    def sent(self) -> bool:
        """Whether it was handed over, or may have been."""
        return self.native.exists() or self.intent.exists()

    @property
    def name(self) -> str:
        """Of the job: that of its folder."""
        return self.path.name

    @property
    def intent(self) -> Path:
        """The token by which the site's queue can be searched, written before the job is handed over."""
        return self.path / "intent.json"

    @property
    def native(self) -> Path:
        """The site's number for it."""
        return self.path / "native.json"

    @property
    def lock(self) -> Path:
        """Locks, for what only one process may do at a time."""
        return self.path / "locks"

    @property
    def cancel(self) -> Path:
        """That somebody asked for it to be cancelled."""
        return self.path / "cancel.json"

    @property
    def told(self) -> Path:
        """That somebody was told how it ended."""
        return self.path / "told.json"

    def log(self, element: int | None = None) -> Path:
        """What it printed."""
        return self.path / f"log{_part(element)}.txt"

    def begun(self, element: int | None = None) -> Path:
        """Where and when the present attempt began."""
        return self.path / f"begun{_part(element)}.json"

    def verdict(self, element: int | None = None) -> Path:
        """How it ended."""
        return self.path / f"verdict{_part(element)}.json"

    def stop(self, element: int | None = None) -> Path:
        """That its ranks shall stop."""
        return self.path / f"stop{_part(element)}"

    def rank(self, rank: int, element: int | None = None) -> Path:
        """How a rank ended, in the present attempt."""
        return self.path / f"rank-{rank}{_part(element)}.json"

    def judged(self, element: int | None = None) -> Status | None:
        """The verdict that the job itself left; None: none yet."""
        try:
            found = read_json(self.verdict(element))
        except WorkspaceError:
            return None
        return Status(State(found["state"]), found["told"], found["exit"])

    def judged_anew(self, element: int | None = None) -> Status | None:
        """The verdict, also where another machine has just left it on a shared folder."""
        refresh(self.path)
        return self.judged(element)

    def judge(self, status: Status, element: int | None = None, **about: Any) -> None:
        """Leave a verdict."""
        write_json(self.verdict(element), {**asdict(status), **about})

    def log_end(self, element: int | None = None, lines: int = 5, most: int = 16384) -> str:
        """The last lines that it printed; what `torchrun` says of ranks that failed is left out."""
        try:
            with self.log(element).open("rb") as stream:
                stream.seek(max(0, stream.seek(0, 2) - most))
                text = stream.read().decode(errors="replace")
        except OSError:
            return ""
        said = re.split(r"^[WE]\d{4} .*torch/distributed/elastic/", text, maxsplit=1, flags=re.MULTILINE)[0]
        return "\n".join([line for line in said.splitlines() if line.strip()][-lines:])


def _part(element: int | None) -> str:
    return "" if element is None else f"-{element}"

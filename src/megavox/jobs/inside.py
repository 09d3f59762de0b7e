"""Runs in the job: starts the command, passes on that it shall stop, and leaves the verdict.

    python -m megavox.jobs.inside FOLDER [ELEMENT]

A command that is told to stop (SIGUSR1, SIGTERM) and leaves with status 75 wants to be started again: then there
is no verdict, and the site starts the job once more, by the command in MEGAVOX_AGAIN or by itself; or it does not,
since somebody cancelled the job there, which the site knows and says. With several
ranks each of them runs under `megavox.jobs.rank`, and all are told by a file, which reaches every node.
"""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Container, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

from megavox.core.files import read_json, write_json
from megavox.core.processes import die_with_parent, nice_session
from megavox.core.provenance import cores
from megavox.core.signals import TO_BE_CONTINUED
from megavox.jobs.job import ELEMENT, JobFolder, Request, State, Status
from megavox.jobs.told import first_to_fail, how_it_ended
from megavox.memory.available import ended_for_memory

AGAIN = "MEGAVOX_AGAIN"  # command by which the site starts this job again
LAUNCH = "MEGAVOX_LAUNCH"  # command that runs another one on every node
HEAD = "MEGAVOX_HEAD"  # name of the first node
NOT_FOUND = 127  # status of shells for a command that cannot be started


def main(folder: JobFolder, element: int | None) -> int:
    """Run a job, or an element of an array; returns the status to leave with."""
    before = folder.judged(element)
    if before is not None:  # the site starts it again, after a fault of a node, say, though it had ended
        return 0 if before.state is State.DONE else 1
    request, began = folder.request(), time.time()
    if folder.cancel.exists():
        folder.judge(Status(State.CANCELLED, how_it_ended(State.CANCELLED, None, folder, element)), element)
        return 1
    for path in (folder.stop(element), *(folder.rank(n, element) for n in range(request.ranks))):
        path.unlink(missing_ok=True)  # of an earlier attempt
    attempt = _attempts(folder, element) + 1
    about: dict[str, Any] = {"attempt": attempt, "began": began, "host": socket.gethostname(),
                             "spent": _spent(folder, element)}
    write_json(folder.begun(element), about)
    killed, signals = ended_for_memory(), _Signals(folder, element, single=request.ranks == 1)
    try:
        child = _started(folder, request, element)
    except OSError as error:
        told = f"the command cannot be started: {error.strerror}: {error.filename}"
        folder.judge(Status(State.FAILED, told, NOT_FOUND), element, **about)
        return NOT_FOUND
    signals.to(child)
    status = child.wait()
    with suppress(ProcessLookupError):  # what the command left behind in its session
        os.killpg(child.pid, signal.SIGKILL)
    heard = signals.heard
    if request.ranks > 1:
        status = _of_ranks(folder, element, request.ranks, status)
        if heard == {signal.SIGTERM} and status == -signal.SIGUSR1:  # ranks are told by that
            status = -signal.SIGTERM
    told_to_end = heard == {signal.SIGTERM}  # SIGUSR1 tells of a time limit that is near
    if status == TO_BE_CONTINUED or (told_to_end and status == -signal.SIGTERM):
        spent = about["spent"] + time.time() - began
        write_json(folder.begun(element), {**about, "told_to_end": told_to_end, "spent": spent})
        if not folder.cancel.exists() and _again(heard):
            return TO_BE_CONTINUED
    state = _state(status, heard, folder.cancel.exists(), ended_for_memory() > killed)
    told = how_it_ended(state, status, folder, element)
    folder.judge(Status(state, told, status), element, **about, ended=time.time())
    return status if status >= 0 else 128 - status


def _started(folder: JobFolder, request: Request, element: int | None) -> subprocess.Popen[bytes]:
    """The command, started in a session of its own, so that signals for it come from here alone."""
    with folder.log(element).open("ab") as log:
        return subprocess.Popen(
            _command(folder, request, element), cwd=request.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            env={**{name: value for name, value in os.environ.items() if name not in (AGAIN, LAUNCH, HEAD)},
                 "OMP_NUM_THREADS": str(request.cpus or max(1, cores() * request.nodes // request.ranks)),
                 **request.environment,
                 **({} if element is None else {ELEMENT: str(element)})},
            start_new_session=True, preexec_fn=_begin)


def _begin() -> None:
    die_with_parent()
    nice_session()


def _state(status: int, heard: Container[int], cancelled: bool, for_memory: bool) -> State:
    """How the command ended, from its status and from what came before."""
    if status == 0:
        return State.DONE
    if cancelled:
        return State.CANCELLED
    if signal.SIGUSR1 in heard and status in (-signal.SIGUSR1, -signal.SIGTERM, -signal.SIGKILL):
        return State.TIME_LIMIT
    if signal.SIGTERM in heard and status in (-signal.SIGTERM, TO_BE_CONTINUED):
        return State.CANCELLED
    return State.MEMORY if status == -signal.SIGKILL and for_memory else State.FAILED


def _spent(folder: JobFolder, element: int | None) -> float:
    """Seconds that earlier attempts took, as far as they could say so."""
    return float(read_json(folder.begun(element)).get("spent", 0.0)) if folder.begun(element).exists() else 0.0


def _attempts(folder: JobFolder, element: int | None) -> int:
    return int(read_json(folder.begun(element))["attempt"]) if folder.begun(element).exists() else 0


def _command(folder: JobFolder, request: Request, element: int | None) -> Sequence[str]:
    """What to start: the command itself, or `torchrun` with it for every rank."""
    if request.ranks == 1:
        return request.command
    start = [sys.executable, "-m", "torch.distributed.run", f"--nnodes={request.nodes}",
             f"--nproc-per-node={request.ranks // request.nodes}"]
    if request.nodes == 1:
        start.append("--standalone")
    else:
        number = int(os.environ.get("SLURM_JOB_ID", "0"))
        start = [*shlex.split(os.environ[LAUNCH]), *start, "--rdzv-backend=c10d", f"--rdzv-id={number}",
                 f"--rdzv-endpoint={os.environ[HEAD]}:{20000 + number % 20000}"]
    start += ["--module", "megavox.jobs.rank", str(folder.path)]  # not the command: torchrun would change its `$`
    return start if element is None else [*start, str(element)]


class _Signals:
    """Passes on signals, as they are to a single process, by a file to ranks; also those that came before it began."""

    def __init__(self, folder: JobFolder, element: int | None, single: bool) -> None:
        self.heard: set[int] = set()
        self._stop, self._single = folder.stop(element), single
        self._child: subprocess.Popen[bytes] | None = None
        for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._hear)

    def to(self, child: subprocess.Popen[bytes]) -> None:
        """From now on there is somebody to pass them on to."""
        self._child = child
        for number in list(self.heard):
            self._pass_on(number)

    def _hear(self, number: int, _frame: FrameType | None) -> None:
        self.heard.add(number)
        self._pass_on(number)

    def _pass_on(self, number: int) -> None:
        if self._child is None:
            return
        if self._single:
            with suppress(ProcessLookupError):
                self._child.send_signal(number)
        else:
            self._stop.touch()


def _of_ranks(folder: JobFolder, element: int | None, ranks: int, status: int) -> int:
    """One status for all ranks: that of the rank that failed first, else 75 where they want to go on."""
    first = first_to_fail(folder, element)
    if first is not None:
        return status if first["exit"] is None else int(first["exit"])
    paths = [folder.rank(number, element) for number in range(ranks)]
    exits = [read_json(path)["exit"] for path in paths if path.exists()]
    return TO_BE_CONTINUED if len(exits) == ranks and TO_BE_CONTINUED in exits else status


def _again(heard: Container[int]) -> bool:
    """Whether the site decides on what becomes of the job; without a command for it, where it was not told to end."""
    command = os.environ.get(AGAIN)
    if command is None:
        return signal.SIGTERM not in heard
    try:
        done = subprocess.run(shlex.split(command), check=False, timeout=60, capture_output=True, text=True)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode in (0, TO_BE_CONTINUED) or "pending execution" in done.stderr  # Slurm itself was faster


if __name__ == "__main__":
    sys.exit(main(JobFolder(Path(sys.argv[1])), int(sys.argv[2]) if len(sys.argv) > 2 else None))

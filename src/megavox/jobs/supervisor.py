"""Watches over one job on this machine: waits for free cores and GPUs, runs the job, and ends it in time.

    python -m megavox.jobs.supervisor FOLDER SLOTS CORES [GPU,GPU,...]

Cores and GPUs are locks on bytes of one file, `SLOTS`, that all supervisors of this machine open; a job takes all
that it needs or none, so two large ones cannot wait for each other, and the kernel gives them back however the
supervisor ends. It needs no other process: a job goes on when whoever submitted it has gone.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil

from megavox.core.claims import Claims
from megavox.core.files import write_json
from megavox.core.processes import die_with_parent
from megavox.core.signals import TO_BE_CONTINUED
from megavox.jobs.job import JobFolder, State, Status
from megavox.jobs.told import how_it_ended
from megavox.memory.machine import GIVEN_MB

LOOK_EVERY_S = 0.1
WEIGH_EVERY_S = 0.5
NICE = 5  # jobs give way to people and to what drives a search, however many there are
KILL_AFTER_S = 30.0  # a command that was told to end is killed after that time


@dataclass
class _Running:
    """An element at work."""

    process: subprocess.Popen[bytes]
    slots: list[str]
    began: float
    told: bool = False  # that its time limit is near
    cancelled: float | None = None  # when it was told to end
    weighed: float = 0.0  # when its memory was measured


class Supervisor:
    """Runs the elements of a job as cores and GPUs become free.

    Args:
        folder: of the job.
        claims: the locks of this machine.
        cores: how many there are for jobs.
        gpus: names of those for jobs, as in CUDA_VISIBLE_DEVICES.
    """

    def __init__(self, folder: JobFolder, claims: Claims, cores: int, gpus: Sequence[str]) -> None:
        self._folder, self._claims, self._request = folder, claims, folder.request()
        self._slots = {"core": [str(number) for number in range(cores)], "gpu": list(gpus)}
        request = self._request
        share = max(1, cores // (request.ranks * max(1, request.elements)))
        self._need = {"core": min(cores, request.ranks * (request.cpus or share)),
                      "gpu": min(request.ranks, len(gpus)) if request.gpus is None else request.gpus}
        self._waiting = deque(part for part in request.parts if folder.judged(part) is None)
        self._running: dict[int | None, _Running] = {}

    def run(self) -> None:
        """Until every element has its verdict."""
        while self._waiting or self._running:
            if self._folder.cancel.exists():
                self._cancel()
            else:
                self._start()
            for part, one in list(self._running.items()):
                self._look(part, one)
            time.sleep(LOOK_EVERY_S)

    def _start(self) -> None:
        while self._waiting and (slots := self._take()) is not None:
            part = self._waiting.popleft()
            gpus = ",".join(slot.split()[1] for slot in slots if slot.startswith("gpu"))
            mine = sorted(os.sched_getaffinity(0))
            cores = {mine[int(slot.split()[1]) % len(mine)] for slot in slots if slot.startswith("core")}
            most_gb = self._request.memory_gb
            given = {} if most_gb is None else {GIVEN_MB: str(max(1, int(1e9 * most_gb) >> 20))}
            command = [sys.executable, "-m", "megavox.jobs.inside", str(self._folder.path)]
            process = subprocess.Popen(
                command if part is None else [*command, str(part)], start_new_session=True,
                preexec_fn=partial(_begin, cores), env={**os.environ, "CUDA_VISIBLE_DEVICES": gpus, **given})
            self._running[part] = _Running(process, slots, time.monotonic())

    def _take(self) -> list[str] | None:
        """All cores and GPUs that an element needs, or None."""
        taken: list[str] = []
        mine = {slot for one in self._running.values() for slot in one.slots}  # a claim of our own can be taken twice
        for kind, need in self._need.items():
            for slot in (f"{kind} {name}" for name in self._slots[kind]):
                if need and slot not in mine and self._claims.take(slot):
                    taken.append(slot)
                    need -= 1
            if need:
                self._give_back(taken)
                return None
        return taken

    def _give_back(self, slots: list[str]) -> None:
        for slot in slots:
            self._claims.release(slot)

    def _look(self, part: int | None, one: _Running) -> None:
        """See whether an element has ended, or has to."""
        status = one.process.poll()
        if status is not None:
            self._ended(part, one, status)
            return
        limit, since = self._request.time_limit_s, time.monotonic() - one.began
        if limit is not None and since > limit:
            self._kill(one)
            if self._folder.judged(part) is None:
                self._judge(part, State.TIME_LIMIT)
        elif limit is not None and not one.told and since > max(limit - self._request.grace_s, limit / 2):
            one.told = True
            one.process.send_signal(signal.SIGUSR1)
        elif self._request.memory_gb is not None and time.monotonic() - one.weighed > WEIGH_EVERY_S:
            self._weigh(part, one, self._request.memory_gb)

    def _weigh(self, part: int | None, one: _Running, most_gb: float) -> None:
        """End an element that takes more memory than was asked for, as batch systems do."""
        one.weighed, taken = time.monotonic(), 0
        for process in [one.process, *_below(one.process.pid)]:
            with suppress(psutil.NoSuchProcess):
                memory = psutil.Process(process.pid).memory_info()
                taken += memory.rss - memory.shared
        if taken > most_gb * 1e9:
            self._kill(one)
            if self._folder.judged(part) is None:
                self._judge(part, State.MEMORY, said=f"{taken / 1e9:.2f} GB were taken and {most_gb:g} GB asked for")

    def _ended(self, part: int | None, one: _Running, status: int) -> None:
        del self._running[part]
        self._give_back(one.slots)
        if status == TO_BE_CONTINUED and self._folder.judged(part) is None and not self._folder.cancel.exists():
            self._waiting.append(part)
        elif self._folder.judged(part) is None:
            self._judge(part, State.CANCELLED if self._folder.cancel.exists() else State.FAILED, status)

    def _cancel(self) -> None:
        while self._waiting:
            self._judge(self._waiting.popleft(), State.CANCELLED)
        for one in self._running.values():
            if one.cancelled is None:
                one.cancelled = time.monotonic()
                one.process.send_signal(signal.SIGTERM)
            elif time.monotonic() - one.cancelled > KILL_AFTER_S:
                self._kill(one)

    def _kill(self, one: _Running) -> None:
        """End it and all that it started."""
        below = _below(one.process.pid)
        one.process.kill()
        one.process.wait()
        for process in below:
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def _judge(self, part: int | None, state: State, status: int | None = None, said: str = "") -> None:
        self._folder.judge(Status(state, how_it_ended(state, status, self._folder, part, said), status), part)


def _below(pid: int) -> list[psutil.Process]:
    """All that a process started; none where it has just ended."""
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).children(recursive=True)
    return []


def _begin(cores: set[int]) -> None:
    """First thing in a job's process: it keeps to its cores, gives way, and does not outlive the supervisor."""
    die_with_parent()
    os.nice(NICE)
    os.sched_setaffinity(0, cores)


def claim_of(folder: JobFolder) -> str:
    """What the supervisor of a job claims as long as it lives."""
    return f"job {folder.path}"


def main(folder: JobFolder, slots: Path, cores: int, gpus: Sequence[str]) -> None:
    """Watch over a job, unless another supervisor does already; in a process that is nobody's child.

    This one returns when the other has said in the job's folder who it is.
    """
    with Claims(slots) as claims:
        if not claims.take(claim_of(folder)):
            return
        begun, there = os.pipe()
        if os.fork():  # both hold the claims
            os.close(there)
            os.read(begun, 1)
            os._exit(0)
        os.close(begun)
        write_json(folder.native, {"pid": os.getpid(), "host": socket.gethostname()})
        os.close(there)
        Supervisor(folder, claims, cores, gpus).run()


if __name__ == "__main__":
    main(JobFolder(Path(sys.argv[1])), Path(sys.argv[2]), int(sys.argv[3]), list(filter(None, sys.argv[4].split(","))))

"""Worker processes that predict cases: handed out one by one, replaced when they die, as many as fit.

The parent loads no network. One worker predicts the first case; what memory it needed decides how many
there will be. A case in whose worker an error or a death came up is tried once more with nothing beside it
in its worker (for want of memory: with no other case in any worker), so that it is known to be the culprit
when it happens again; then it is set aside. Cases that were only waiting in a dead worker count no attempt.
"""

from __future__ import annotations

import signal
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import count
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from megavox.cohort.case import Case, Rejected
from megavox.core.errors import MachineError
from megavox.core.processes import worker_context
from megavox.core.progress import say
from megavox.core.provenance import cores
from megavox.inference.recipe import Network
from megavox.inference.records import Failure, Row
from megavox.inference.sizing import allowed, most_workers, planned, told
from megavox.memory.available import available_bytes, ended_for_memory

ATTEMPTS = 2  # of a case that breaks its worker
AHEAD = 2  # cases that a worker holds before they are computed: the present one and the next
LOOK_EVERY_S = 0.2  # how often the parent looks whether it was asked to stop
MOST_STILLBORN = 3  # workers in a row that die before they can work, while no other does a case

Ended = tuple[Case, Row | Failure]


@dataclass(eq=False)
class _Worker:
    """A process, and the cases that it holds.

    Attributes:
        held: handed out and not ended.
        begun: those of which it has begun to read the files.
        waiting: those that are not computed yet.
        alone: it holds one case and gets no other beside it.
        ready: it has loaded the network.
        spoilt: an error that nobody expected came up in it, after which a GPU may compute nothing more.
    """

    number: int
    process: ForkServerProcess
    connection: Connection
    held: dict[str, Case] = field(default_factory=dict)
    begun: set[str] = field(default_factory=set)
    waiting: set[str] = field(default_factory=set)
    alone: bool = False
    ready: bool = False
    spoilt: bool = False

    @property
    def takes_more(self) -> bool:
        """Whether it may get another case beside those that it holds."""
        return not self.alone and not self.spoilt and len(self.waiting) < AHEAD

    def give(self, case: Case, alone: bool) -> None:
        self.held[case.name], self.alone = case, alone
        self.waiting.add(case.name)
        with suppress(OSError):  # it has died, which is noticed by itself
            self.connection.send(case)

    def end(self, name: str) -> Case:
        self.begun.discard(name)
        self.waiting.discard(name)
        return self.held.pop(name)


class Runner:
    """Predicts cases in worker processes.

    Args:
        network: what to predict with.
        folder: where predictions go.
        next_case: gives another case; None when there is none.
        cases: of the whole cohort, done or not: threads do not depend on where a run was interrupted.
        workers: processes, or None for as many as fit.
    """

    def __init__(self, network: Network, folder: Path, next_case: Callable[[], Case | None], cases: int,
                 workers: int | None = None) -> None:
        self._network, self._folder, self._next_case = network, folder, next_case
        self._cores = cores()
        self._size = planned(self._cores, cases, workers)
        self._measured = workers is not None  # whether it is known what one worker needs
        self._asked, self._need, self._budget, self._gpus = workers, 0, 0, 0
        self._workers: list[_Worker] = []
        self._given_back: deque[Case] = deque()  # were held by a worker that died, and not begun
        self._suspects: deque[Case] = deque()  # to be tried again, alone in a worker
        self._lonely: deque[Case] = deque()  # to be tried again with no other case in any worker
        self._tries: Counter[str] = Counter()
        self._stillborn, self._ended_for_memory = 0, ended_for_memory()

    def run(self, check: Callable[[], None] = lambda: None) -> Iterator[Ended]:
        """Cases in the order in which they end, each with its row or why there is none.

        Args:
            check: called often; what it raises ends the workers at once. What they were writing stays unfinished.

        Raises:
            MegavoxError: the disk is full, the weights are damaged, workers cannot be started.
        """
        try:
            while True:
                check()
                self._deal()
                if not self._busy():
                    return
                yield from self._listen()
        finally:
            for worker in list(self._workers):
                worker.held.clear()
                self._end(worker)

    # -------------------------------------------------------------- handing out

    def _deal(self) -> None:
        """Give each worker a case, starting as many as are wanted, and then one more to read ahead."""
        while True:
            idle = [worker for worker in self._workers if not worker.held]
            if idle and (idle[0].spoilt or len(self._workers) > self._size.workers):
                self._end(idle[0])
                continue
            if not idle and (len(self._workers) >= self._size.workers or self._first_begins()):
                break
            if not self._measured and self._busy():
                break
            found = self._take()
            if found is None:
                return
            (next((worker for worker in idle if worker in self._workers), None) or self._start()).give(*found)
        for worker in self._workers if self._measured else ():
            while worker.takes_more and (case := self._fresh()) is not None:
                worker.give(case, alone=False)

    def _take(self) -> tuple[Case, bool] | None:
        """A case for a worker that holds none, and whether it must stay alone there."""
        if self._suspects:
            return self._suspects.popleft(), True
        case = self._fresh()
        if case is not None:
            return case, False
        if not self._lonely or self._busy():
            return None
        for worker in list(self._workers):  # idle ones hold memory too
            self._end(worker)
        return self._lonely.popleft(), True

    def _fresh(self) -> Case | None:
        return self._given_back.popleft() if self._given_back else self._next_case()

    def _first_begins(self) -> bool:
        """Whether the first worker is still starting; it may convert the network, which the others then share."""
        return bool(self._workers) and not any(worker.ready for worker in self._workers)

    def _busy(self) -> bool:
        return any(worker.held for worker in self._workers)

    def _start(self) -> _Worker:
        here, there = Pipe()
        taken = {worker.number for worker in self._workers}
        number = next(n for n in count() if n not in taken)
        process = worker_context(("megavox.inference.worker",)).Process(  # type: ignore[attr-defined]
            target=_begin, args=(there, self._network, self._folder, number, self._size.threads), daemon=True)
        process.start()
        there.close()
        self._workers.append(_Worker(number, process, here))
        return self._workers[-1]

    # -------------------------------------------------------------- listening

    def _listen(self) -> Iterator[Ended]:
        places: dict[Any, _Worker] = {
            place: worker for worker in self._workers for place in (worker.connection, worker.process.sentinel)}
        heard = {id(places[place]): places[place] for place in wait(list(places), timeout=LOOK_EVERY_S)}
        for worker in heard.values():
            alive = not wait([worker.process.sentinel], timeout=0)  # first: what it said is there when it is dead
            while worker in self._workers and worker.connection.poll():
                try:
                    message = worker.connection.recv()
                except (EOFError, OSError):
                    alive = False
                    break
                yield from self._heard(worker, *message)
            if not alive and worker in self._workers:
                yield from self._died(worker)

    def _heard(self, worker: _Worker, what: str, *about: Any) -> Iterator[Ended]:
        if what == "broken":
            raise about[0]
        if what == "ready":
            worker.ready, self._stillborn, self._gpus = True, 0, about[0]
            if about[1]:  # the others need not try to convert the network, and say again that it cannot be
                self._network = self._network.by_pytorch()
            if self._gpus and self._asked is None:
                self._size = planned(self._cores, min(self._size.workers, self._gpus))
        elif what == "begun":
            worker.begun.add(about[0])
        elif what == "computed":
            worker.waiting.discard(about[0])
        elif what == "done":
            case, self._stillborn = worker.end(about[0]), 0  # as long as cases are done, the rest goes on
            if about[2] is not None:
                self._weigh(*about[2])
            yield case, about[1]
        else:
            assert what == "failed", what
            worker.spoilt |= bool(about[1].trace)
            yield from self._tried(worker.end(about[0]), about[1], culprit=True)

    def _weigh(self, need: int, now: int) -> None:
        """Take in what memory a worker needed: at first it decides how many there are, later they may be fewer."""
        first, before, self._need = not self._need, self._size, max(self._need, need)
        if first:
            self._budget = available_bytes() + now
        if self._asked is None:
            self._size = allowed(before, self._cores, self._need, self._budget) if first else replace(
                before, workers=min(before.workers, most_workers(self._need, self._budget)))
        if first or self._size != before:
            say(told(self._size, self._need, self._cores) + (f", GPUs: {self._gpus}" if self._gpus else ""))
        if self._size.threads != before.threads:  # the first case has ended, and nobody holds another
            for worker in list(self._workers):
                self._end(worker)
        self._measured = True

    # -------------------------------------------------------------- faults

    def _tried(self, case: Case, failure: Failure, culprit: bool) -> Iterator[Ended]:
        """Try a case once more, or give it up.

        Args:
            culprit: no other case can have been the cause.
        """
        self._tries[case.name] += 1
        if failure.of_image or (culprit and self._tries[case.name] >= ATTEMPTS):
            yield case, failure
        else:
            (self._lonely if failure.for_memory else self._suspects).append(case)

    def _died(self, worker: _Worker) -> Iterator[Ended]:
        """Give the cases of a dead worker to others; those that it had begun may have been the cause."""
        self._end(worker)
        before, self._ended_for_memory = self._ended_for_memory, ended_for_memory()
        killed = worker.process.exitcode == -signal.SIGKILL
        for_memory = killed and self._ended_for_memory > before
        how = _how(worker.process.exitcode, for_memory)
        if not worker.ready:
            self._stillborn += 1
            if self._stillborn >= MOST_STILLBORN:
                raise MachineError(f"{MOST_STILLBORN} workers in a row ended before they could work, the last {how}",
                                   fix="Give the command more memory, or fewer --workers; `megavox doctor` looks at "
                                   "this machine")
        if (for_memory or not worker.ready) and self._asked is None:
            self._size = replace(self._size, workers=max(1, self._size.workers - 1))
        for name, case in worker.held.items():
            if name not in worker.begun:
                self._given_back.append(case)
                continue
            rejected = Rejected(case.name, case.subject, str(case.images[0][0]), "killed its worker",
                                f"{case.name}: the process that predicted this case ended {how}, {ATTEMPTS} times.")
            yield from self._tried(case, Failure(rejected, of_image=False, for_memory=for_memory),
                                   culprit=len(worker.begun) == 1)

    def _end(self, worker: _Worker) -> None:
        """End a worker, dead or idle."""
        self._workers.remove(worker)
        if worker.held:
            worker.process.join(timeout=1)  # of itself, so that how it ended is known
        worker.process.kill()
        worker.process.join()
        worker.connection.close()


def _begin(*arguments: Any) -> None:
    """First thing in a worker: only there the network's libraries are imported."""
    from megavox.inference.worker import work

    work(*arguments)


def _how(status: int | None, for_memory: bool) -> str:
    """How a process ended, for people."""
    if status is None or status >= 0:
        return f"with status {status}"
    name = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
    if for_memory:
        return f"by {name} (the system ended a process for want of memory at that time, most likely this one)"
    return f"by {name}" + (" (by somebody, or by the system for want of memory)" if name == "SIGKILL" else "")

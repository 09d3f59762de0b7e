"""Packing a whole cohort: in parallel, resumable, and no bad case stops it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import active_children
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from megavox.cohort.case import Case, Rejected
from megavox.core.errors import ImageError
from megavox.core.files import remove_unfinished, write_json
from megavox.core.processes import begin_in_pool, worker_context
from megavox.core.progress import track
from megavox.images.prepare import Preparation
from megavox.store.layout import Record
from megavox.store.pack import case_key, pack_case
from megavox.store.read import INDEX
from megavox.store.too_large import NO_MEMORY, short_of_memory, too_large

Outcome = Record | Rejected
Job = tuple[Any, ...]  # what `pack_case` takes; the case stands second
LOOK_EVERY_S = 0.2  # how often the one who waits for workers looks whether it was asked to stop


def build_store(store: Path, cases: Sequence[Case], preparation: Preparation, task: Any, *, seed: int,
                workers: int, one_mask_a_class: bool,
                check: Callable[[], None] = lambda: None) -> tuple[dict[str, Record], list[Rejected]]:
    """Pack all cases; those packed before are kept as they are, unless they are damaged.

    Args:
        store: the store's folder.
        cases: what to pack.
        preparation: how to bring images to one form.
        task: the study's task section.
        seed: of the keys and of the voxels kept for sampling.
        workers: processes.
        one_mask_a_class: the masks of a case are its classes in order.
        check: called often; what it raises ends the workers at once. Whole cases stay, parts are removed.

    Returns:
        Records by case name, and what was set aside.
    """
    store.mkdir(parents=True, exist_ok=True)
    remove_unfinished(store)
    jobs = [(store / case_key(case.name, seed), case, preparation, task, seed, one_mask_a_class)
            for case in cases]
    records: dict[str, Record] = {}
    rejected = []
    try:
        for case, outcome in track(_outcomes(jobs, workers, check), "packing", total=len(jobs)):
            if isinstance(outcome, Record):
                records[case.name] = outcome
            else:
                rejected.append(outcome)
    finally:
        remove_unfinished(store)
    return records, rejected


def packed_cases(store: Path) -> int:
    """How many cases lie in the store."""
    return sum(1 for path in store.glob("[!.]*") if path.is_dir())


def write_index(store: Path, records: Sequence[Record]) -> None:
    """Write the one file that opening the store reads."""
    write_json(store / INDEX, {"records": [record.to_dict() for record in records]})


def _outcomes(jobs: list[Job], workers: int, check: Callable[[], None]) -> Iterator[tuple[Case, Outcome]]:
    """The outcome of each job; a case for which memory was short among others is packed again alone."""
    by_name = {job[1].name: job for job in jobs}
    again = []
    for case, outcome in _run(jobs, workers, check):
        if workers > 1 and isinstance(outcome, Rejected) and outcome.reason == NO_MEMORY:
            again.append(by_name[case.name])
        else:
            yield case, outcome
    yield from _run(again, 1, check)


def _run(jobs: list[Job], workers: int, check: Callable[[], None]) -> Iterator[tuple[Case, Outcome]]:
    """Outcomes in the order in which they end; a case that kills its process is found and named.

    When a process dies, the cases that may have been in it (the pool hands them out in order) are run
    again one by one, each in a process of its own; then all go on in parallel.
    """
    todo = list(jobs)
    suspects = 0
    while todo:
        batch = todo[:1] if suspects else todo
        finished: set[int] = set()
        try:
            with _pool(max(1, min(workers, len(batch)))) as pool:
                for number, outcome in _as_they_end(pool, batch, check):
                    finished.add(number)
                    yield batch[number][1], outcome
        except BrokenProcessPool:
            if len(batch) == 1:
                finished.add(0)
                yield batch[0][1], _killed(batch[0][1])
            else:
                suspects = 2 * workers + 2
        suspects = max(0, suspects - len(finished)) if len(batch) == 1 else suspects
        todo = [job for n, job in enumerate(todo) if n not in finished]


@contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Processes that an error in the block ends at once: a large case would take them minutes more."""
    others = set(active_children())
    pool = ProcessPoolExecutor(workers, mp_context=worker_context(), initializer=begin_in_pool)
    try:
        yield pool
    except BaseException:
        for child in set(active_children()) - others:
            child.kill()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _as_they_end(pool: ProcessPoolExecutor, batch: list[Job],
                 check: Callable[[], None]) -> Iterator[tuple[int, Outcome]]:
    """Number and outcome of each job of the batch; between them `check` is called."""
    ended: SimpleQueue[Future[Outcome]] = SimpleQueue()
    numbers: dict[Future[Outcome], int] = {}
    for number, job in enumerate(batch):
        check()
        future = pool.submit(_one, job)
        numbers[future] = number
        future.add_done_callback(ended.put)
    while numbers:
        check()
        try:
            future = ended.get(timeout=LOOK_EVERY_S)
        except Empty:
            continue
        yield numbers.pop(future), future.result()


def _killed(case: Case) -> Rejected:
    return Rejected(case.name, case.subject, str(case.images[0][0]), "killed its reader",
                    "Reading this case ended the process, for want of memory or by a fault in a decoder.")


def _one(job: Job) -> Outcome:
    folder, case, *settings = job
    try:
        return pack_case(folder, case, *settings)
    except (ImageError, MemoryError, OSError, RuntimeError) as error:
        if short_of_memory(error):
            return too_large(case, settings[0])
        if not isinstance(error, ImageError):
            raise
        return Rejected.from_error(error, case.name, case.subject, "" if error.where else str(case.images[0][0]))

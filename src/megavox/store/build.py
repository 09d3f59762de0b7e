"""Packing a whole cohort: in parallel, resumable, and no bad case stops it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
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

Outcome = Record | Rejected


def build_store(store: Path, cases: Sequence[Case], preparation: Preparation, task: Any, *, seed: int,
                workers: int, one_mask_a_class: bool) -> tuple[dict[str, Record], list[Rejected]]:
    """Pack all cases; those packed before are kept as they are.

    Args:
        store: the store's folder.
        cases: what to pack.
        preparation: how to bring images to one form.
        task: the study's task section.
        seed: of the keys and of the voxels kept for sampling.
        workers: processes.
        one_mask_a_class: the masks of a case are its classes in order.

    Returns:
        Records by case name, and what was set aside.
    """
    store.mkdir(parents=True, exist_ok=True)
    remove_unfinished(store)
    jobs = [(store / case_key(case.name, seed), case, preparation, task, seed, one_mask_a_class)
            for case in cases]
    records: dict[str, Record] = {}
    rejected = []
    for case, outcome in track(_run(jobs, workers), "packing", total=len(jobs)):
        if isinstance(outcome, Record):
            records[case.name] = outcome
        else:
            rejected.append(outcome)
    return records, rejected


def write_index(store: Path, records: Sequence[Record]) -> None:
    """Write the one file that opening the store reads."""
    write_json(store / INDEX, {"records": [record.to_dict() for record in records]})


def _run(jobs: list[tuple[Any, ...]], workers: int) -> Iterator[tuple[Case, Outcome]]:
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
            pool = ProcessPoolExecutor(max(1, min(workers, len(batch))), mp_context=worker_context(),
                                       initializer=begin_in_pool)
            try:
                futures: dict[Future[Outcome], int] = {pool.submit(_one, job): n for n, job in enumerate(batch)}
                for future in as_completed(futures):
                    outcome = future.result()
                    finished.add(futures[future])
                    yield batch[futures[future]][1], outcome
            finally:
                pool.shutdown(cancel_futures=True)  # after Ctrl-C only the cases begun are finished
        except BrokenProcessPool:
            if len(batch) == 1:
                finished.add(0)
                yield batch[0][1], _killed(batch[0][1])
            else:
                suspects = 2 * workers + 2
        suspects = max(0, suspects - len(finished)) if len(batch) == 1 else suspects
        todo = [job for n, job in enumerate(todo) if n not in finished]


def _killed(case: Case) -> Rejected:
    return Rejected(case.name, case.subject, str(case.images[0][0]), "killed its reader",
                    "Reading this case ended the process, for want of memory or by a fault in a decoder.")


def _one(job: tuple[Any, ...]) -> Outcome:
    folder, case, *settings = job
    try:
        return pack_case(folder, case, *settings)
    except ImageError as error:
        return Rejected.from_error(error, case.name, case.subject, "" if error.where else str(case.images[0][0]))

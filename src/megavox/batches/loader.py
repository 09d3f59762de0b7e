"""Loader workers: processes that make micro-batches ahead of the training.

What a batch holds does not depend on the workers; they only make it earlier. A worker that dies ends
the job with the names of the cases that it was reading.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from megavox.batches.batch import Batch, RawBatch
from megavox.batches.samples import Samples
from megavox.core.errors import MegavoxError, TrainingError
from megavox.core.processes import begin_in_loader, worker_context

ENDLESS = 10**6  # steps, for whoever measures the loader and never reaches the end


class _MicroBatches(Dataset):
    """Micro-batch `(step, part)` of one rank; index = step * accumulate + part."""

    def __init__(self, samples: Samples, rank: int, ranks: int, accumulate: int, workers: int) -> None:
        self.samples, self.rank, self.ranks, self.accumulate = samples, rank, ranks, accumulate
        self.size = samples.batch // (ranks * accumulate)
        self.busy = torch.full((max(workers, 1),), -1, dtype=torch.int64).share_memory_()

    def positions(self, index: int) -> tuple[int, range]:
        step, part = divmod(index, self.accumulate)
        first = (part * self.ranks + self.rank) * self.size
        return step, range(first, first + self.size)

    def __getitem__(self, index: int) -> Batch | RawBatch | MegavoxError:
        worker = torch.utils.data.get_worker_info()
        self.busy[worker.id if worker else 0] = index
        step, positions = self.positions(index)
        try:
            if self.samples.section.augment_on == "device":
                return RawBatch.of([self.samples.raw(step, position) for position in positions], step)
            return Batch.of([self.samples.sample(step, position) for position in positions], step)
        except MegavoxError as error:  # returned, not raised: the loader would wrap it in its own words
            return error


def refuse_uneven(batch: int, ranks: int, accumulate: int) -> None:
    """Refuse a global batch that cannot be dealt evenly.

    Raises:
        TrainingError: it cannot.
    """
    if batch % (ranks * accumulate):
        raise TrainingError(f"a global batch of {batch} cannot be dealt to {ranks} ranks x {accumulate} micro-batches",
                            where="batches.size", expected="a multiple of their product")


def batches(samples: Samples, *, first_step: int, steps: int, rank: int = 0, ranks: int = 1, accumulate: int = 1,
            workers: int = 0, prefetch: int = 4, pin: bool = False) -> Iterator[Batch | RawBatch]:
    """Micro-batches of one rank for steps `first_step` to `steps - 1`, in order.

    Args:
        samples: makes samples; raw ones where its section asks for augmentation on the device.
        rank, ranks: this rank and their number; the global batch is dealt to them.
        accumulate: micro-batches a step.
        workers: loader processes; 0 makes batches in this process.
        prefetch: batches that a worker prepares ahead.
        pin: page-locked memory, for GPUs.

    Raises:
        TrainingError: a worker died, or the global batch cannot be dealt evenly.
    """
    refuse_uneven(samples.batch, ranks, accumulate)
    dataset = _MicroBatches(samples, rank, ranks, accumulate, workers)
    options: dict[str, Any] = {}
    if workers:
        options = {"multiprocessing_context": worker_context(), "prefetch_factor": prefetch,
                   "worker_init_fn": begin_in_loader}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="This DataLoader will create")  # a user's choice of workers
        made = iter(DataLoader(
            dataset, batch_size=None, sampler=range(first_step * accumulate, steps * accumulate), num_workers=workers,
            pin_memory=pin, generator=torch.Generator(), **options))  # else it would draw from torch's own generator
    died = ""
    try:
        for batch in made:
            if isinstance(batch, MegavoxError):
                raise batch
            yield batch
    except (RuntimeError, OSError, EOFError) as error:
        if not _is_of_a_dead_worker(error):
            raise
        died = (str(error).splitlines() or [type(error).__name__])[0]  # a broken pipe says nothing
    finally:
        del made  # ends the workers now; an error that is on its way would keep them
    if died:
        raise TrainingError(f"a loader worker died ({died}) while it read {_reading(dataset)}",
                            where="batches", fix="If memory ran out, lower batches.workers or batches.prefetch; the "
                            "run continues from its last checkpoint")


def _is_of_a_dead_worker(error: Exception) -> bool:
    """Whether torch says so, or the pipe to a worker broke; an error raised in a worker is neither."""
    if isinstance(error, RuntimeError):
        return any(words in str(error) for words in ("exited unexpectedly", "is killed by signal"))
    return isinstance(error, (ConnectionError, EOFError))


def _reading(dataset: _MicroBatches) -> str:
    names = []
    for index in sorted(int(i) for i in dataset.busy if i >= 0):
        step, positions = dataset.positions(index)
        names += [dataset.samples.case_name(step, position) for position in positions]
    return "one of the cases " + ", ".join(dict.fromkeys(names)) if names else "its first case"

"""What a training would take, computed in one way or another, and which way to take.

Every way gives the same training. Each is followed on fake tensors, whatever its size, so that the table is told by
the training itself and not by rules of thumb.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import torch

from megavox.core.errors import StudyError
from megavox.core.exhausted import enough_memory
from megavox.core.over_ranks import apart
from megavox.memory.caching import CachingAllocator
from megavox.memory.exercise import slabs_mb, training_exercise
from megavox.memory.follow import STEPS, follow, peak
from megavox.memory.live import Kind, Live
from megavox.memory.step_time import step_seconds, throughput_here
from megavox.memory.workspaces import MATMUL_BYTES, WORKSPACES
from megavox.models.registry import multiples
from megavox.study import AUTO, Study
from megavox.study.sections import SegmentTask
from megavox.tasks.registry import Task

TRIES = 5
LARGE_SLAB_MB = 2.0  # for a million voxels: about 1/64 of a map of 32 channels
COMPUTED = ("plain", "streamed", "recomputed")
PROCESS_GB = 0.5  # Python with its libraries and a loader, before anything is trained
CONTEXT_GB = 0.6  # what CUDA and its libraries take of a GPU before anything is computed
MAPPED_BYTES = 32 * 2**20  # a larger tensor has pages of its own (glibc's DEFAULT_MMAP_THRESHOLD_MAX)
HOLES = 1.25  # of the heap that others share: what is let go of between two that stay is not given back


@dataclass(frozen=True)
class Way:
    """How a training is computed.

    Attributes:
        compute, in_backward, offload: as in `training.memory`.
        accumulate: as `training.accumulate`.
        slab_mb: as `training.memory.slab_mb`, where it is streamed.
    """

    compute: str
    accumulate: int = 1
    slab_mb: float | None = None
    in_backward: bool = False
    offload: bool = False

    def of(self, study: Study) -> Study:
        """The study computed so."""
        memory = study.training.memory.model_copy(update={
            "compute": self.compute, "slab_mb": self.slab_mb or AUTO, "in_backward": self.in_backward,
            "offload": self.offload})
        training = study.training.model_copy(update={"memory": memory, "accumulate": self.accumulate})
        return study.model_copy(update={"training": training})

    def __str__(self) -> str:
        return ", ".join([
            self.compute + (f" in slabs of {self.slab_mb:g} MB" if self.slab_mb else ""),
            *([f"{self.accumulate} micro-batches"] if self.accumulate > 1 else []),
            *(["steps in the backward pass"] if self.in_backward else []),
            *(["activations in main memory"] if self.offload else [])])


@dataclass(frozen=True)
class Needs:
    """What a way takes, of one rank.

    Attributes:
        way: the way.
        peak_gb: of all tensors.
        taken_gb: of the device, or of main memory where it trains on the CPU: with what the allocator keeps, and with
            the process.
        kinds: of the peak, GB by kind.
        at: the operator at the peak, and its module.
        largest: of the tensors at the peak, in words.
        operations: of a step, convolutions and products of matrices.
        host_gb: of main memory beside a device, for activations.
        step_s: of a step, waiting for data left out; None where throughputs were not measured.
    """

    way: Way
    peak_gb: float
    taken_gb: float
    kinds: dict[str, float]
    at: str
    largest: tuple[str, ...]
    operations: int
    host_gb: float = 0.0
    step_s: float | None = None


def ways(study: Study, ranks: int) -> list[Way]:
    """Those that a study leaves open, the plain one first.

    Steps in the backward pass know no norm of all gradients. Of many micro-batches the fewest and the most are told of,
    where they are the same training (`_samples_apart`).
    """
    training, device = study.training, str(study.training.device)
    asked, begun = training.memory, training.accumulate
    every = ("streamed",) if training.ranks.split > 1 else COMPUTED if asked.compute == AUTO else (asked.compute,)
    computed = [(one, slab) for one in every
                for slab in (_slabs_mb(study) if one == "streamed" else (None,))]
    samples = int(study.batches.size) // (training.ranks.groups(ranks) * begun)
    more = [part for part in range(2, samples + 1) if samples % part == 0] if _samples_apart(study) else []
    parts = [1, *more[:1], *more[1:][-1:]]
    each = training.optimiser.clip is None and begun == 1
    within = [False, True] if asked.in_backward == AUTO and each else [asked.in_backward is True]
    away = [False, True] if asked.offload == AUTO and device == "cuda" else [asked.offload is True]
    return [Way(one, begun * part, slab, step, leave) for leave in away for part in parts for step in within
            for one, slab in computed if part == 1 or not step]


def _slabs_mb(study: Study) -> tuple[float, ...]:
    """Of large volumes one slice is larger than a cache, and slabs of some slices are fewer to go through."""
    sizes, device = slabs_mb(study.training.memory, str(study.training.device)), str(study.training.device)
    if device != "cpu" or study.training.memory.slab_mb != AUTO:
        return sizes
    voxels = math.prod(int(side) for side in study.batches.patch)
    return tuple(max(one, float(round(LARGE_SLAB_MB * voxels / 1e6))) for one in sizes)


def _samples_apart(study: Study) -> bool:
    """Whether the loss of a batch is the mean of those of its samples, which do not see each other: no norms over the
    batch, no Dice over it, and no voxels or classes that weigh more or less."""
    task = study.task
    return (isinstance(task, SegmentTask) and task.dice == "sample" and not task.ignore and not task.class_weights
            and getattr(study.model, "norm", None) in ("instance", "group"))


def needs(study: Study, task: Task, channels: int, ranks: int, way: Way) -> Needs:
    """Follow two steps.

    Args:
        study: with nothing left at `auto` but what a way says.
        task, channels: as of `training_exercise`.
        ranks: that share a batch.
        way: of these.

    Raises:
        StudyError: networks of this kind cannot be computed so.
        MachineError: there is not even enough memory for that.
    """
    exercise, device = training_exercise(way.of(study), task, channels, ranks), str(study.training.device)
    with apart(), enough_memory("following a training step", "Give the command more memory"):
        live = follow(exercise, WORKSPACES.get(device))
    most = peak(live)
    sent = 0  # gradients are sent from a copy: of all, or of two buckets
    if ranks > 1:
        buckets = 2 * study.training.ranks.bucket_mb * 2**20
        sent = int(min(most.kinds[Kind.WEIGHTS], buckets if way.in_backward else math.inf))
    taken = process_bytes(live) + most.host if device == "cpu" else device_bytes(live)
    return Needs(way, (most.size + sent) / 1e9, (taken + sent) / 1e9,
                 {str(kind): size / 1e9 for kind, size in most.kinds.items()}, _place(most.operator, most.module),
                 tuple(f"{one.size / 1e9:.2f} GB of {one.kind} {_place(one.operator, one.module)}".rstrip()
                       for one in most.largest),
                 live.operations // (STEPS * exercise.parts) * way.accumulate, most.host / 1e9,
                 _seconds(live, study, way.accumulate / exercise.parts))


def _seconds(live: Live, study: Study, times: float) -> float | None:
    """Of a step with so many times what was followed, if this machine was measured, and has the device."""
    device = str(study.training.device)
    if device != "cpu" and not torch.cuda.is_available():
        return None
    dtype = torch.bfloat16 if study.training.precision == "bfloat16" else torch.float32
    throughput = throughput_here(device, dtype)
    return None if throughput is None else times * step_seconds(live, throughput)


def _place(operator: str, module: str) -> str:
    return " in ".join(part for part in (operator.removeprefix("aten::"), module) if part)


def chosen(found: Sequence[Needs], limit_gb: float, host_gb: float = math.inf) -> Needs | None:
    """Of the ways that fit that which costs the fewest operations, the first of several, and one that copies nothing to
    main memory if there is one; None where none fits.

    Args:
        found: the ways.
        limit_gb: of a rank's device, or of main memory where it trains on the CPU.
        host_gb: of main memory, for copies.
    """
    return min((one for one in found if one.taken_gb <= limit_gb and one.host_gb <= host_gb),
               key=lambda one: (one.way.offload, one.operations), default=None)


def can_fit(study: Study, task: Task, channels: int, ranks: int, limit_gb: float) -> bool:
    """Whether a way fits; arguments as of `needs`. Followed is of each kind the one that takes the least, as far as
    that is known before."""
    leanest: dict[str, Way] = {}
    for way in sorted(ways(study, ranks), key=lambda one: (one.accumulate, one.in_backward, -(one.slab_mb or 0))):
        leanest[way.compute] = way
    for compute in reversed(COMPUTED):
        if compute in leanest:
            with suppress(StudyError):  # it cannot be computed so
                if needs(study, task, channels, ranks, leanest[compute]).taken_gb <= limit_gb:
                    return True
    return False


def largest_patch(study: Study, task: Task, channels: int, ranks: int, limit_gb: float) -> tuple[int, ...] | None:
    """The largest patch of about the same proportions that fits as it is computed plainly; None where none does.

    What is needed grows with the voxels, along a line: two points give a guess, and the guess is followed.
    """
    patch = np.array([int(side) for side in study.batches.patch])
    steps = np.array(multiples(study.model, patch.tolist()))
    way = Way("plain", study.training.accumulate)

    def scaled(share: float) -> tuple[int, ...]:
        return tuple(int(n) for n in np.maximum(1, (patch * share ** (1 / len(patch)) / steps).astype(int)) * steps)

    def taken(sides: tuple[int, ...]) -> float:
        batches = study.batches.model_copy(update={"patch": list(sides)})
        try:
            return needs(study.model_copy(update={"batches": batches}), task, channels, ranks, way).taken_gb
        except Exception:  # it is too small for the network, or for its norms
            return math.inf

    whole, small = scaled(1.0), scaled(0.5)
    high, low = taken(whole), taken(small)
    slope = (high - low) / max(math.prod(whole) - math.prod(small), 1)
    share = (math.prod(small) + (limit_gb - low) / slope) / math.prod(whole) if slope > 0 else 0.0
    for _ in range(TRIES):
        if share <= 0 or math.isnan(share):
            return None
        if taken(sides := scaled(min(share, 1.0))) <= limit_gb:
            return sides
        share *= 0.9
    return None


def device_bytes(live: Live) -> float:
    """Of a GPU: what PyTorch's allocator reserves, and the context."""
    return CachingAllocator().run(live.events).most_reserved + MATMUL_BYTES + CONTEXT_GB * 1e9


def process_bytes(live: Live) -> float:
    """Of main memory, by a process that trains."""
    now = most = 0.0
    for _, size in live.events:
        now += size if abs(size) > MAPPED_BYTES else HOLES * size
        most = max(most, now)
    return PROCESS_GB * 1e9 + most

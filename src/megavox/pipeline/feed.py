"""feed: how many training samples a second the data path makes here, without a network."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from megavox.batches.loader import ENDLESS, batches
from megavox.core.progress import track
from megavox.core.provenance import cores
from megavox.pipeline.plan import derived_plan
from megavox.pipeline.project import Project
from megavox.pipeline.workshop import Workshop
from megavox.training.parallel import choose_device


@dataclass(frozen=True)
class Feed:
    """What one number of loader workers gives.

    Attributes:
        workers: processes; 0 is the training's own.
        samples_per_s: by the clock.
    """

    workers: int
    samples_per_s: float


def feed(project: Project, seconds: float = 3.0) -> list[Feed]:
    """Time the loader of a packed study with 0, 1, 2, 4, ... workers, up to the machine's cores.

    Args:
        project: packed.
        seconds: measured for each number of workers, after their start.

    Raises:
        WorkspaceError: not packed.
    """
    workshop = Workshop(project, derived_plan(project).study)
    numbers = [0, *(2**k for k in range(cores().bit_length()) if 2**k <= cores())]
    return [Feed(workers, _rate(workshop, workers, seconds)) for workers in track(numbers, "timing", len(numbers))]


def _rate(workshop: Workshop, workers: int, seconds: float) -> float:
    """Samples a second; counted from the second batch of each worker on, when all have started."""
    samples, wish = workshop.samples(), str(workshop.study.training.device)
    device = choose_device(wish if samples.section.augment_on == "device" else "cpu")
    made = batches(samples, first_step=0, steps=ENDLESS, workers=workers, prefetch=2)
    for _ in range(3 * workers + 1):  # what was prepared while they started
        next(made).on(device)
    begin, count = time.perf_counter(), 0
    while time.perf_counter() - begin < seconds:
        count += len(next(made).on(device).cases)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return count / (time.perf_counter() - begin)

"""A probe: a few real training steps, measured. The network is thrown away afterwards."""

from __future__ import annotations

import resource
import time
from dataclasses import dataclass

import torch

from megavox.training.loop import Training, stepper_on_a_copy
from megavox.training.parallel import Ranks

WARM_UP = 3  # steps not counted: the first ones allocate, tune and wait for workers
MOST_STEPS = 1000
LEAST_STEPS = 10  # of a training with a budget


@dataclass(frozen=True)
class Probe:
    """What was measured.

    Attributes:
        step_s: median-like time of a step, waiting for data included.
        waiting: share of it spent waiting for data.
        steps: steps measured.
        memory_gb: peak of this process in main memory, and of the device where it is a GPU.
    """

    step_s: float
    waiting: float
    steps: int
    memory_gb: float
    device_memory_gb: float


def probe(training: Training, ranks: Ranks, seconds: float) -> Probe:
    """Train a copy of the network for about `seconds` (at least three steps) and measure it."""
    stepper = stepper_on_a_copy(training, ranks)
    if ranks.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    try:
        for step in range(WARM_UP):
            stepper.step(step)
        begin, waited, steps = time.perf_counter(), 0.0, 0
        while steps < 3 or (steps < MOST_STEPS and not ranks.any(time.perf_counter() - begin > seconds)):
            stepper.step(WARM_UP + steps)
            waited += stepper.waiting * stepper.seconds
            steps += 1
        total = time.perf_counter() - begin
    finally:
        stepper.close()
    device = torch.cuda.max_memory_reserved() / 1e9 if ranks.device.type == "cuda" else 0.0
    return Probe(ranks.mean(total / steps), waited / total, steps,
                 resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, device)


def steps_in(budget_s: float, spent_s: float, step_s: float, validation_s: float, validations: int,
             least: int = LEAST_STEPS) -> int:
    """Steps that fit a time budget, validations included; at least `least`.

    A twentieth is kept back for checkpoints and for a machine that is not always equally fast.
    """
    left = 0.95 * budget_s - spent_s - validation_s * validations
    return max(least, int(left / step_s))

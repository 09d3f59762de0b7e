"""What several ranks cost and gain: training steps measured with and without a word between the ranks."""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass, replace
from statistics import median

from megavox.batches.loader import ENDLESS
from megavox.training.loop import Stepper, Training
from megavox.training.optimiser import MovingAverage, build_optimiser
from megavox.training.parallel import Ranks

WARM_UP = 4  # steps not counted, half of each kind
LEAST_PAIRS = 3


@dataclass(frozen=True)
class Pace:
    """How fast ranks train together.

    Attributes:
        ranks: how many.
        batch: samples of a step, of all ranks.
        step_s: median time of a step, waiting for data included.
        efficiency: median, over pairs of steps beside each other, of the time without synchronisation over that with
            it; 1 for one rank.
        waiting: median share of a step spent waiting for data.
        pairs: how many were measured.
    """

    ranks: int
    batch: int
    step_s: float
    efficiency: float
    waiting: float
    pairs: int

    @property
    def samples_per_s(self) -> float:
        """Samples of all ranks a second."""
        return self.batch / self.step_s

    @property
    def communication(self) -> float:
        """Share of a step that synchronisation takes."""
        return max(0.0, 1 - self.efficiency)

    def sentence(self) -> str:
        """For people."""
        return (f"{self.ranks} ranks: {self.samples_per_s:.3g} samples/s; {self.communication:.1%} of a step is "
                f"communication, {self.waiting:.1%} waiting for data")


def pace(training: Training, ranks: Ranks, seconds: float) -> Pace:
    """Train a copy of the network for about `seconds`, every other step without synchronisation."""
    trial = replace(training, network=copy.deepcopy(training.network))
    optimiser = build_optimiser(trial.network, trial.section.optimiser)
    stepper = Stepper(trial, ranks, optimiser, MovingAverage(trial.network, trial.section.ema), 0, ENDLESS)
    together: list[float] = []
    apart: list[float] = []
    waiting: list[float] = []
    end, over = time.perf_counter() + seconds, False
    try:
        while len(together) < LEAST_PAIRS + WARM_UP // 2 or not over:
            number = 2 * len(together)
            _, over = stepper.step(number, lambda: time.perf_counter() > end)
            together.append(stepper.seconds)
            waiting.append(stepper.waiting)
            stepper.step(number + 1, together=ranks.count == 1)
            apart.append(stepper.seconds)
            ranks.mean(0.0)  # so that none begins the next pair early
    finally:
        stepper.close()
    first = WARM_UP // 2
    ratio = median(a / t for a, t in zip(apart[first:], together[first:], strict=True))
    return Pace(ranks.count, training.samples.batch, ranks.mean(median(together[first:])),
                ranks.mean(ratio) if ranks.count > 1 else 1.0, ranks.mean(median(waiting[first:])),
                len(together) - first)

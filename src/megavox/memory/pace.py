"""What several ranks cost and gain: training steps measured with and without a word between the ranks."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import mean, median

from megavox.training.loop import Training, stepper_on_a_copy
from megavox.training.parallel import Ranks

WARM_UP = 2  # pairs of steps that are not counted


@dataclass(frozen=True)
class Pace:
    """How fast ranks train together.

    Attributes:
        ranks: how many.
        batch: samples of a step, of all ranks.
        step_s: median time of a step, waiting for data included.
        efficiency: median, over pairs of steps beside each other, of the time without synchronisation over that with
            it; 1 for one rank. PyTorch's own batch norms over ranks, on CUDA, cannot be left out and are in both.
        uneven: median, over those pairs, of the share of a step by which the steps without synchronisation, in the
            mean over ranks, are shorter than the slowest rank's: with it they wait for that one, however fast the
            network is. At the least: they also wait within a step, for whoever is slower up to there.
        waiting: median share of a step spent waiting for data.
        pairs: how many were measured.
    """

    ranks: int
    batch: int
    step_s: float
    efficiency: float
    uneven: float
    waiting: float
    pairs: int

    @property
    def samples_per_s(self) -> float:
        """Samples of all ranks a second."""
        return self.batch / self.step_s

    @property
    def communication(self) -> float:
        """Share of a step that synchronisation takes, beyond waiting for the slowest rank."""
        return max(0.0, 1 - self.efficiency - self.uneven)

    def sentence(self) -> str:
        """For people."""
        return (f"{self.ranks} ranks: {self.samples_per_s:.3g} samples/s; {self.communication:.1%} of a step is "
                f"communication, {self.uneven:.1%} waiting for the slowest rank, {self.waiting:.1%} waiting for data")


def pace(training: Training, ranks: Ranks, seconds: float, stop: Callable[[], bool] = bool) -> Pace:
    """Train a copy of the network for about `seconds`, every other step without synchronisation.

    Args:
        training: what is trained.
        ranks: this rank among all.
        seconds: at least three pairs of steps are made, however long they take.
        stop: says whether to end before.
    """
    stepper = stepper_on_a_copy(training, ranks)
    together: list[float] = []
    apart: list[float] = []
    waiting: list[float] = []
    end, over = time.perf_counter() + seconds, False
    try:
        while len(together) <= WARM_UP or not over:
            number = 2 * len(together)
            _, over = stepper.step(number, lambda: stop() or time.perf_counter() > end)
            together.append(stepper.seconds)
            waiting.append(stepper.waiting)
            stepper.step(number + 1, together=ranks.count == 1)
            apart.append(stepper.seconds)
            ranks.mean(0.0)  # so that none begins the next pair early
    finally:
        stepper.close()
    pairs = list(zip(apart, together, zip(*ranks.gather([apart]), strict=True), strict=True))[WARM_UP:]
    efficiency = median(alone / both for alone, both, _ in pairs) if ranks.count > 1 else 1.0
    uneven = median((max(those) - mean(those)) / both for _, both, those in pairs)
    return Pace(ranks.count, training.samples.batch, ranks.mean(median(both for _, both, _ in pairs)),
                ranks.mean(efficiency), ranks.mean(uneven), ranks.mean(median(waiting[WARM_UP:])), len(pairs))

"""What `benchmarks/search.py` searches: how good a setting is, how long it trains, what its scores are on the way.

Values are to be small. `UNet` is a fiction of what is known of such networks: a rate that has to suit batch, depth and
momentum, with slow saturation below and divergence above; capacity and augmentation that suit each other; memory that
a third of the settings exceed; and a machine that now and then loses a trial. Hartmann's function of six variables and
a mixed one after Ackley are common tests.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from megavox.search.space import Bound, Choice, Number, Setting, Space

OUT_OF_MEMORY, DIVERGED, LOST = "out of memory", "diverged", "lost"  # the last by the machine's fault
LOSSES = 0.05  # share of trials that the machine loses


@dataclass(frozen=True)
class Outcome:
    """Of a trial: `value` None where its setting failed, for `cause`; hours."""

    value: float | None
    hours: float
    cause: str = ""


class Problem(ABC):
    """Settings, and what comes of them."""

    space: Space
    best: float  # the smallest true value

    @abstractmethod
    def true(self, setting: Setting) -> float:
        """The value without noise."""

    @abstractmethod
    def run(self, setting: Setting, random: np.random.Generator) -> Outcome:
        """What a trial gives."""

    def fits(self, setting: Setting) -> bool:
        """What can be told beforehand of whether it can be trained."""
        return True

    def preview(self, end: float, share: float, *seed: int) -> float:
        """A score on the way, of the trial with this seed."""
        slowness, offset = np.random.default_rng(seed).standard_normal(2)
        noise = np.random.default_rng([*seed, int(1000 * share)]).standard_normal()
        behind = 0.3 * math.exp(-4.5 * share) * math.exp(0.4 * slowness)
        return end + behind + (1 - share) * (0.01 * offset + 0.015 * noise)


class UNet(Problem):
    """Eleven hyper-parameters of a 3D U-Net."""

    space = Space([
        Choice("patch", (32, 64)), Number("levels", Bound(2), Bound(4), step=1, integer=True),
        Number("filters", Bound(4), Bound(32), step=2, integer=True), Choice("kernel", (3, 5)),
        Choice("residual", (False, True)), Number("batch", Bound(2), Bound(16), step=2, integer=True),
        Number("rate", Bound(1e-8), Bound(1e-2), log=True), Number("beta", Bound(0.9), Bound(0.99)),
        Number("copies", Bound(0), Bound(4), step=1, integer=True),
        Number("shift", Bound(0), Bound(0.5, "patch"), step=1, integer=True), Choice("rotate", (False, True))])
    best = 0.0588  # see `least`

    def fits(self, setting: Setting) -> bool:
        """Whether its activations have room."""
        each = (setting["patch"] / 32) ** 3 * setting["filters"] * (1 + 0.1 * setting["levels"])
        return bool(each * setting["batch"] * (1.3 if setting["residual"] else 1.0) < 1500)

    def above(self, setting: Setting) -> float:
        """By how many powers of ten the rate lies above the best one."""
        best = (-3.8 + 0.5 * math.log10(setting["batch"] / 6) - 0.2 * (setting["levels"] - 3)
                - 5 * (setting["beta"] - 0.93) + 0.3 * setting["residual"] - 0.25 * math.log2(setting["filters"] / 16))
        return math.log10(setting["rate"]) - best

    def true(self, setting: Setting) -> float:
        """The value without noise."""
        large, above = setting["patch"] == 64, self.above(setting)
        rate = 0.5 * (1 - math.exp(-(above / 1.6) ** 2)) if above < 0 else 0.22 * above**2
        shift = 2 * setting["shift"] / setting["patch"]
        variety = setting["copies"] * (0.3 + 0.8 * shift * (1 - shift) + 0.2 * setting["rotate"])
        capacity = math.log2(setting["filters"]) + 0.8 * setting["levels"] + 0.4 * (setting["kernel"] == 5)
        lacking = 6.6 + 0.3 * variety + 0.4 * large - capacity
        fit = 0.025 * lacking**2 if lacking > 0 else 0.05 * lacking**2 / (1 + 0.3 * abs(lacking))
        view = math.log2(2 ** setting["levels"] * (setting["kernel"] - 1) / (36 if large else 20))
        found = (0.09 + rate + fit + 0.03 * view**2 + 0.05 * math.exp(-variety) - 0.02 * large
                 + 0.03 * max(0.0, shift - (0.6 if large else 0.4)) * (setting["copies"] > 0)
                 + 0.01 * math.log2(setting["batch"] / 5) ** 2 - 0.006 * (setting["levels"] - 2) * setting["residual"]
                 + 6 * (setting["beta"] - (0.94 if setting["batch"] < 8 else 0.92)) ** 2
                 + 0.005 * math.sin(8 * above + setting["levels"]))
        return found if found < 0.5 else 0.9 - 0.4 * math.exp((0.5 - found) / 0.4)

    def run(self, setting: Setting, random: np.random.Generator) -> Outcome:
        """What a trial gives."""
        work = ((setting["patch"] / 32) ** 1.5 * setting["filters"] ** 0.8 * (0.5 + 0.25 * setting["levels"])
                * (1.8 if setting["kernel"] == 5 else 1.0) * (1 + 0.3 * setting["copies"]))
        hours = 0.15 * work**0.75 * math.exp(0.25 * random.standard_normal())
        noise = random.standard_normal()
        if not self.fits(setting):
            return Outcome(None, 0.05, OUT_OF_MEMORY)
        if self.above(setting) > 1.2:
            return Outcome(None, 0.2 * hours, DIVERGED)
        if random.random() < LOSSES:
            return Outcome(None, random.random() * hours, LOST)
        true = self.true(setting)
        return Outcome(true + noise * 0.008 * (1 + 2 * max(0.0, true - 0.2)), hours)


class Hartmann(Problem):
    """Hartmann's function of six variables (Dixon and Szego 1978)."""

    space = Space([Number(f"x{i}", Bound(0), Bound(1)) for i in range(6)])
    best = -3.32237
    _A = np.array([[10, 3, 17, 3.5, 1.7, 8], [0.05, 10, 17, 0.1, 8, 14], [3, 3.5, 1.7, 10, 17, 8],
                   [17, 8, 0.05, 10, 0.1, 14]])
    _P = np.array([[1312, 1696, 5569, 124, 8283, 5886], [2329, 4135, 8307, 3736, 1004, 9991],
                   [2348, 1451, 3522, 2883, 3047, 6650], [4047, 8828, 8732, 5743, 1091, 381]]) / 10_000

    def true(self, setting: Setting) -> float:
        """The value without noise."""
        x = np.array([setting[f"x{i}"] for i in range(6)])
        return -float(np.array([1, 1.2, 3, 3.2]) @ np.exp(-(self._A * (x - self._P) ** 2).sum(axis=1)))

    def run(self, setting: Setting, random: np.random.Generator) -> Outcome:
        """What a trial gives."""
        hours, noise = random.standard_normal(2)
        return Outcome(self.true(setting) + 0.02 * noise, math.exp(0.5 * hours))


class Ackley(Problem):
    """After Ackley (1987), of three truth values, three whole numbers and five others; its best is within a level."""

    space = Space([*(Choice(f"b{i}", (False, True)) for i in range(3)),
                   *(Number(f"k{i}", Bound(0), Bound(8), step=1, integer=True) for i in range(3)),
                   *(Number(f"x{i}", Bound(0), Bound(1)) for i in range(5))])
    best = 0.0
    _WHERE = np.array([0, 1, 1, 0.25, 0.75, 0.5, 0.3, 0.62, 0.45, 0.71, 0.37])

    def true(self, setting: Setting) -> float:
        """The value without noise."""
        z = 4 * (self.space.encode(setting) - self._WHERE)
        z[:3] *= 0.4
        bowl, waves = np.exp(-0.2 * np.sqrt(np.square(z).mean())), np.exp(np.cos(2 * np.pi * z).mean())
        return float(20 * (1 - bowl) + np.e - waves)

    def run(self, setting: Setting, random: np.random.Generator) -> Outcome:
        """What a trial gives."""
        hours, noise = random.standard_normal(2)
        return Outcome(self.true(setting) + 0.05 * noise, math.exp(0.5 * hours))


PROBLEMS: dict[str, Problem] = {"unet": UNet(), "hartmann": Hartmann(), "ackley": Ackley()}


def least(problem: Problem, tries: int = 100_000, seed: int = 0) -> float:
    """The smallest true value that a long search by chance, and from its best by small changes, finds."""
    random, space = np.random.default_rng(seed), problem.space

    def value(point: np.ndarray) -> float:
        setting = space.decode(point)
        allowed = problem.run(setting, np.random.default_rng(0)).cause not in (OUT_OF_MEMORY, DIVERGED)
        return problem.true(setting) if allowed else math.inf

    points = space.uniform(random.random((tries // 4, space.size)))
    values = np.array([value(point) for point in points])
    found = math.inf
    for start in np.argsort(values)[:10]:
        point, reach = points[start], 0.3
        for _ in range(3 * tries // 40):
            moved = random.random(space.size) < 2 / space.size
            other = space.snapped((point + moved * reach * random.standard_normal(space.size))[None])[0]
            if value(other) < value(point):
                point = other
            else:
                reach = max(0.01, 0.9995 * reach)
        found = min(found, value(point))
    return found

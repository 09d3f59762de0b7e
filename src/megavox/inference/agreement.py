"""How far a faster setting of prediction agrees with the exact one."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from megavox.inference.predictor import Predictor

LEAST = 0.999  # of voxels with the same class, and of Dice for every class


@dataclass(frozen=True)
class Agreement:
    """Two settings held against each other on the same cases.

    Attributes:
        argmax: share of voxels with the same class.
        dice: for each class that either found, Dice between the two, over all voxels of all cases.
        cases: how many.
        exact_s, fast_s: time taken by each, s.
    """

    argmax: float
    dice: dict[str, float]
    cases: int
    exact_s: float
    fast_s: float

    @property
    def enough(self) -> bool:
        """Whether to use the faster setting; not where neither found any class, which tells nothing."""
        agrees = self.argmax >= LEAST and bool(self.dice) and min(self.dice.values()) >= LEAST
        return agrees and self.fast_s < self.exact_s

    def sentence(self) -> str:
        """What was found, for people."""
        dice = f"least Dice {min(self.dice.values()):.4f}" if self.dice else "no class was found"
        return (f"on {self.cases} validation cases {self.argmax:.5f} of the voxels agree with the exact setting, "
                f"{dice}, in {self.fast_s / max(self.exact_s, 1e-9):.2f} of its time")


def agreement(exact: Predictor, fast: Predictor, images: Iterable[np.ndarray]) -> Agreement:
    """Hold two predictors that segment against each other.

    Args:
        exact, fast: of one network.
        images: prepared, `(C, *S)` in their own units.
    """
    names = exact.task.classes
    counts = np.zeros((len(names) + 1, len(names) + 1), np.int64)
    seconds, cases = [0.0, 0.0], 0
    for image in images:
        found = []
        for number, predictor in enumerate((exact, fast)):
            begin = time.perf_counter()
            found.append(_labels(predictor, image))
            seconds[number] += time.perf_counter() - begin
        for one, other in zip(*found, strict=True):
            pairs = one.astype(np.int64) * len(counts) + other
            counts += np.bincount(pairs.reshape(-1), minlength=counts.size).reshape(counts.shape)
        cases += 1
    both = counts.sum(axis=0) + counts.sum(axis=1)
    dice = {name: float(2 * counts[k, k] / both[k]) for k, name in enumerate(names, 1) if both[k]}
    return Agreement(float(np.trace(counts) / max(counts.sum(), 1)), dice, cases, *seconds)


def _labels(predictor: Predictor, image: np.ndarray) -> Any:
    return np.concatenate([slab.argmax(axis=0).astype(np.uint8) for slab in predictor.slabs(image)])

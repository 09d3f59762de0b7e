"""Segment: every voxel gets a class."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from megavox.measures.overlap import overlap
from megavox.measures.summary import summarise_segmentation
from megavox.store.layout import IGNORE, Record
from megavox.study.sections import SegmentTask
from megavox.tasks.losses import deep_supervision_loss, dice_ce


class Segment:
    """Dice + cross-entropy; the metric is the mean Dice of the classes.

    Args:
        section: the study's task section.
        train: records of the training cases (not needed).
    """

    kind = "segment"
    headline = "dice"

    def __init__(self, section: SegmentTask, train: list[Record]) -> None:
        self.classes = section.names
        self.outputs = section.outputs
        self.scores = ["dice", *(f"dice {name}" for name in self.classes)]
        self._batch_dice = section.dice == "batch"
        self._weights = torch.tensor(section.class_weights) if section.class_weights else None

    def loss(self, output: Any, target: torch.Tensor) -> torch.Tensor:
        """Loss of logits `(B, K + 1, *S)`, or a list of them, for class numbers `(B, *S)`."""
        weights = None if self._weights is None else self._weights.to(target.device)

        def one(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            return dice_ce(logits, labels, class_weights=weights, ignore=IGNORE,
                           batch_dice=self._batch_dice)

        if isinstance(output, (list, tuple)):
            return deep_supervision_loss(output, target, one)
        return one(output, target)

    def row(self, logits: np.ndarray, target: np.ndarray) -> list[float]:
        """Dice of each class from logits `(K + 1, *S)`; NaN where the reference has none of it."""
        found = logits.argmax(axis=0)
        kept = target != IGNORE
        row = []
        for number in range(1, self.outputs):
            reference = target == number
            predicted = (found == number) & kept
            total = int(reference.sum())
            row.append(2 * int((predicted & reference).sum()) / (total + int(predicted.sum())) if total else np.nan)
        return row

    def score(self, rows: list[Any]) -> dict[str, float]:
        """Mean Dice over cases of each class, and over classes."""
        values = np.array(rows, dtype=float)
        known = ~np.isnan(values)
        means = np.where(known.any(axis=0), np.where(known, values, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1),
                         np.nan)
        defined = means[~np.isnan(means)]
        return {"dice": float(defined.mean()) if defined.size else float("nan"),
                **{f"dice {name}": float(mean) for name, mean in zip(self.classes, means, strict=True)}}

    def measure(self, prediction: np.ndarray, reference: np.ndarray,
                spacing_mm: tuple[float, ...]) -> list[dict[str, Any]]:
        """Overlap and boundary measures of one case, a dictionary a class."""
        return [vars(one) for one in overlap(prediction, reference, self.classes, spacing_mm, IGNORE)]

    def summary(self, rows: list[dict[str, Any]], *, seed: int, resamples: int,
                thresholds: list[float] | None) -> dict[str, Any]:
        """The cohort table from rows of `measure` with `subject` and `case`."""
        return summarise_segmentation(rows, self.classes, seed, resamples)

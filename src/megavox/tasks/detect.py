"""Detect: where findings are in every case, how large, and how sure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy.special import expit

from megavox.cohort.case import Finding
from megavox.images.geometry import Geometry
from megavox.measures.detection import summarise_detection
from megavox.measures.froc import Marks, border_at, froc, hits, mean_sensitivity, partial_area, scored, sensitivity_at
from megavox.store.layout import IGNORE, OUTSIDE, Record
from megavox.study.sections import DetectTask
from megavox.tasks.candidates import Candidates, candidates
from megavox.tasks.losses import deep_supervision_loss, dice_ce

CALLED_AT = 1.0  # false positives a case on the validation cases, up to which candidates are called


class Detect:
    """A map of probabilities, learnt as balls with Dice and cross-entropy; the metric is the area under the FROC curve.

    Args:
        section: the study's task section.
        train: records of the training cases (not needed).
    """

    kind = "detect"
    headline = "partial_area"

    def __init__(self, section: DetectTask, train: list[Record]) -> None:
        self.classes = section.names
        self.outputs = section.outputs
        self.scores = ["partial_area", "mean_sensitivity", "sensitivity_at_1"]

    def loss(self, output: Any, target: torch.Tensor) -> torch.Tensor:
        """Loss of logits `(B, 2, *S)`, or a list of them, for marks `(B, *S)` as of `store.pack.marked`."""
        target = target.masked_fill(target == OUTSIDE, IGNORE)
        if isinstance(output, (list, tuple)):
            return deep_supervision_loss(output, target, dice_ce)
        return dice_ce(output, target)

    def candidates(self, logits: np.ndarray, where: np.ndarray, geometry: Geometry) -> Candidates:
        """Candidates of a case.

        Args:
            logits: `(2, Z, Y, X)`.
            where: `(Z, Y, X)` of booleans; elsewhere there is none.
            geometry: of the grid.
        """
        probability = expit(logits[1] - logits[0])
        probability[~where] = 0
        return candidates(probability, geometry)

    def row(self, logits: np.ndarray, target: tuple[np.ndarray, Record]) -> dict[str, Any]:
        """Scores of what was found and of what was found wrongly, from logits and from marks with their record."""
        marks, record = target
        found = self.candidates(logits, marks != OUTSIDE, record.geometry)
        return self.marks(found, record.findings or ())

    def marks(self, found: Candidates, findings: Sequence[Finding]) -> dict[str, Any]:
        """The same from candidates and findings, for `Marks.of`."""
        counts = np.array([one.counts for one in findings], dtype=bool)
        marks = scored(found.centres_mm, found.scores, *_places(findings), counts)
        return {"found": [None if np.isnan(score) else float(score) for score in marks.found],
                "diameters_mm": marks.diameters_mm.tolist(), "false": marks.false.tolist()}

    def wrong(self, found: Candidates, findings: Sequence[Finding]) -> np.ndarray:
        """Which candidates lie on no finding, be it one that does not count; `(C,)` of booleans."""
        return np.asarray(~hits(found.centres_mm, *_places(findings)).any(axis=1))

    def score(self, rows: list[Any]) -> dict[str, float]:
        """Partial area, mean sensitivity, and sensitivity at one false positive a case."""
        curve = froc([Marks.of(row) for row in rows])
        return {"partial_area": partial_area(curve), "mean_sensitivity": mean_sensitivity(curve),
                "sensitivity_at_1": float(sensitivity_at(curve, [1.0])[0])}

    def calibrate(self, rows: list[Any]) -> dict[str, Any]:
        """The score above which candidates are called, from validation rows."""
        return {"threshold": max(0.0, border_at([Marks.of(row) for row in rows], CALLED_AT))}

    def summary(self, rows: list[dict[str, Any]], *, seed: int, resamples: int,
                thresholds: list[float] | None) -> dict[str, Any]:
        """The cohort table from rows of `row` with `subject`."""
        return summarise_detection([Marks.of(row) for row in rows], [row["subject"] for row in rows], seed=seed,
                                   resamples=resamples)


def _places(findings: Sequence[Finding]) -> tuple[np.ndarray, np.ndarray]:
    """Centres `(F, 3)` and diameters `(F,)` in mm."""
    return (np.array([one.centre_mm for one in findings], dtype=float).reshape(-1, 3),
            np.array([one.diameter_mm for one in findings], dtype=float))

"""Classify: every case gets one class, or any number of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from megavox.core.over_ranks import apart
from megavox.measures.calibration import fit_temperature
from megavox.measures.classification import choose_threshold
from megavox.measures.ranking import auroc
from megavox.measures.summary import summarise_classification
from megavox.store.layout import Record
from megavox.study.sections import ClassifyTask
from megavox.tasks.losses import weighted_bce, weighted_ce

MOST_WEIGHT = 20.0  # of a rare class; more makes training unstable


class Classify:
    """Cross-entropy, or binary cross-entropy per label; the metric is the mean AUROC.

    Args:
        section: the study's task section.
        train: records of the training cases, to balance the classes.
    """

    kind = "classify"
    headline = "auroc"

    def __init__(self, section: ClassifyTask, train: list[Record]) -> None:
        self.classes = section.names
        self.outputs = section.outputs
        self.scores = ["auroc", "loss"]
        self.multilabel = section.multilabel
        self._smoothing = section.label_smoothing
        self._weights = self._class_weights(section, train)

    def loss(self, output: Any, target: torch.Tensor) -> torch.Tensor:
        """Loss of logits `(B, K)` for targets `(B, K)` of 0, 1 and NaN."""
        weights = None if self._weights is None else self._weights.to(target.device)
        if self.multilabel:
            return weighted_bce(output.float(), target, weights)
        return weighted_ce(output.float(), target.argmax(dim=1), weights, self._smoothing)

    def row(self, logits: np.ndarray, target: np.ndarray) -> tuple[list[float], list[float]]:
        """Logits and target of one case, `(K,)` each."""
        return logits.astype(float).tolist(), target.astype(float).tolist()

    def score(self, rows: list[Any]) -> dict[str, float]:
        """Mean AUROC over the classes that have cases of both kinds, and the loss."""
        logits, target = (np.array(part, dtype=float) for part in zip(*rows, strict=True))
        values = []
        for k in range(self.outputs):
            known = ~np.isnan(target[:, k])
            if 0 < target[known, k].sum() < known.sum():
                values.append(auroc(logits[known, k] - self._reference(logits[known], k), target[known, k]))
        with apart():  # the rows are those of all ranks
            loss = self.loss(torch.from_numpy(logits), torch.from_numpy(target).float())
        return {"auroc": float(np.mean(values)) if values else float("nan"), "loss": float(loss)}

    def probabilities(self, logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
        """Softmax, or sigmoid for multi-label, of `logits / temperature`; `(..., K)`."""
        scaled = torch.from_numpy(np.asarray(logits, dtype=np.float64) / temperature)
        return (scaled.sigmoid() if self.multilabel else scaled.softmax(dim=-1)).numpy()

    def calibrate(self, rows: list[Any]) -> dict[str, Any]:
        """Temperature and thresholds from validation rows.

        Returns:
            `temperature`, and `thresholds`: one per label; one, of the positive class, for two
            exclusive classes; none for more. A label without both kinds of case keeps 0.5.
        """
        logits, target = (np.array(part, dtype=float) for part in zip(*rows, strict=True))
        temperature = fit_temperature(logits, target if self.multilabel else target.argmax(axis=1))
        probabilities = self.probabilities(logits, temperature)
        chosen = []
        for k in range(self.outputs) if self.multilabel else ([1] if self.outputs == 2 else []):
            known = ~np.isnan(target[:, k])
            both = 0 < target[known, k].sum() < known.sum()
            chosen.append(float(choose_threshold(probabilities[known, k], target[known, k])) if both else 0.5)
        return {"temperature": float(temperature), "thresholds": chosen}

    def summary(self, rows: list[dict[str, Any]], *, seed: int, resamples: int,
                thresholds: list[float] | None) -> dict[str, Any]:
        """The cohort table from rows with `subject`, `probabilities` and `target`, `(K,)` each."""
        probabilities = np.array([row["probabilities"] for row in rows])
        target = np.array([row["target"] for row in rows], dtype=float)
        return summarise_classification(probabilities, target if self.multilabel else target.argmax(axis=1),
                                        [row["subject"] for row in rows], self.classes, self.multilabel,
                                        thresholds or None, seed=seed, resamples=resamples)

    def _reference(self, logits: np.ndarray, k: int) -> np.ndarray | float:
        """What a class's logit is held against: nothing, or the log-sum of the other classes."""
        if self.multilabel:
            return 0.0
        others = np.delete(logits, k, axis=1)
        return np.logaddexp.reduce(others, axis=1)

    def _class_weights(self, section: ClassifyTask, train: list[Record]) -> torch.Tensor | None:
        """Given, or `balanced`: N / (K * n_k); for multi-label the root of negatives / positives."""
        if section.class_weights is None:
            return None
        if section.class_weights != "balanced":
            return torch.tensor(section.class_weights)
        counts = np.array([sum(k in (record.classes or ()) for record in train) for k in range(self.outputs)], float)
        known = np.array([sum(k not in record.unknown for record in train) for k in range(self.outputs)], float)
        if self.multilabel:
            weights = np.sqrt((known - counts) / np.maximum(counts, 1))
        else:
            weights = counts.sum() / (self.outputs * np.maximum(counts, 1))
        return torch.tensor(np.clip(weights, 1 / MOST_WEIGHT, MOST_WEIGHT), dtype=torch.float32)

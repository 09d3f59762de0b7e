"""The tasks: one file each, one line here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch

from megavox.store.layout import Record
from megavox.tasks.classify import Classify
from megavox.tasks.detect import Detect
from megavox.tasks.segment import Segment


class Task(Protocol):
    """What is learnt: target form, loss, metrics, and what a prediction is.

    Attributes:
        kind: the word for it in a study.
        headline: the score by which weights are kept; higher is better.
        scores: names of all that `score` tells.
        classes: names.
        outputs: channels of a network's output.
    """

    kind: str
    headline: str
    scores: list[str]
    classes: list[str]
    outputs: int

    def loss(self, output: Any, target: torch.Tensor) -> torch.Tensor:
        """Loss of a network's output (deep supervision: a list of outputs) for a batch."""

    def row(self, logits: np.ndarray, target: Any) -> Any:
        """What validation keeps of one case: few numbers."""

    def score(self, rows: list[Any]) -> dict[str, float]:
        """Metrics of a validation from its rows, by the names of `scores`."""

    def summary(self, rows: list[dict[str, Any]], *, seed: int, resamples: int,
                thresholds: list[float] | None) -> dict[str, Any]:
        """The table that `evaluate` writes."""


TASKS: dict[str, Callable[[Any, list[Record]], Task]] = {"segment": Segment, "classify": Classify,
                                                            "detect": Detect}


def build_task(section: Any, train: list[Record]) -> Task:
    """The task of a study.

    Args:
        section: the study's task section.
        train: records of the training cases, from which class weights are counted.
    """
    return TASKS[section.kind](section, train)

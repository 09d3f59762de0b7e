"""What a report holds: plain values, gathered by the pipeline and shown by `page.write_report`.

Nothing here reads a file or computes a measure. Numbers with intervals are `Measured.to_dict()` of
`megavox.measures.summary`: `value`, `low`, `high`, `n`, `undefined`, with None where undefined.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isnan
from typing import Any, Literal

import numpy as np

from megavox.measures.classification import decisions
from megavox.measures.froc import Marks


@dataclass(frozen=True)
class Headline:
    """One of the few numbers that answer the study's question.

    Attributes:
        label: what it is, as a reader says it ("Mean Dice"); the first one makes the opening sentence.
        measured: `Measured.to_dict()`.
        unit: "" for a number without one, else "mm", "mm³", "%".
    """

    label: str
    measured: Mapping[str, Any]
    unit: str = ""


@dataclass(frozen=True, eq=False)
class CaseView:
    """One test case to look at.

    Attributes:
        name: of the case.
        title: "worst", "median" or "best".
        text: one sentence on how well it went.
        image: `(Z, Y, X)` in LPS orientation (x grows to the patient's left, y to the back, z to the
            head), or `(Y, X)` as it is looked at. Values that are not finite are left black.
        spacing_mm: between voxel centres in the order of the array's axes, one for each.
        reference, prediction: label maps on the image's grid, or None. 0 is background and k is
            `classes[k - 1]`; other labels are not drawn.
    """

    name: str
    title: str
    text: str
    image: np.ndarray
    spacing_mm: tuple[float, ...]
    reference: np.ndarray | None = None
    prediction: np.ndarray | None = None

    def __post_init__(self) -> None:
        assert self.image.ndim in (2, 3), f"an image is (Z, Y, X) or (Y, X), not {self.image.shape}"
        assert len(self.spacing_mm) == self.image.ndim, "one spacing for each axis"
        assert all(step > 0 for step in self.spacing_mm), self.spacing_mm
        for labels in (self.reference, self.prediction):
            assert labels is None or labels.shape == self.image.shape, "label maps lie on the image's grid"


@dataclass(frozen=True, eq=False)
class ReportContent:
    """All that the report's page is made from.

    Attributes:
        study_name: title of the page.
        kind: the task.
        classes: names, for a segmentation without the background.
        headline: the numbers of the opening cards, the most important first.
        cohort: rows of "what was looked at": (name, text).
        parts: for each part of the split `cases`, `subjects` and the cases of each class.
        derived: settings that were worked out, not given: `key`, `value`, `why`.
        curve: the lines of metrics.jsonl.
        evaluation: `summarise_segmentation`, `summarise_classification` or `summarise_detection`, or {} before
            evaluation.
        cases: cases to look at, worst first.
        case_rows: every test case: from `segmentation_case_rows`, `classification_case_rows` or
            `detection_case_rows`.
        quarantine: `case`, `subject`, `file`, `reason`, `message`.
        measures: rows of any table of measures; keys of the rows are its columns.
        notes: what the reader must know before trusting the numbers.
        provenance: `core.provenance.provenance`.
    """

    study_name: str
    kind: Literal["segment", "classify", "detect"]
    classes: list[str]
    headline: list[Headline] = field(default_factory=list)
    cohort: list[tuple[str, str]] = field(default_factory=list)
    parts: dict[str, dict[str, int]] = field(default_factory=dict)
    derived: list[dict[str, Any]] = field(default_factory=list)
    curve: list[dict[str, Any]] = field(default_factory=list)
    evaluation: dict[str, Any] = field(default_factory=dict)
    cases: list[CaseView] = field(default_factory=list)
    case_rows: list[dict[str, Any]] = field(default_factory=list)
    quarantine: list[dict[str, str]] = field(default_factory=list)
    measures: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    provenance: dict[str, Any] = field(default_factory=dict)


def segmentation_case_rows(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row for each case from the rows of `summarise_segmentation` (one for each case and class).

    Args:
        rows: `subject`, `case` and the fields of `ClassOverlap`, as numbers, None or CSV text.

    Returns:
        `name`, `subject`, `score` (mean Dice of the classes defined in the case, None if there is
        none) and `classes`: for each class its `dice`, `volume_reference_mm3` and
        `volume_prediction_mm3` (float or None) and `undefined`. The worst case comes first.
    """
    cases: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    for row in rows:
        numbers = {key: _number(row[key]) for key in ("dice", "volume_reference_mm3", "volume_prediction_mm3")}
        cases.setdefault((str(row["case"]), str(row["subject"])), {})[str(row["name"])] = {
            **numbers, "undefined": str(row["undefined"])}
    found = []
    for (name, subject), classes in cases.items():
        defined = [entry["dice"] for entry in classes.values() if entry["dice"] is not None]
        found.append({"name": name, "subject": subject, "classes": classes,
                      "score": sum(defined) / len(defined) if defined else None})
    return _worst_first(found)


def classification_case_rows(rows: Sequence[Mapping[str, Any]], classes: Sequence[str], multilabel: bool,
                             thresholds: Sequence[float] | None = None) -> list[dict[str, Any]]:
    """One row for each case from its probabilities and target.

    Args:
        rows: `subject`, `case`, `probabilities` `(K,)` and `target` `(K,)` of 0, 1 and NaN (unknown).
        classes: the K names.
        multilabel: whether a case has any number of classes, or exactly one.
        thresholds: as for `megavox.measures.classification.decisions`.

    Returns:
        `name`, `subject`, `reference` and `predicted` (names of classes), and `score`: the mean
        probability given to what is true of the case (None if nothing is known). The worst first.
    """
    if not rows:
        return []
    probabilities = np.array([row["probabilities"] for row in rows], dtype=float)
    target = np.array([row["target"] for row in rows], dtype=float)
    truth, called = decisions(probabilities, target if multilabel else target.argmax(axis=1), thresholds or None)
    found = []
    for row, p, true, predicted in zip(rows, probabilities, truth, called, strict=True):
        right = np.where(true > 0, p, 1 - p)[~np.isnan(true)] if multilabel else p[true > 0]
        found.append({"name": str(row["case"]), "subject": str(row["subject"]),
                      "reference": _names(classes, true > 0), "predicted": _names(classes, predicted),
                      "score": float(right.mean()) if len(right) else None})
    return _worst_first(found)


def detection_case_rows(rows: Sequence[Mapping[str, Any]], called_above: float) -> list[dict[str, Any]]:
    """One row for each case from its scores.

    Args:
        called_above: score above which a candidate is called.
        rows: `subject`, `case` and the fields of `Marks`, as arrays or as lists with None for NaN.

    Returns:
        `name`, `subject`, `score` (share of its findings that was found, None if it has none), `found_mm` and
        `missed_mm` (diameters of its findings, negative where unknown) and `false` (number of false positives).
        The case with the most missed findings comes first, of equal ones that with the most false positives.
    """
    found = []
    for row in rows:
        case = Marks.of(row)
        here = case.found > called_above  # not where it is NaN
        found.append({"name": str(row["case"]), "subject": str(row["subject"]),
                      "score": float(here.mean()) if len(here) else None,
                      "found_mm": case.diameters_mm[here].tolist(), "missed_mm": case.diameters_mm[~here].tolist(),
                      "false": int((case.false > called_above).sum())})
    return sorted(found, key=lambda row: (-len(row["missed_mm"]), -row["false"], row["name"]))


def _worst_first(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """By rising score; cases without one at the end, equal ones by name."""
    return sorted(rows, key=lambda row: (row["score"] is None, row["score"] or 0.0, row["name"]))


def _names(classes: Sequence[str], chosen: np.ndarray) -> str:
    return ", ".join(name for name, here in zip(classes, chosen, strict=True) if here) or "none"


def _number(value: Any) -> float | None:
    if value is None or value == "" or isnan(float(value)):
        return None
    return float(value)

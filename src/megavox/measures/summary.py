"""The tables that `evaluate` writes: from cases to a cohort, every number with its interval.

Every number is a `Measured`: value, 95 % interval over subjects, the cases behind it, and the
reason where it (or its interval) is undefined. The tables are plain values, ready for JSON.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import nan
from typing import Any

import numpy as np

from megavox.core.files import plain
from megavox.measures.bootstrap import Interval, bootstrap_table
from megavox.measures.calibration import BINS, brier, reliability_curve, top_label
from megavox.measures.classification import (
    CLASS_MEASURES,
    FEWEST_CASES,
    ClassScore,
    accuracy,
    class_table,
    decisions,
    headline,
    multi_label,
    single_label,
)
from megavox.measures.ranking import roc_points

OVERLAPS = ("dice", "iou", "hausdorff95_mm", "surface_distance_mm")
VOLUMES = ("volume_prediction_mm3", "volume_reference_mm3", "volume_error_mm3", "volume_error_percent")
RESAMPLES = 1000


@dataclass(frozen=True)
class Measured:
    """A number that a person reads.

    Attributes:
        value: the number, NaN where undefined.
        low, high: its 95 % interval over subjects, NaN where undefined.
        n: cases behind it.
        undefined: why there is no value, or no interval, or "".
    """

    value: float
    low: float
    high: float
    n: int
    undefined: str = ""

    @classmethod
    def of(cls, value: float, interval: Interval, n: int, undefined: str = "") -> Measured:
        """A value with its interval; an undefined value has none."""
        if np.isnan(value):
            return cls(nan, nan, nan, n, undefined or "no defined case")
        reason = f"no interval: {interval.undefined}" if interval.undefined else ""
        return cls(float(value), interval.low, interval.high, n, reason)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: NaN becomes None."""
        return plain(asdict(self))


def summarise_segmentation(rows: Sequence[Mapping[str, Any]], classes: Sequence[str], seed: int,
                           resamples: int = RESAMPLES) -> dict[str, Any]:
    """The cohort table of a segmentation.

    Args:
        rows: one for each case and class: `subject`, `case`, and the fields of `ClassOverlap`
            (`name` is the class). Values may be numbers, None, or the text of a CSV file.
        classes: class names in the order of the table.
        seed: of the bootstrap.
        resamples: of the bootstrap.

    Returns:
        `n_cases`, `n_subjects`; `classes`: for each class and measure, `mean` and `median`
        (`Measured`, n = defined cases), `n_undefined` and `undefined_reasons`, counted; `all`: the
        same for `dice`, `iou` and the boundary measures where a case's value is its mean over the
        classes that are defined in it.
    """
    cases = list(dict.fromkeys((str(row["subject"]), str(row["case"])) for row in rows))
    place = {case: i for i, case in enumerate(cases)}
    measures = OVERLAPS + VOLUMES
    values = np.full((len(cases), len(classes), len(measures)), nan)
    reasons = np.full((len(cases), len(classes)), "not measured", dtype=object)
    for row in rows:
        at = place[str(row["subject"]), str(row["case"])], list(classes).index(row["name"])
        values[at] = [_number(row[measure]) for measure in measures]
        reasons[at] = str(row["undefined"])
    everything = _nanmean(np.moveaxis(values[:, :, :len(OVERLAPS)], 1, 0))  # (cases, overlaps)
    columns = np.concatenate([values.reshape(len(cases), len(classes) * len(measures)), everything], axis=1)

    def averages(rows: np.ndarray) -> dict[str, float]:
        chosen = columns[rows]
        return {f"{kind} {column}": value for kind, average in (("mean", _nanmean), ("median", _nanmedian))
                for column, value in enumerate(average(chosen).tolist())}

    intervals = bootstrap_table(averages, [subject for subject, _ in cases], resamples, seed=seed)
    found = averages(np.arange(len(cases)))

    def entry(column: int, why: Sequence[str]) -> dict[str, Any]:
        missing = np.isnan(columns[:, column])
        n = int((~missing).sum())
        mean, median = (Measured.of(found[key], intervals[key], n).to_dict()
                        for key in (f"mean {column}", f"median {column}"))
        return {"mean": mean, "median": median, "n_undefined": int(missing.sum()),
                "undefined_reasons": dict(Counter(w for w, gone in zip(why, missing, strict=True) if gone))}

    width = len(measures)
    return {
        "n_cases": len(cases), "n_subjects": len({subject for subject, _ in cases}),
        "classes": {name: {measure: entry(k * width + m, reasons[:, k].tolist()) for m, measure in enumerate(measures)}
                    for k, name in enumerate(classes)},
        "all": {measure: entry(len(classes) * width + m, ["no class is defined"] * len(cases))
                for m, measure in enumerate(OVERLAPS)},
    }


def summarise_classification(probabilities: np.ndarray, targets: np.ndarray, subjects: Sequence[str],
                             classes: Sequence[str], multilabel: bool, thresholds: Sequence[float] | None = None,
                             *, seed: int, fewest: int = FEWEST_CASES,
                             resamples: int = RESAMPLES) -> dict[str, Any]:
    """The cohort table of a classification.

    Args:
        probabilities: `(N, K)`.
        targets: `(N,)` whole numbers; for multi-label `(N, K)` of 0, 1 and NaN for unknown.
        subjects: `(N,)`, the subject of each case.
        classes: the K names.
        multilabel: which of the two it is.
        thresholds: K for multi-label; one, of the positive class, for two classes; else not used.
        seed: of the bootstrap.
        fewest: positives, and negatives, that a class needs to be defined.
        resamples: of the bootstrap.

    Returns:
        `headline` (`Measured` by name), `classes` (the same for each class, with its counts),
        `undefined_classes` (reason by name), `confusion` (reference down; None for multi-label),
        `roc` (points by class) and `calibration` (reliability points: by label for multi-label,
        else of the "top label"). The calibration error has no interval: resampling adds to its
        upward bias, so a percentile interval would lie above it.

    Raises:
        LabelError, MegavoxError: as `single_label`.
    """
    assert (targets.ndim == 2) == multilabel, "single-label targets are (N,), multi-label ones (N, K)"
    if multilabel:
        scores = multi_label(probabilities, targets, classes, thresholds, fewest)
    else:
        thresholds = [0.5] if thresholds is None or not len(thresholds) else thresholds
        scores = single_label(probabilities, targets, classes, thresholds[0], fewest)
    truth, called = decisions(probabilities, targets, thresholds)
    defined = [k for k, row in enumerate(scores.classes) if not row.undefined]

    def statistics(rows: np.ndarray) -> dict[str, float]:
        # Which classes count is settled by the whole set: in a resample, one case of each kind is enough.
        table = class_table(probabilities[rows], truth[rows], called[rows], classes, fewest=1)
        table = [whole if whole.undefined else row for whole, row in zip(scores.classes, table, strict=True)]
        return {**headline(table, multilabel), "accuracy": accuracy(truth[rows], called[rows], multilabel),
                "brier": brier(probabilities[rows], targets[rows]),
                **{f"{k}/{name}": getattr(table[k], name) for k in defined for name in CLASS_MEASURES}}

    intervals = bootstrap_table(statistics, subjects, resamples, seed=seed)
    none = Interval(nan, nan, len(set(subjects)), 0, "it would be biased")
    missing = {"ece": f"fewer than {BINS} cases", **({"precision": "never predicted"} if defined else {})}
    names = ("accuracy", "balanced_accuracy", *CLASS_MEASURES, "brier", "ece")
    return plain({
        "n_cases": len(targets), "n_subjects": len(set(subjects)), "multilabel": multilabel,
        "headline": {name: Measured.of(getattr(scores, name), intervals.get(name, none), len(targets),
                                       missing.get(name, "too few classes are defined")).to_dict()
                     for name in names},
        "classes": {row.name: _class_entry(row, {m: intervals.get(f"{k}/{m}", none) for m in CLASS_MEASURES})
                    for k, row in enumerate(scores.classes)},
        "undefined_classes": scores.undefined,
        "confusion": scores.confusion,
        "roc": {classes[k]: _roc(probabilities[:, k], truth[:, k]) for k in defined},
        "calibration": _calibration(probabilities, targets, classes),
    })


def _class_entry(row: ClassScore, intervals: Mapping[str, Interval]) -> dict[str, Any]:
    n = row.n_positive + row.n_negative
    numbers = {name: Measured.of(getattr(row, name), intervals[name], n,
                                 row.undefined or "never predicted").to_dict() for name in CLASS_MEASURES}
    return {**numbers, "prevalence": row.prevalence, "n_positive": row.n_positive, "n_negative": row.n_negative}


def _roc(scores: np.ndarray, truth: np.ndarray) -> dict[str, list[float]]:
    known = ~np.isnan(truth)
    false_rate, sensitivity = roc_points(scores[known], truth[known])
    return {"false_positive_rate": false_rate.tolist(), "sensitivity": sensitivity.tolist()}


def _calibration(probabilities: np.ndarray, targets: np.ndarray,
                 classes: Sequence[str]) -> dict[str, list[dict[str, float]]]:
    if targets.ndim == 1:
        return {"top label": reliability_curve(*top_label(probabilities, targets))}
    known = ~np.isnan(targets)
    return {name: reliability_curve(probabilities[known[:, k], k], targets[known[:, k], k])
            for k, name in enumerate(classes)}


def _number(value: Any) -> float:
    return nan if value is None or value == "" else float(value)


def _nanmean(values: np.ndarray) -> np.ndarray:
    """Mean over axis 0 of what is not NaN, without NumPy's warning where all is."""
    known = ~np.isnan(values)
    n = known.sum(axis=0)
    return np.where(n > 0, np.where(known, values, 0.0).sum(axis=0) / np.maximum(n, 1), nan)


def _nanmedian(values: np.ndarray) -> np.ndarray:
    """Median over axis 0 of what is not NaN: `(N, D)` -> `(D,)`. One sort, which puts NaN last."""
    if not len(values):
        return np.full(values.shape[1], nan)
    ordered = np.sort(values, axis=0)
    n = (~np.isnan(values)).sum(axis=0)
    low, high = (np.take_along_axis(ordered, np.maximum(i, 0)[None], axis=0)[0] for i in ((n - 1) // 2, n // 2))
    return np.where(n > 0, (low + high) / 2, nan)

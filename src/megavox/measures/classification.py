"""How well class probabilities match the reference, in numbers.

`single_label` is for tasks in which a case has exactly one class, `multi_label` for findings that
occur together and may be unknown (NaN). One rule holds for both: a class with fewer than 10
positive or 10 negative cases is *undefined*: its numbers are NaN, it is left out of the means, and
it is named with the reason. Two classes have one headline, that of the positive (last) class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan

import numpy as np

from megavox.core.errors import LabelError, MegavoxError
from megavox.measures.calibration import brier, expected_calibration_error
from megavox.measures.ranking import auroc, average_precision

FEWEST_CASES = 10  # positives, and negatives, that a class needs
CLASS_MEASURES = ("auroc", "average_precision", "sensitivity", "specificity", "precision")


@dataclass(frozen=True)
class ClassScore:
    """One class against the rest. NaN where `undefined` says why, or where it is 0/0.

    Attributes:
        name: the class.
        auroc: area under the ROC curve.
        average_precision: area under the precision-recall curve (chance is the prevalence).
        sensitivity: TP / (TP + FN).
        specificity: TN / (TN + FP).
        precision: TP / (TP + FP); NaN where the class is never predicted.
        prevalence: positives among the known cases.
        n_positive, n_negative: known cases of each kind.
        undefined: why the scores are NaN, or "".
    """

    name: str
    auroc: float
    average_precision: float
    sensitivity: float
    specificity: float
    precision: float
    prevalence: float
    n_positive: int
    n_negative: int
    undefined: str = ""


@dataclass(frozen=True)
class ClassificationScores:
    """A whole test set. Means are over defined classes; with two classes, the positive one.

    Attributes:
        n: cases.
        accuracy: right decisions among cases (single-label) or among known labels (multi-label).
        balanced_accuracy: mean over classes of sensitivity (single-label) or of the mean of
            sensitivity and specificity (multi-label).
        auroc, average_precision, sensitivity, specificity, precision: means, see `ClassScore`.
        ece: expected calibration error in 15 equal-mass bins.
        brier: Brier score.
        classes: one row a class.
        confusion: `(K, K)` counts, reference down and prediction across; None for multi-label.
    """

    n: int
    accuracy: float
    balanced_accuracy: float
    auroc: float
    average_precision: float
    sensitivity: float
    specificity: float
    precision: float
    ece: float
    brier: float
    classes: list[ClassScore]
    confusion: np.ndarray | None

    @property
    def undefined(self) -> dict[str, str]:
        """The classes left out of the means, with the reason."""
        return {row.name: row.undefined for row in self.classes if row.undefined}


def single_label(probabilities: np.ndarray, targets: np.ndarray, classes: Sequence[str],
                 threshold: float = 0.5, fewest: int = FEWEST_CASES) -> ClassificationScores:
    """Scores where every case has one class.

    Args:
        probabilities: `(N, K)`, K at least 2.
        targets: `(N,)` whole numbers from 0 to K - 1.
        classes: the K names; with two, the last is the positive class.
        threshold: with two classes, the positive one is predicted at or above this probability.
            With more, the most likely class is predicted.
        fewest: positives, and negatives, that a class needs to be defined.

    Raises:
        LabelError: a target that is no class.
        MegavoxError: probabilities that are not numbers from 0 to 1.
    """
    _check(probabilities, targets, classes)
    truth, called = decisions(probabilities, targets, [threshold])
    rows = class_table(probabilities, truth, called, classes, fewest)
    k = len(classes)
    confusion = np.bincount(targets.astype(np.intp) * k + called.argmax(axis=1), minlength=k * k).reshape(k, k)
    return ClassificationScores(
        n=len(targets), accuracy=accuracy(truth, called, False),
        ece=expected_calibration_error(probabilities, targets),
        brier=brier(probabilities, targets), classes=rows, confusion=confusion, **headline(rows, False))


def multi_label(probabilities: np.ndarray, targets: np.ndarray, classes: Sequence[str],
                thresholds: Sequence[float] | None = None, fewest: int = FEWEST_CASES) -> ClassificationScores:
    """Scores where a case has any number of labels.

    Args:
        probabilities: `(N, K)`.
        targets: `(N, K)` of 0, 1 and NaN for unknown.
        classes: the K names.
        thresholds: a label is predicted at or above its threshold; 0.5 for all if not given.
        fewest: positives, and negatives, that a label needs to be defined.

    Raises:
        LabelError: a target that is not 0, 1 or NaN.
        MegavoxError: probabilities that are not numbers from 0 to 1.
    """
    _check(probabilities, targets, classes)
    truth, called = decisions(probabilities, targets, thresholds)
    rows = class_table(probabilities, truth, called, classes, fewest)
    return ClassificationScores(
        n=len(targets), accuracy=accuracy(truth, called, True),
        ece=expected_calibration_error(probabilities, truth),
        brier=brier(probabilities, truth), classes=rows, confusion=None, **headline(rows, True))


def choose_threshold(probabilities: np.ndarray, targets: np.ndarray) -> float:
    """The threshold with the highest balanced accuracy, to be chosen on validation data.

    Maximises Youden's J = sensitivity + specificity - 1 (Youden 1950) over the midpoints between
    neighbouring scores; of equally good ones that nearest to 0.5, then the lower.

    Args:
        probabilities: `(N,)` of the positive class.
        targets: `(N,)` of 0, 1 and NaN (left out).

    Returns:
        A probability; 0.5 where no threshold is better than chance.
    """
    known = ~np.isnan(np.asarray(targets, dtype=np.float64))
    scores, positive = np.asarray(probabilities, dtype=np.float64)[known], np.asarray(targets)[known] > 0
    levels, which = np.unique(scores, return_inverse=True)
    if len(levels) < 2:
        return 0.5
    positives = np.bincount(which, weights=positive, minlength=len(levels)).astype(np.int64)
    negatives = np.bincount(which, minlength=len(levels)) - positives
    # Above each gap: J times both counts, in whole numbers so that ties are ties.
    missed, spared = np.cumsum(positives)[:-1], np.cumsum(negatives)[:-1]
    gain = spared * positives.sum() - missed * negatives.sum()
    if gain.max() <= 0:
        return 0.5
    middles = (levels[:-1] + levels[1:]) / 2
    middles = np.where(middles > levels[:-1], middles, levels[1:])  # neighbouring floats have no middle
    best = middles[gain == gain.max()]
    return float(best[np.argmin(np.abs(best - 0.5))])


def decisions(probabilities: np.ndarray, targets: np.ndarray,
              thresholds: Sequence[float] | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The targets as `(N, K)` of 0, 1 and NaN, and which classes are predicted, `(N, K)` booleans.

    Args:
        probabilities: `(N, K)`.
        targets: `(N,)` whole numbers (single-label) or `(N, K)` of 0, 1 and NaN (multi-label).
        thresholds: one for each label; for two classes of which a case has one, that of the last
            class only; not used for more. 0.5 if not given.
    """
    called = called_classes(probabilities, targets.ndim == 2, thresholds)
    if targets.ndim == 2:
        return targets.astype(np.float64), called
    return np.eye(probabilities.shape[1])[targets.astype(np.intp)], called


def called_classes(probabilities: np.ndarray, multilabel: bool,
                   thresholds: Sequence[float] | None = None) -> np.ndarray:
    """Which classes are predicted, `(N, K)` booleans; arguments as for `decisions`."""
    k = probabilities.shape[1]
    if multilabel:
        limits = np.full(k, 0.5) if thresholds is None else np.asarray(thresholds, dtype=np.float64)
        assert limits.shape == (k,), f"{k} labels need {k} thresholds"
        return probabilities >= limits
    assert k >= 2, "one class of which every case has one needs no classifier"
    if k == 2:
        predicted = (probabilities[:, 1] >= (0.5 if thresholds is None else thresholds[0])).astype(np.intp)
    else:
        predicted = probabilities.argmax(axis=1)
    return np.eye(k, dtype=bool)[predicted]


def class_table(probabilities: np.ndarray, truth: np.ndarray, called: np.ndarray, classes: Sequence[str],
                fewest: int = FEWEST_CASES) -> list[ClassScore]:
    """Each class against the rest, from `decisions`: all arrays `(N, K)`."""
    known = ~np.isnan(truth)
    return [_one_class(name, probabilities[known[:, k], k], truth[known[:, k], k] > 0, called[known[:, k], k],
                       fewest) for k, name in enumerate(classes)]


def accuracy(truth: np.ndarray, called: np.ndarray, multilabel: bool) -> float:
    """Right decisions among cases; for multi-label among known labels. Arrays of `decisions`."""
    right = ((truth > 0) == called)[~np.isnan(truth)] if multilabel else truth[called]
    return float(right.mean()) if len(right) else nan


def headline(rows: Sequence[ClassScore], multilabel: bool) -> dict[str, float]:
    """The means of a class table over its defined classes; with two classes, the positive one's."""
    defined = [row for row in rows if not row.undefined]
    counted = defined[-1:] if len(rows) == 2 and not multilabel else defined
    means = {name: _mean([getattr(row, name) for row in counted]) for name in CLASS_MEASURES}
    if multilabel:
        balanced = _mean([(row.sensitivity + row.specificity) / 2 for row in defined])
    else:  # the sensitivity of one class alone is no balance
        balanced = _mean([row.sensitivity for row in defined]) if len(defined) > 1 else nan
    return {"balanced_accuracy": balanced, **means}


def _check(probabilities: np.ndarray, targets: np.ndarray, classes: Sequence[str]) -> None:
    """Refuse probabilities and targets that cannot be scored; see `single_label`, `multi_label`."""
    assert probabilities.ndim == 2 and probabilities.shape[1] == len(classes), (probabilities.shape, classes)
    assert targets.shape in (probabilities.shape[:1], probabilities.shape), targets.shape
    wrong = np.any(~((probabilities >= 0) & (probabilities <= 1)), axis=1)
    if wrong.any():
        raise MegavoxError(f"the probabilities of {wrong.sum()} of {wrong.size} cases are not numbers from 0 "
                           f"to 1 (first: row {wrong.argmax()})", expected="probabilities",
                           fix="Look at these predictions: a model whose training diverged gives NaN")
    if targets.ndim == 1:
        allowed, expected = np.isin(targets, np.arange(len(classes))), f"0 to {len(classes) - 1}"
    else:
        allowed, expected = np.isin(targets, (0, 1)) | np.isnan(targets), "0, 1 or NaN for unknown"
    if not allowed.all():
        raise LabelError(f"targets that no class has: {np.unique(targets[~allowed])[:8].tolist()}",
                         expected=expected, fix="Name every class in the study")


def _one_class(name: str, scores: np.ndarray, positive: np.ndarray, called: np.ndarray,
               fewest: int) -> ClassScore:
    n, p, n_called = len(positive), int(np.count_nonzero(positive)), int(np.count_nonzero(called))
    true_positive = int(np.count_nonzero(positive & called))
    negative, prevalence = n - p, p / n if n else nan
    undefined = _why_undefined(p, negative, fewest)
    if undefined:
        return ClassScore(name, nan, nan, nan, nan, nan, prevalence, p, negative, undefined)
    return ClassScore(
        name, auroc(scores, positive), average_precision(scores, positive), sensitivity=true_positive / p,
        specificity=(negative - (n_called - true_positive)) / negative,
        precision=true_positive / n_called if n_called else nan, prevalence=prevalence,
        n_positive=p, n_negative=negative)


def _why_undefined(positive: int, negative: int, fewest: int) -> str:
    count, kind = min((positive, "positive"), (negative, "negative"))
    if count == 0:
        return f"no {kind} case"
    return f"{count} {kind} cases, fewer than {fewest}" if count < fewest else ""


def _mean(values: Sequence[float]) -> float:
    defined = [value for value in values if value == value]
    return sum(defined) / len(defined) if defined else nan

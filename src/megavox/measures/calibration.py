"""Whether a probability of 0.8 is right eight times in ten, and the temperature that mends it.

Bins hold equal numbers of cases ("equal mass"), with equal values in one bin, so the result does
not depend on the order of the cases. The calibration error is biased upwards in small samples: n
cases in 15 bins give even a perfect model an error near 0.8 sqrt(15 p (1 - p) / n).
"""

from __future__ import annotations

from math import nan

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

BINS = 15
TEMPERATURES = (0.02, 50.0)  # the range searched


def expected_calibration_error(probabilities: np.ndarray, targets: np.ndarray, bins: int = BINS) -> float:
    """Expected calibration error: mean over cases of |confidence - observed frequency| of their bin.

    Naeini et al. 2015 (doi 10.1609/aaai.v29i1.9602), with equal-mass bins (Nixon et al. 2019,
    arXiv:1904.01685).

    Args:
        probabilities: `(N, K)`.
        targets: `(N,)` whole numbers: single-label, the confidence is that of the top class. Or
            `(N, K)` of 0, 1 and NaN (unknown): the mean of the labels' errors.
        bins: number of bins.

    Returns:
        0 to 1; NaN with fewer cases than bins (labels with fewer known cases are left out).
    """
    if targets.ndim == 1:
        return _calibration_error(*top_label(probabilities, targets), bins)
    errors = [_calibration_error(scores, truth, bins) for scores, truth in _known(probabilities, targets)]
    defined = [error for error in errors if error == error]
    return float(np.mean(defined)) if defined else nan


def top_label(probabilities: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Confidence in the most likely class and whether it is the target, `(N,)` each."""
    top = probabilities.argmax(axis=1)
    return probabilities[np.arange(len(top)), top], (top == targets).astype(np.float64)


def reliability_curve(confidence: np.ndarray, correct: np.ndarray, bins: int = BINS) -> list[dict[str, float]]:
    """Points of the reliability plot.

    Args:
        confidence: `(N,)` probabilities.
        correct: `(N,)` of 0 and 1: whether what they promise happened.
        bins: number of equal-mass bins; ties can make it fewer.

    Returns:
        For each bin, by rising confidence: `confidence` (mean), `frequency` (observed) and `n`.
    """
    if not len(confidence):
        return []
    inner = np.quantile(confidence, np.arange(1, bins) / bins)
    which = np.searchsorted(inner, confidence, side="left")
    n = np.bincount(which, minlength=bins)
    sums = (np.bincount(which, weights=values, minlength=bins) for values in (confidence, correct))
    return [{"confidence": float(c / k), "frequency": float(f / k), "n": int(k)}
            for c, f, k in zip(*sums, n, strict=True) if k]


def brier(probabilities: np.ndarray, targets: np.ndarray) -> float:
    """Brier score: mean squared error of the probabilities (Brier 1950).

    Args:
        probabilities: `(N, K)`.
        targets: `(N,)` whole numbers: summed over classes (0 to 2), or for two classes that of the
            positive class (0 to 1), as scikit-learn. Or `(N, K)` of 0, 1 and NaN: the mean of the
            labels' scores (0 to 1).

    Returns:
        Lower is better; NaN without any known target.
    """
    if targets.ndim == 1:
        truth = targets[:, None] == np.arange(probabilities.shape[1])
        errors = ((probabilities - truth) ** 2).sum(axis=1)
        return float(errors.mean()) / (2 if probabilities.shape[1] == 2 else 1) if len(errors) else nan
    scores = [float(np.mean((p - t) ** 2)) for p, t in _known(probabilities, targets) if len(p)]
    return float(np.mean(scores)) if scores else nan


def fit_temperature(logits: np.ndarray, targets: np.ndarray) -> float:
    """The temperature T that makes `softmax(logits / T)`, or `sigmoid(logits / T)`, most likely.

    Temperature scaling (Guo et al. 2017, arXiv:1706.04599): it mends confidence and leaves the order
    of the cases as it is. Fit it on validation data. Multi-label tasks get one T for all labels, which
    the few positives of a rare label could not support by themselves.

    Args:
        logits: `(N, K)`.
        targets: `(N,)` whole numbers (softmax), or `(N, K)` of 0, 1 and NaN (sigmoid).

    Returns:
        T from 0.02 to 50; above 1 the model was too sure. 1.0 where the data cannot tell: no targets,
        or none of them wrong, when ever smaller temperatures are ever more likely.
    """
    logits = np.asarray(logits, dtype=np.float64)
    # By how much the truth beats each alternative: the likelihood depends on nothing else.
    if targets.ndim == 1:
        margins = logits[np.arange(len(targets)), targets.astype(np.intp)][:, None] - logits  # (N, K)
    else:
        known = ~np.isnan(targets)
        margins = np.where(targets[known] > 0, logits[known], -logits[known])[:, None]  # (known, 1)
        margins = np.concatenate([margins, np.zeros_like(margins)], axis=1)
    if (margins >= 0).all():
        return 1.0

    def loss(log_temperature: float) -> float:  # convex in 1/T, so it has one minimum
        return float(logsumexp(-margins * np.exp(-log_temperature), axis=1).mean())

    fit = minimize_scalar(loss, bounds=np.log(TEMPERATURES), method="bounded", options={"xatol": 1e-7})
    return float(np.exp(fit.x))


def _known(probabilities: np.ndarray, targets: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each label the probabilities and targets of the cases in which it is known."""
    known = ~np.isnan(targets)
    return [(probabilities[known[:, k], k], targets[known[:, k], k]) for k in range(targets.shape[1])]


def _calibration_error(confidence: np.ndarray, correct: np.ndarray, bins: int) -> float:
    if len(confidence) < bins:
        return nan
    points = reliability_curve(confidence, correct, bins)
    return sum(p["n"] * abs(p["confidence"] - p["frequency"]) for p in points) / len(confidence)

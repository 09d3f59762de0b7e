"""How well scores order cases: area under the ROC curve, average precision, points of the curve.

Written for the bootstrap, which calls them many thousand times; equal to scikit-learn's
`roc_auc_score` and `average_precision_score`, ties included.
"""

from __future__ import annotations

from math import nan

import numpy as np


def auroc(scores: np.ndarray, targets: np.ndarray) -> float:
    """Area under the ROC curve: the chance that a positive outscores a negative, ties counting half.

    The Mann-Whitney statistic (Hanley and McNeil 1982, doi 10.1148/radiology.143.1.7063747),
    summed in whole numbers.

    Args:
        scores: `(N,)`, higher means more likely positive.
        targets: `(N,)` of 0 and 1, or booleans.

    Returns:
        0 to 1, or NaN where positives or negatives are missing.
    """
    positive = np.asarray(targets, dtype=bool)
    above, below = scores[positive], np.sort(scores[~positive])
    if not len(above) or not len(below):
        return nan
    above = np.sort(above)  # sorted queries keep the binary searches in cache
    wins = below.searchsorted(above, "left").sum() + below.searchsorted(above, "right").sum()
    return float(wins) / (2 * len(above) * len(below))


def average_precision(scores: np.ndarray, targets: np.ndarray) -> float:
    """Area under the precision-recall curve as a step function: sum of (R_n - R_n-1) P_n.

    Args:
        scores: `(N,)`, higher means more likely positive.
        targets: `(N,)` of 0 and 1, or booleans.

    Returns:
        0 to 1 (chance is the prevalence), or NaN where there is no positive.
    """
    true, called = _cumulative(scores, targets)
    if not len(true) or not true[-1]:
        return nan
    return float(np.dot(np.diff(true, prepend=0), true / called) / true[-1])


def roc_points(scores: np.ndarray, targets: np.ndarray, most: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Points of the ROC curve from (0, 0) to (1, 1).

    Args:
        scores: `(N,)`, higher means more likely positive.
        targets: `(N,)` of 0 and 1, or booleans, with at least one of each.
        most: a longer curve is thinned to this many points, evenly along its length.

    Returns:
        False positive rate and sensitivity, each `(P,)` with P at most `most`.
    """
    true, called = _cumulative(scores, targets)
    sensitivity = np.concatenate([[0.0], true / true[-1]])
    false_rate = np.concatenate([[0.0], (called - true) / (called[-1] - true[-1])])
    if len(false_rate) > most:
        along = false_rate + sensitivity
        keep = np.unique(np.searchsorted(along, np.linspace(0, along[-1], most)))
        keep[-1] = len(along) - 1
        false_rate, sensitivity = false_rate[keep], sensitivity[keep]
    return false_rate, sensitivity


def _cumulative(scores: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positives and cases at or above each distinct score, from the highest score down."""
    order = np.argsort(scores)[::-1]
    ordered = scores[order]
    last = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))[:len(ordered)]
    return np.cumsum(np.asarray(targets)[order] > 0)[last], last + 1

"""Detection: which findings were found, at how many false positives a case.

The rules are those of LUNA16 (Setio 2017, doi 10.1016/j.media.2017.06.015, and its published evaluation): a candidate
finds a finding where it lies within its radius; of several the best counts and the others count for nothing; on an
excluded finding a candidate is neither right nor wrong; a finding that none found is in the denominator alone; cases
without candidates are cases.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import floor, inf, nan
from typing import Any

import numpy as np

from megavox.cohort.case import UNKNOWN_DIAMETER_MM

RATES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)  # false positives a case, of LUNA16's mean sensitivity
MOST_FALSE = 5.0  # false positives a case, up to which the area is taken


@dataclass(frozen=True)
class Marks:
    """One case, scored.

    Attributes:
        found: `(F,)`, the best score on each finding that counts; NaN where none was found.
        diameters_mm: `(F,)`, of the same findings; negative where unknown.
        false: `(N,)`, scores of the false positives.
    """

    found: np.ndarray
    diameters_mm: np.ndarray
    false: np.ndarray

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Marks:
        """From the same fields as plain lists, with None for what was not found."""
        return cls(*(np.array(row[name], dtype=float) for name in ("found", "diameters_mm", "false")))


@dataclass(frozen=True)
class Froc:
    """The curve, from (0, 0) with falling score.

    Attributes:
        false_rate: `(P,)`, false positives a case, not falling.
        sensitivity: `(P,)`, share of all findings; NaN where there are none.
    """

    false_rate: np.ndarray
    sensitivity: np.ndarray


def scored(centres_mm: np.ndarray, scores: np.ndarray, findings_mm: np.ndarray, diameters_mm: np.ndarray,
           counts: np.ndarray, most: int | None = None) -> Marks:
    """Compare the candidates of one case with its findings.

    Args:
        centres_mm: `(C, 3)`, of candidates.
        scores: `(C,)`, higher for surer.
        findings_mm: `(F, 3)`, centres in the same coordinates.
        diameters_mm: `(F,)`; a negative one is unknown and stands for 10 mm.
        counts: `(F,)` of booleans; a finding that does not count is excluded.
        most: candidates of a case at the most, those with the highest scores; of equals at the border none.
    """
    if most is not None and len(scores) > most:
        kept = scores > np.sort(scores)[::-1][most]
        centres_mm, scores = centres_mm[kept], scores[kept]
    counts = np.asarray(counts, dtype=bool)
    hit = hits(centres_mm, findings_mm, diameters_mm)
    best = np.where(hit, scores.reshape(-1, 1), -np.inf).max(axis=0, initial=-np.inf)
    found = np.where(hit.any(axis=0), best, nan)
    return Marks(found[counts], diameters_mm[counts], scores[~hit.any(axis=1)])


def hits(centres_mm: np.ndarray, findings_mm: np.ndarray, diameters_mm: np.ndarray) -> np.ndarray:
    """Which candidates lie within the radius of which findings, `(C, F)`; arguments as of `scored`."""
    radii_mm = np.where(diameters_mm < 0, UNKNOWN_DIAMETER_MM, diameters_mm) / 2
    apart = centres_mm.reshape(-1, 1, 3) - findings_mm.reshape(1, -1, 3)
    return np.asarray(np.square(apart).sum(axis=2) < np.square(radii_mm))


def froc(cases: Sequence[Marks], diameters_mm: tuple[float, float] = (-inf, inf)) -> Froc:
    """The curve over all cases; one sweep of the score, so that no threshold is chosen.

    Args:
        cases: at least one.
        diameters_mm: findings from the first up to below the second are looked for (one of unknown diameter where the
            first is negative); false positives are those of all.
    """
    low, high = diameters_mm
    found = np.concatenate([case.found[(low <= case.diameters_mm) & (case.diameters_mm < high)] for case in cases])
    hits, false = np.sort(found[~np.isnan(found)]), np.sort(np.concatenate([case.false for case in cases]))
    levels = np.unique(np.concatenate([hits, false]))[::-1]
    above = len(hits) - hits.searchsorted(levels, "left")
    wrong = len(false) - false.searchsorted(levels, "left")
    sensitivity = np.append(0.0, above / len(found)) if len(found) else np.full(len(levels) + 1, nan)
    return Froc(np.append(0.0, wrong / len(cases)), sensitivity)


def sensitivity_at(curve: Froc, rates: Iterable[float] = RATES) -> np.ndarray:
    """Sensitivity at each number of false positives a case: linear between points, of points at one number the
    highest, flat after the last."""
    wanted = np.asarray(list(rates), dtype=float)
    left = curve.false_rate.searchsorted(wanted, "right") - 1
    right = np.minimum(left + 1, len(curve.false_rate) - 1)
    width = curve.false_rate[right] - curve.false_rate[left]
    share = np.divide(wanted - curve.false_rate[left], width, out=np.zeros_like(wanted), where=width > 0)
    return curve.sensitivity[left] + share * (curve.sensitivity[right] - curve.sensitivity[left])


def mean_sensitivity(curve: Froc) -> float:
    """LUNA16's score: the mean over `RATES`."""
    return float(sensitivity_at(curve).mean())


def partial_area(curve: Froc, most: float = MOST_FALSE) -> float:
    """Area under the curve from 0 to `most` false positives a case, over `most`: 1 for a perfect detector.

    Linear between points, flat after the last one.
    """
    inside = curve.false_rate <= most
    x = np.append(curve.false_rate[inside], most)
    y = np.append(curve.sensitivity[inside], sensitivity_at(curve, [most]))
    return float(np.trapezoid(y, x) / most)


def border_at(cases: Sequence[Marks], rate: float) -> float:
    """The score above which, and not at which, at most `rate` false positives a case lie; -inf where all do."""
    false, most = np.concatenate([case.false for case in cases]), floor(rate * len(cases))
    return float(np.sort(false)[::-1][most]) if len(false) > most else -inf

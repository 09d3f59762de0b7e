"""FROC once more, after the published evaluation of LUNA16: loops, lists and scikit-learn's curve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from sklearn.metrics import roc_curve


@dataclass
class Case:
    candidates: list[tuple[float, tuple[float, float, float]]]  # score, centre
    findings: list[tuple[tuple[float, float, float], float, bool]]  # centre, diameter, counts


def curve(cases: Sequence[Case], most: int | None = None) -> tuple[list[float], list[float]]:
    """False positives a case and sensitivity, from (0, 0)."""
    truths, scores, missed = [], [], 0
    for case in cases:
        left = dict(enumerate(case.candidates))
        if most is not None and len(left) > most:
            border = sorted((score for score, _ in left.values()), reverse=True)[most]
            left = {name: one for name, one in left.items() if one[0] > border}
        all_ = dict(left)
        for centre, diameter, counts in case.findings:
            radius = (10.0 if diameter < 0 else diameter) / 2
            hits = [name for name, (_, place) in all_.items()
                    if sum((a - b) ** 2 for a, b in zip(centre, place, strict=True)) < radius**2]
            for name in hits:
                left.pop(name, None)
            if counts and hits:
                truths.append(1)
                scores.append(max(all_[name][0] for name in hits))
            elif counts:
                missed += 1
        for score, _ in left.values():
            truths.append(0)
            scores.append(score)
    lesions, found = sum(truths) + missed, sum(truths)
    false = len(truths) - found
    if not scores:
        return [0.0], [0.0]
    if not found:
        rates = sorted({sum(s >= level for s in scores) / len(cases) for level in scores})
        return [0.0, *rates], [0.0] * (1 + len(rates))
    if not false:
        return [0.0] * (1 + len(set(scores))), [0.0, *(sum(s >= level for s in scores) / lesions
                                                       for level in sorted(set(scores), reverse=True))]
    false_rate, true_rate, _ = roc_curve(truths, scores, drop_intermediate=False)
    return [rate * false / len(cases) for rate in false_rate], [rate * found / lesions for rate in true_rate]


def at(points: tuple[list[float], list[float]], rate: float) -> float:
    """Sensitivity at a number of false positives a case."""
    known = sorted(zip(*points, strict=True))
    before = [point for point in known if point[0] <= rate]
    after = [point for point in known if point[0] > rate]
    (x0, y0), (x1, y1) = before[-1], after[0] if after else (float("inf"), before[-1][1])
    return y0 if not after else y0 + (rate - x0) / (x1 - x0) * (y1 - y0)


def area(points: tuple[list[float], list[float]], most: float) -> float:
    """Area up to a number of false positives a case, over that number."""
    known = [point for point in sorted(zip(*points, strict=True)) if point[0] <= most]
    known.append((most, at(points, most)))
    return sum((x1 - x0) * (y0 + y1) / 2 for (x0, y0), (x1, y1) in pairwise(known)) / most

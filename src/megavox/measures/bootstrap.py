"""Intervals of any statistic by resampling subjects, not images.

Images of one subject resemble each other, so an interval that resamples images is too narrow. Here
whole subjects are drawn with replacement and bring all their rows (cluster bootstrap: Davison and
Hinkley 1997, Bootstrap Methods and their Application, section 3.8); intervals are percentiles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import nan

import numpy as np

from megavox.core.randomness import generator

FEWEST_SUBJECTS = 5  # below this, resamples are too alike for an interval to mean anything


@dataclass(frozen=True)
class Interval:
    """A confidence interval.

    Attributes:
        low, high: its ends, NaN where it is undefined.
        n_subjects: subjects that were resampled.
        n_defined: resamples in which the statistic was defined; the others were dropped.
        undefined: why there is no interval, or "".
    """

    low: float
    high: float
    n_subjects: int
    n_defined: int
    undefined: str = ""


def subject_bootstrap(statistic: Callable[[np.ndarray], float], subjects: Sequence[str] | np.ndarray,
                      n: int = 1000, *, seed: int, level: float = 0.95) -> Interval:
    """Interval of one number.

    Args:
        statistic: from row indices `(M,)`, with repeats, to a number; NaN where undefined.
        subjects: `(N,)`, whose row each is.
        n: resamples.
        seed: the same seed draws the same resamples for every statistic, so comparisons are paired.
        level: coverage of the interval.
    """
    return bootstrap_table(lambda rows: {"": statistic(rows)}, subjects, n, seed=seed, level=level)[""]


def bootstrap_table(statistics: Callable[[np.ndarray], Mapping[str, float]],
                    subjects: Sequence[str] | np.ndarray, n: int = 1000, *, seed: int,
                    level: float = 0.95) -> dict[str, Interval]:
    """Intervals of many numbers at once, from the same resamples.

    Args:
        statistics: from row indices `(M,)`, with repeats, to named numbers; NaN where undefined.
            The names must be the same every time.
        subjects, n, seed, level: as for `subject_bootstrap`.
    """
    assert n > 0 and 0 < level < 1
    groups = _rows_by_subject(subjects)
    if len(groups) < FEWEST_SUBJECTS:
        reason = f"fewer than {FEWEST_SUBJECTS} subjects"
        return {name: Interval(nan, nan, len(groups), 0, reason) for name in statistics(np.arange(len(subjects)))}
    samples = [dict(statistics(rows)) for rows in _resamples(groups, n, seed)]
    return {name: _interval(np.array([sample[name] for sample in samples]), len(groups), level)
            for name in samples[0]}


def _rows_by_subject(subjects: Sequence[str] | np.ndarray) -> list[np.ndarray]:
    """Row indices of each subject, ordered by subject, so that row order does not matter."""
    if not len(subjects):
        return []
    _, owner, counts = np.unique(np.asarray(subjects), return_inverse=True, return_counts=True)
    return np.split(np.argsort(owner, kind="stable"), np.cumsum(counts)[:-1])


def _resamples(groups: list[np.ndarray], n: int, seed: int) -> Iterator[np.ndarray]:
    random = generator(seed, "bootstrap")
    for _ in range(n):
        yield np.concatenate([groups[i] for i in random.integers(len(groups), size=len(groups))])


def _interval(values: np.ndarray, n_subjects: int, level: float) -> Interval:
    defined = values[np.isfinite(values)]
    if 2 * len(defined) < len(values):
        return Interval(nan, nan, n_subjects, len(defined), "undefined in most resamples")
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high), n_subjects, len(defined))

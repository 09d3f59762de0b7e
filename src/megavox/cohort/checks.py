"""Checks that need the whole cohort: one image under two subjects, intensities unlike the others'."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from megavox.cohort.case import Case, Rejected

FAR = 8.0  # robust deviations of the log range beyond which an image is an outlier


def duplicates(cases: Sequence[Case], images: Sequence[str], masks: Sequence[str]) -> list[Rejected]:
    """Copies of one image.

    The first case of a set of equal ones is kept when all have one target; when their targets differ
    none can be trusted and all are set aside.

    Args:
        cases: to compare.
        images, masks: hashes of the voxels of each; "" for a case without a mask.
    """
    groups: dict[str, list[Case]] = defaultdict(list)
    targets: dict[str, set[object]] = defaultdict(set)
    for case, image, mask in zip(cases, images, masks, strict=True):
        groups[image].append(case)
        targets[image].add((_target(case), mask))
    rejected = []
    for image, group in groups.items():
        if len(group) < 2:
            continue
        conflict = len(targets[image]) > 1
        for case in group if conflict else group[1:]:
            other = next(c for c in group if c is not case)
            text = f"The image has the same voxels as that of case {other.name} (subject {other.subject})"
            text += " and another target; neither can be trusted." if conflict else "; the first is kept."
            rejected.append(Rejected(case.name, case.subject, str(case.images[0][0]), "duplicate", text))
    return rejected


def _target(case: Case) -> tuple[object, ...]:
    """What a case's target says, in whatever order its classes and findings are named."""
    return (None if case.labels is None else frozenset(case.labels), frozenset(case.unknown),
            None if case.findings is None else frozenset(case.findings))


def outliers(ranges: Sequence[float]) -> list[tuple[int, float]]:
    """Cases whose intensity range is far from the cohort's.

    Args:
        ranges: 99.5 minus 0.5 percentile of each case.

    Returns:
        `(index, factor)`: how many times the cohort's median the range is. A case is far when the
        logarithm of its range lies more than `FAR` robust deviations (1.4826 MAD, at least 10 %)
        from the median.
    """
    logs = np.log(np.maximum(np.asarray(ranges, float), 1e-12))
    if len(logs) < 5:
        return []
    middle = np.median(logs)
    spread = max(1.4826 * float(np.median(np.abs(logs - middle))), 0.1)
    return [(int(i), float(np.exp(logs[i] - middle))) for i in np.flatnonzero(np.abs(logs - middle) > FAR * spread)]

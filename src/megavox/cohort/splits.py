"""Dealing subjects to parts: seeded, stratified, and never one subject on two sides."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from megavox.core.errors import CohortError
from megavox.core.randomness import generator

PARTS = ("train", "validation", "test")


def deal(subjects: Sequence[str], strata: np.ndarray, shares: Mapping[str, float], seed: int) -> list[str]:
    """Deal cases to parts so that every part has its share of the cases and of each stratum.

    Subjects are taken in a seeded random order, those with most cases first; each goes to the part
    whose shortage it reduces most, summed over strata (greedy grouped stratification, after
    Sechidis 2011, "On the stratification of multi-label data"). When no more subjects are left than
    there are parts without any, each of these parts gets one: a share above zero is never left empty
    where there are subjects enough.

    Args:
        subjects: subject of each case, `(N,)`.
        strata: `(N, S)` 0/1: which strata (classes) each case belongs to.
        shares: part -> share of the cases; they sum to one.
        seed: picks the order.

    Returns:
        The part of each case.
    """
    groups: dict[str, list[int]] = defaultdict(list)
    for index, subject in enumerate(subjects):
        groups[subject].append(index)
    names = sorted(groups)
    order = generator(seed, "split").permutation(len(names))
    members = np.column_stack([np.ones(len(subjects)), strata])  # the first stratum: every case
    totals = np.maximum(members.sum(axis=0), 1)
    parts = list(shares)
    wanted = np.array([shares[part] for part in parts])[:, None] * members.sum(axis=0)
    missing = wanted.copy()
    weight = 1 / totals  # a rare class counts as much as a frequent one
    dealt = [""] * len(subjects)
    empty = {p for p, part in enumerate(parts) if shares[part] > 0}
    for left, number in zip(range(len(names), 0, -1), sorted(order, key=lambda i: -len(groups[names[i]])),
                            strict=True):
        cases = groups[names[number]]
        gain = members[cases].sum(axis=0)
        choice = sorted(empty) if left <= len(empty) else range(len(parts))
        cost = [((missing[p] - gain) ** 2 * weight / np.maximum(wanted[p], 1e-9)).sum()
                - (missing[p] ** 2 * weight / np.maximum(wanted[p], 1e-9)).sum() for p in choice]
        best = choice[int(np.argmin(cost))]
        missing[best] -= gain
        empty.discard(best)
        for case in cases:
            dealt[case] = parts[best]
    return dealt


def split(subjects: Sequence[str], strata: np.ndarray, *, test: float, validation: float,
          folds: int | None, fold: int, seed: int) -> list[str]:
    """Part of each case: `train`, `validation` or `test`.

    With `folds`, fold number `fold` of as many equal parts is the test part, and validation is taken
    from the rest.

    Raises:
        CohortError: too few subjects to fill the parts.
    """
    if folds is None:
        parts = deal(subjects, strata, {"train": 1 - test - validation, "validation": validation, "test": test}, seed)
    else:
        numbers = deal(subjects, strata, {str(k): 1 / folds for k in range(folds)}, seed)
        rest = [index for index, number in enumerate(numbers) if number != str(fold)]
        parts = ["test"] * len(subjects)
        inner = deal([subjects[i] for i in rest], strata[rest],
                     {"train": 1 - validation, "validation": validation}, seed + fold + 1)
        for index, part in zip(rest, inner, strict=True):
            parts[index] = part
    needed = [part for part in PARTS if part != "test" or test > 0 or folds is not None]
    empty = [part for part in needed if part not in parts]
    if empty:
        raise CohortError(f"{len(set(subjects))} subjects are too few: nothing left for {' and '.join(empty)}",
                          fix="Add subjects, or change split.test and split.validation")
    refuse_shared_subjects(subjects, parts)
    return parts


def refuse_shared_subjects(subjects: Sequence[str], parts: Sequence[str]) -> None:
    """Refuse a split in which a subject stands on two sides.

    Raises:
        CohortError: naming the subjects (at most five).
    """
    sides: dict[str, set[str]] = defaultdict(set)
    for subject, part in zip(subjects, parts, strict=True):
        sides[subject].add(part)
    shared = sorted(subject for subject, where in sides.items() if len(where) > 1)
    if shared:
        raise CohortError(f"{len(shared)} subjects stand in more than one part, e.g. {', '.join(shared[:5])}",
                          expected="every subject in one part only", where="splits.json",
                          fix="Remove splits.json and run `megavox pack` again")

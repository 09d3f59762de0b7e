"""Splits for any cohort: by subject, by seed, with the right shares, and folds that are a partition."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from megavox.cohort.splits import deal, refuse_shared_subjects, split
from megavox.core.errors import CohortError


@st.composite
def cohorts(draw: st.DrawFn, fewest: int = 12, most_visits: int = 4) -> tuple[list[str], np.ndarray]:
    """Subjects with some visits each, and the classes (0 to 3) of every case."""
    count = draw(st.integers(fewest, 60))
    visits = draw(st.lists(st.integers(1, most_visits), min_size=count, max_size=count))
    subjects = [f"s{number}" for number, times in enumerate(visits) for _ in range(times)]
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    order = rng.permutation(len(subjects))
    share = draw(st.lists(st.floats(0.1, 0.9), max_size=3))
    strata = rng.random((len(subjects), len(share))) < share
    return [subjects[i] for i in order], strata.astype(float)


seeds = st.integers(0, 2**31)


@given(cohorts(), seeds, st.floats(0.1, 0.4), st.floats(0.1, 0.4))
def test_parts_are_disjoint_by_subject_complete_and_of_their_shares(cohort, seed, test, validation):
    subjects, strata = cohort
    parts = split(subjects, strata, test=test, validation=validation, folds=None, fold=0, seed=seed)
    assert len(parts) == len(subjects) and set(parts) == {"train", "validation", "test"}
    sides = {subject: {p for s, p in zip(subjects, parts, strict=True) if s == subject} for subject in subjects}
    assert all(len(side) == 1 for side in sides.values())
    largest = max(Counter(subjects).values())
    for part, share in (("train", 1 - test - validation), ("validation", validation), ("test", test)):
        assert abs(parts.count(part) - share * len(subjects)) <= 2 * largest + 0.05 * len(subjects), part


@given(cohorts(), seeds)
def test_a_split_depends_on_its_seed_alone(cohort, seed):
    subjects, strata = cohort
    settings = {"test": 0.2, "validation": 0.2, "folds": None, "fold": 0}
    parts = split(subjects, strata, seed=seed, **settings)
    assert parts == split(list(subjects), strata.copy(), seed=seed, **settings)
    others = [split(subjects, strata, seed=seed + n, **settings) for n in range(1, 5)]
    assert any(parts != other for other in others)


@given(cohorts(), seeds, st.randoms(use_true_random=False))
def test_without_strata_the_order_of_rows_does_not_matter(cohort, seed, random):
    subjects = cohort[0]
    where = {}
    for _ in range(2):
        none = np.zeros((len(subjects), 0))
        parts = split(subjects, none, test=0.2, validation=0.2, folds=None, fold=0, seed=seed)
        where = where or dict(zip(subjects, parts, strict=True))
        assert where == dict(zip(subjects, parts, strict=True))
        random.shuffle(subjects)


@given(st.integers(60, 120), st.integers(1, 3), st.floats(0.15, 0.5), seeds)
def test_every_part_has_its_share_of_a_class(count, classes, share, seed):
    rng = np.random.default_rng(seed)
    strata = (rng.random((count, classes)) < share).astype(float)
    assume(strata.sum(axis=0).min() >= 8)
    parts = np.array(split([f"s{n}" for n in range(count)], strata, test=0.25, validation=0.25, folds=None, fold=0,
                           seed=seed))
    for part, wanted in (("train", 0.5), ("validation", 0.25), ("test", 0.25)):
        got = strata[parts == part].sum(axis=0)
        assert (np.abs(got - wanted * strata.sum(axis=0)) <= 2.5).all(), (part, got, wanted * strata.sum(axis=0))


def test_stratified_is_nearer_than_by_chance():
    rng = np.random.default_rng(0)
    strata = (rng.random((200, 1)) < 0.1).astype(float)
    subjects = [f"s{n}" for n in range(200)]

    def spread(classes: np.ndarray) -> float:
        counts = []
        for seed in range(20):
            parts = np.array(split(subjects, classes, test=0.2, validation=0.2, folds=None, fold=0, seed=seed))
            counts.append(strata[parts == "test"].sum())
        return float(np.std(counts))

    assert spread(strata) < 0.5 < 1.0 < spread(np.zeros((200, 0)))


@settings(max_examples=40)
@given(cohorts(fewest=20), seeds, st.integers(2, 6))
def test_every_case_is_tested_in_exactly_one_fold(cohort, seed, folds):
    subjects, strata = cohort
    times = np.zeros(len(subjects), int)
    sizes = []
    for fold in range(folds):
        parts = np.array(split(subjects, strata, test=0.2, validation=0.15, folds=folds, fold=fold, seed=seed))
        assert set(parts) == {"train", "validation", "test"}
        refuse_shared_subjects(subjects, parts.tolist())
        times += parts == "test"
        sizes.append((parts == "test").sum())
    assert (times == 1).all()
    largest = max(Counter(subjects).values())
    assert max(sizes) - min(sizes) <= 2 * largest + 0.1 * len(subjects)


@given(cohorts(), seeds, st.lists(st.floats(0.05, 1), min_size=1, max_size=5))
def test_dealing_keeps_subjects_together_for_any_shares(cohort, seed, weights):
    subjects, strata = cohort
    shares = {str(n): weight / sum(weights) for n, weight in enumerate(weights)}
    dealt = deal(subjects, strata, shares, seed)
    assert set(dealt) <= set(shares)
    refuse_shared_subjects(subjects, dealt)


@given(st.integers(1, 6), seeds)
def test_no_part_for_a_share_of_zero(count, seed):
    subjects = [f"s{n}" for n in range(count * 4)]
    parts = split(subjects, np.zeros((count * 4, 0)), test=0.0, validation=0.3, folds=None, fold=0, seed=seed)
    assert set(parts) == {"train", "validation"}


@given(cohorts(), seeds, st.data())
def test_a_subject_on_two_sides_is_refused_and_named(cohort, seed, data):
    subjects, strata = cohort
    parts = split(subjects, strata, test=0.2, validation=0.2, folds=None, fold=0, seed=seed)
    refuse_shared_subjects(subjects, parts)
    twice = [subject for subject, count in Counter(subjects).items() if count > 1]
    assume(twice)
    subject = data.draw(st.sampled_from(sorted(twice)))
    at = subjects.index(subject)
    parts[at] = next(part for part in ("train", "test") if part != parts[at])
    with pytest.raises(CohortError, match=rf"1 subjects .* e\.g\. {subject}\b"):
        refuse_shared_subjects(subjects, parts)


@pytest.mark.parametrize("count", [1, 2])
def test_too_few_subjects_are_refused(count):
    with pytest.raises(CohortError, match=f"{count} subjects are too few: nothing left for"):
        split([f"s{n % count}" for n in range(9)], np.zeros((9, 0)), test=0.2, validation=0.2, folds=None, fold=0,
              seed=0)
    with pytest.raises(CohortError, match="too few"):
        split(["a", "b", "c"], np.zeros((3, 0)), test=0.2, validation=0.2, folds=5, fold=4, seed=0)

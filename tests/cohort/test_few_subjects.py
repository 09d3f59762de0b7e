"""Splits of very small cohorts: every part that has a share gets a subject while there are enough."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from megavox.cohort.splits import deal, refuse_shared_subjects, split
from megavox.core.errors import CohortError

seeds = st.integers(0, 2**31)


@st.composite
def visits(draw: st.DrawFn, fewest: int, most: int = 8) -> tuple[list[str], np.ndarray]:
    """Subjects of 1 to 9 cases each, and a class of every case."""
    times = draw(st.lists(st.integers(1, 9), min_size=fewest, max_size=most))
    subjects = [f"s{number}" for number, count in enumerate(times) for _ in range(count)]
    strata = draw(st.lists(st.booleans(), min_size=len(subjects), max_size=len(subjects)))
    return subjects, np.array(strata, float)[:, None]


@given(visits(fewest=3), st.floats(0.01, 0.45), st.floats(0.01, 0.45), seeds)
def test_three_subjects_fill_three_parts(cohort: tuple[list[str], np.ndarray], test: float, validation: float,
                                         seed: int) -> None:
    subjects, strata = cohort
    parts = split(subjects, strata, test=test, validation=validation, folds=None, fold=0, seed=seed)
    assert set(parts) == {"train", "validation", "test"}
    refuse_shared_subjects(subjects, parts)


@pytest.mark.parametrize("seed", range(10))
def test_the_default_shares_do_with_three_subjects(seed: int) -> None:
    parts = split(["a", "b", "c"], np.zeros((3, 0)), test=0.2, validation=0.15, folds=None, fold=0, seed=seed)
    assert sorted(parts) == ["test", "train", "validation"]


@given(visits(fewest=3), st.floats(0.01, 0.45), st.data(), seeds)
def test_folds_too(cohort: tuple[list[str], np.ndarray], validation: float, data: st.DataObject, seed: int) -> None:
    subjects, strata = cohort
    count = len(set(subjects))
    folds = data.draw(st.integers(3, count))  # of two folds one may leave a single subject for two parts
    tested = np.zeros(len(subjects), int)
    for fold in range(folds):
        parts = split(subjects, strata, test=0.2, validation=validation, folds=folds, fold=fold, seed=seed)
        assert set(parts) == {"train", "validation", "test"}
        refuse_shared_subjects(subjects, parts)
        tested += np.array(parts) == "test"
    assert (tested == 1).all()


@given(visits(fewest=1), st.lists(st.floats(0.01, 1), min_size=1, max_size=8), seeds)
def test_as_many_parts_are_filled_as_there_are_subjects_for(cohort: tuple[list[str], np.ndarray],
                                                            weights: list[float], seed: int) -> None:
    subjects, strata = cohort
    shares = {str(number): weight / sum(weights) for number, weight in enumerate(weights)}
    dealt = deal(subjects, strata, shares, seed)
    assert len(set(dealt)) >= min(len(set(subjects)), len(shares))


def test_a_share_of_zero_gets_nobody() -> None:
    dealt = deal(["a", "b", "c"], np.zeros((3, 0)), {"train": 0.9, "validation": 0.1, "test": 0.0}, 0)
    assert set(dealt) == {"train", "validation"}


def test_fewer_subjects_than_parts_are_still_refused() -> None:
    with pytest.raises(CohortError, match="2 subjects are too few: nothing left for"):
        split(["a", "b", "b"], np.zeros((3, 0)), test=0.2, validation=0.15, folds=None, fold=0, seed=0)

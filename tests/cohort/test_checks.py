"""Checks of the whole cohort: copies of an image, and intensities unlike the others'."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from megavox.cohort.case import Case
from megavox.cohort.checks import FAR, duplicates, outliers


def case(name: str, labels: tuple[str, ...] | None = None, unknown: tuple[str, ...] = ()) -> Case:
    return Case(name, f"subject of {name}", "", ((Path(f"{name}.nii"),),), labels=labels, unknown=unknown)


def test_of_equal_images_the_first_is_kept():
    found = duplicates([case(name) for name in "abcde"], ["1", "2", "1", "3", "1"], [""] * 5)
    assert [(one.case, one.subject, one.file, one.reason) for one in found] == [
        ("c", "subject of c", "c.nii", "duplicate"), ("e", "subject of e", "e.nii", "duplicate")]
    assert all("case a (subject subject of a)" in one.message and "first is kept" in one.message for one in found)


@pytest.mark.parametrize("other", [{"labels": ("ill",)}, {"labels": ("well", "ill")}, {"labels": None},
                                   {"labels": ("well",), "unknown": ("ill",)}])
def test_of_equal_images_with_different_targets_none_is_kept(other):
    found = duplicates([case("a", ("well",)), case("b", **other), case("c", ("well",))], ["1", "1", "1"], [""] * 3)
    assert [one.case for one in found] == ["a", "b", "c"]
    assert "case b" in found[0].message and all("neither can be trusted" in one.message for one in found)


def test_the_order_of_classes_is_no_difference():
    found = duplicates([case("a", ("x", "y"), ("u", "v")), case("b", ("y", "x"), ("v", "u"))], ["1", "1"], ["", ""])
    assert [one.case for one in found] == ["b"] and "first is kept" in found[0].message


def test_two_masks_of_one_image_are_a_conflict():
    found = duplicates([case("a"), case("b")], ["1", "1"], ["this", "that"])
    assert [one.case for one in found] == ["a", "b"]


def test_different_images_are_no_copies():
    assert duplicates([case(name) for name in "abc"], ["1", "2", "3"], [""] * 3) == []


def test_an_intensity_range_far_from_the_rest_is_found_with_its_factor():
    ranges = 1000 * np.random.default_rng(0).uniform(0.9, 1.1, 31)
    ranges[4], ranges[11] = 1e6, 1.0
    found = dict(outliers(ranges.tolist()))
    assert set(found) == {4, 11}
    middle = np.median(ranges)
    assert found[4] == pytest.approx(1e6 / middle) and found[11] == pytest.approx(1 / middle)


def test_the_limit_is_a_number_of_robust_deviations_and_at_least_ten_percent():
    same = [100.0] * 9
    limit = np.exp(FAR * 0.1)
    assert outliers([*same, 100 * limit * 0.99]) == [] and outliers([*same, 100 / limit * 1.01]) == []
    assert [index for index, _ in outliers([*same, 100 * limit * 1.01])] == [9]
    assert [index for index, _ in outliers([*same, 100 / limit * 0.99])] == [9]
    wide = np.exp(np.random.default_rng(1).normal(0, 0.5, 400))
    assert outliers(wide.tolist()) == [], "a broad cohort has no outliers"
    assert outliers([*wide, np.exp(0.5 * FAR * 0.85)]) == []
    assert [index for index, _ in outliers([*wide, np.exp(0.5 * FAR * 1.15)])] == [400]


def test_a_range_of_zero_is_far_and_few_cases_are_not_judged():
    assert [index for index, _ in outliers([10.0, 11, 12, 10, 11, 0.0])] == [5]
    assert outliers([1.0, 1.0, 1.0, 1e9]) == [] and outliers([]) == []

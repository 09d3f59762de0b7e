"""Rules of the classification scores: undefined classes, thresholds, unknown labels, refusals."""

from __future__ import annotations

from math import isnan

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megavox.core.errors import LabelError, MegavoxError
from megavox.measures.calibration import (
    expected_calibration_error,
    fit_temperature,
    reliability_curve,
    top_label,
)
from megavox.measures.classification import choose_threshold, multi_label, single_label


def softmax(logits: np.ndarray) -> np.ndarray:
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shares / shares.sum(axis=1, keepdims=True)


def test_rare_and_absent_classes_are_undefined_named_and_left_out_of_means():
    rng = np.random.default_rng(0)
    targets = np.repeat([0, 1, 2], [60, 40, 9])
    probabilities = softmax(rng.normal(size=(109, 4)) + np.eye(4)[targets])
    scores = single_label(probabilities, targets, ["a", "b", "rare", "absent"])
    assert scores.undefined == {"rare": "9 positive cases, fewer than 10", "absent": "no positive case"}
    a, b, rare, absent = scores.classes
    assert scores.auroc == (a.auroc + b.auroc) / 2
    assert scores.balanced_accuracy == (a.sensitivity + b.sensitivity) / 2
    assert isnan(rare.auroc) and isnan(rare.sensitivity) and isnan(absent.average_precision)
    assert scores.confusion is not None and scores.confusion.sum(axis=1).tolist() == [60, 40, 9, 0]
    assert single_label(probabilities, targets, ["a", "b", "rare", "absent"], fewest=9).undefined == {
        "absent": "no positive case"}


def test_too_few_negatives_are_undefined_too():
    targets = np.ones(50)[:, None]
    targets[:9] = 0
    scores = multi_label(np.linspace(0, 1, 50)[:, None], targets, ["finding"])
    assert scores.undefined == {"finding": "9 negative cases, fewer than 10"}
    assert isnan(scores.auroc) and isnan(scores.balanced_accuracy)
    assert scores.accuracy == pytest.approx(((np.linspace(0, 1, 50) >= 0.5) == targets[:, 0]).mean())


def test_one_defined_class_is_no_balance():
    targets = np.repeat([0, 1, 2], [30, 5, 5])
    scores = single_label(softmax(np.eye(3)[targets]), targets, ["a", "b", "c"])
    assert set(scores.undefined) == {"a", "b", "c"} - {"a"} and isnan(scores.balanced_accuracy)


def test_threshold_moves_the_decision_of_two_classes():
    probability = np.linspace(0, 1, 41)
    probabilities = np.stack([1 - probability, probability], axis=1)
    targets = (probability >= 0.25).astype(int)
    half, quarter = (single_label(probabilities, targets, ["no", "yes"], t) for t in (0.5, 0.25))
    assert quarter.accuracy == quarter.sensitivity == quarter.specificity == 1
    assert half.sensitivity == pytest.approx(21 / 31)
    assert half.auroc == quarter.auroc == half.classes[1].auroc


def test_never_predicted_class_has_no_precision():
    targets = np.repeat([0, 1], [20, 20])
    scores = single_label(np.tile([0.9, 0.1], (40, 1)), targets, ["no", "yes"])
    assert isnan(scores.precision) and scores.sensitivity == 0 and scores.auroc == 0.5
    assert scores.balanced_accuracy == 0.5


def test_unknown_labels_do_not_matter():
    rng = np.random.default_rng(1)
    targets = rng.integers(0, 2, (80, 2)).astype(float)
    targets[:30, 0] = np.nan
    probabilities = rng.random((80, 2))
    other = probabilities.copy()
    other[:30, 0] = rng.random(30)
    ours, same = (multi_label(p, targets, ["a", "b"]) for p in (probabilities, other))
    assert ours == same


def test_what_cannot_be_scored_is_refused():
    good, targets = np.full((4, 2), 0.5), np.array([0, 1, 0, 1])
    with pytest.raises(MegavoxError, match=r"1 of 4 cases.*row 2"):
        single_label(np.where(np.arange(4)[:, None] == 2, np.nan, good), targets, ["a", "b"])
    with pytest.raises(MegavoxError, match="4 of 4"):
        multi_label(good + 1, np.zeros((4, 2)), ["a", "b"])
    with pytest.raises(LabelError, match=r"\[2\].*0 to 1"):
        single_label(good, targets * 2, ["a", "b"])
    with pytest.raises(LabelError, match=r"0, 1 or NaN"):
        multi_label(good, np.full((4, 2), -1.0), ["a", "b"])


def test_threshold_ties_and_edges():
    assert choose_threshold(np.array([0.1, 0.9]), np.array([0, 1])) == 0.5
    assert choose_threshold(np.array([0.1, 0.2, 0.7]), np.array([0, 1, 1])) == pytest.approx(0.15)
    # Both gaps reach J = 1/2; 0.45 is nearer to 0.5 than 0.15.
    assert choose_threshold(np.array([0.1, 0.2, 0.3, 0.6]), np.array([0, 1, 0, 1])) == pytest.approx(0.45)
    assert choose_threshold(np.array([0.9, 0.1]), np.array([0, 1])) == 0.5  # worse than chance
    assert choose_threshold(np.array([0.3, 0.3]), np.array([0, 1])) == 0.5
    assert choose_threshold(np.array([0.3, 0.4]), np.array([1, 1])) == 0.5
    assert choose_threshold(np.array([0.1, 0.2, 0.8]), np.array([0, np.nan, 1])) == pytest.approx(0.45)
    a = 0.3
    b = np.nextafter(a, 1)
    c = np.nextafter(b, 1)
    for low, high in ((a, b), (b, c)):  # neighbouring numbers: one of the two middles rounds down
        assert choose_threshold(np.array([low, high]), np.array([0, 1])) == high


@settings(max_examples=50)
@given(st.integers(15, 80), st.integers(0, 2**32 - 1))
def test_calibration_does_not_depend_on_the_order_of_cases(n, seed):
    rng = np.random.default_rng(seed)
    probabilities = np.round(rng.dirichlet([1, 1, 1], n), 1)  # many ties
    targets = rng.integers(0, 3, n)
    order = rng.permutation(n)
    shuffled = expected_calibration_error(probabilities[order], targets[order])
    assert shuffled == pytest.approx(expected_calibration_error(probabilities, targets), abs=1e-12)
    points = reliability_curve(*top_label(probabilities, targets))
    assert sum(point["n"] for point in points) == n and len(points) <= 15
    assert np.all(np.diff([point["confidence"] for point in points]) > 0)


def test_calibration_without_enough_cases_is_undefined():
    assert isnan(expected_calibration_error(np.full((14, 2), 0.5), np.zeros(14, int)))
    assert isnan(expected_calibration_error(np.full((14, 1), 0.5), np.zeros((14, 1))))
    assert reliability_curve(np.zeros(0), np.zeros(0)) == []


def test_temperature_of_data_that_cannot_tell_is_one():
    targets = np.array([0, 1, 2])
    assert fit_temperature(np.eye(3)[targets], targets) == 1.0  # all right: no minimum
    assert fit_temperature(np.zeros((0, 3)), np.zeros(0, int)) == 1.0
    assert fit_temperature(np.ones((4, 2)), np.full((4, 2), np.nan)) == 1.0


def test_temperature_mends_confidence_and_keeps_order():
    rng = np.random.default_rng(2)
    logits = rng.normal(size=(2000, 3))
    targets = (softmax(logits).cumsum(axis=1) < rng.random((2000, 1))).sum(axis=1)
    sure = 4 * logits
    mended = sure / fit_temperature(sure, targets)
    before, after = (expected_calibration_error(softmax(x), targets) for x in (sure, mended))
    assert after < 0.05 < 0.2 < before
    assert np.array_equal(mended.argmax(axis=1), sure.argmax(axis=1))

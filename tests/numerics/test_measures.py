"""Measures against closed-form truth and against second implementations."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics as reference
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import norm
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression

from megavox.measures.bootstrap import subject_bootstrap
from megavox.measures.calibration import BINS, brier, expected_calibration_error, fit_temperature
from megavox.measures.classification import choose_threshold, multi_label, single_label
from megavox.measures.overlap import overlap
from megavox.measures.ranking import auroc, average_precision, roc_points

# ---------------------------------------------------------------- overlap and boundary


def ball(shape: tuple[int, int, int], centre_mm: tuple[float, float, float], radius_mm: float,
         spacing: tuple[float, float, float]) -> np.ndarray:
    grid = np.indices(shape) * np.reshape(spacing, (3, 1, 1, 1)) - np.reshape(centre_mm, (3, 1, 1, 1))
    return ((grid**2).sum(axis=0) <= radius_mm**2).astype(np.uint8)


def blobs(rng: np.random.Generator, shape: tuple[int, ...], n_classes: int) -> np.ndarray:
    """A label map of a few random boxes, some of which reach the image's border."""
    labels = np.zeros(shape, np.uint8)
    for label in range(1, n_classes + 1):
        for _ in range(2):
            low = [rng.integers(0, n - 3) for n in shape]
            labels[tuple(slice(a, a + rng.integers(2, n // 2 + 2)) for a, n in zip(low, shape, strict=True))] = label
    return labels


def monai_scores(prediction: np.ndarray, truth: np.ndarray, n_classes: int, spacing: tuple[float, ...]) -> np.ndarray:
    """Dice, IoU, HD95 and ASSD of each class by MONAI, `(4, K)`."""
    import torch
    from monai.metrics import (
        compute_average_surface_distance,
        compute_dice,
        compute_hausdorff_distance,
        compute_iou,
    )

    one_hot = [torch.from_numpy(np.stack([labels == k for k in range(n_classes + 1)])[None].astype(np.float32))
               for labels in (prediction, truth)]
    step = list(spacing)
    with warnings.catch_warnings():  # MONAI warns that a class is empty; the comparison is NaN-aware
        warnings.simplefilter("ignore")
        results = [compute_dice(*one_hot, include_background=False), compute_iou(*one_hot, include_background=False),
                   compute_hausdorff_distance(*one_hot, percentile=95, spacing=step),
                   compute_average_surface_distance(*one_hot, symmetric=True, spacing=step)]
    return np.stack([r[0].numpy() for r in results])


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.5, 0.7, 0.4), (0.6, 1.3)])
@pytest.mark.parametrize("kind", ["blobs", "noise"])
def test_overlap_equals_monai(spacing, kind):
    rng = np.random.default_rng(len(spacing) + len(kind))
    shape = (12, 17, 20)[-len(spacing):]
    for _ in range(6):
        if kind == "blobs":
            prediction, truth = blobs(rng, shape, 3), blobs(rng, shape, 3)
        else:
            prediction, truth = rng.integers(0, 4, (2, *shape))
        ours = overlap(prediction, truth, ["a", "b", "c"], spacing)
        theirs = monai_scores(prediction, truth, 3, spacing)
        for k, row in enumerate(ours):
            if row.undefined:
                continue
            mine = [row.dice, row.iou, row.hausdorff95_mm, row.surface_distance_mm]
            np.testing.assert_allclose(mine, theirs[:, k], rtol=1e-5)  # MONAI computes in float32


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.0, 0.8, 0.8)])
def test_shifted_spheres_have_their_closed_form(spacing):
    # A sphere moved by d: a surface point at angle u = cos(theta), uniform in [-1, 1] (Archimedes), is
    # |sqrt(r^2 + d^2 - 2 r d u) - r| from the other sphere; the overlap is a lens.
    r, d = 20.0, 6.0
    shape = tuple(int(np.ceil(60 / s)) for s in spacing)
    prediction = ball(shape, (27, 30, 30), r, spacing)
    truth = ball(shape, (33, 30, 30), r, spacing)
    (row,) = overlap(prediction, truth, ["ball"], spacing)
    gaps = np.abs(np.sqrt(r**2 + d**2 - 2 * r * d * np.linspace(-1, 1, 100_001)) - r)
    assert row.dice == pytest.approx(1 - 3 * d / (4 * r) + d**3 / (16 * r**3), abs=0.01)
    assert row.hausdorff95_mm == pytest.approx(np.percentile(gaps, 95), abs=max(spacing) / 2)
    assert row.surface_distance_mm == pytest.approx(gaps.mean(), abs=max(spacing) / 4)
    assert row.volume_reference_mm3 == pytest.approx(4 / 3 * np.pi * r**3, rel=0.01)
    assert abs(row.volume_error_percent) < 0.5


def test_concentric_spheres_are_the_difference_of_radii_apart():
    prediction, truth = (ball((70, 70, 70), (34, 34, 34), r, (1, 1, 1)) for r in (30, 25))
    (row,) = overlap(prediction, truth, ["ball"], (1, 1, 1))
    assert row.surface_distance_mm == pytest.approx(5, abs=0.3)
    assert row.hausdorff95_mm == pytest.approx(5, abs=0.8)
    assert row.volume_error_percent == pytest.approx(100 * ((30 / 25) ** 3 - 1), rel=0.01)


def test_shifted_plate_is_exact():
    # A plate two voxels thick moved by three along its thin axis: all its surface voxels (that is, all
    # voxels) have moved by exactly 3 - 1 or 3 voxels from the nearest face.
    truth = np.zeros((20, 30, 30), np.uint8)
    truth[5:7, 5:25, 5:25] = 1
    prediction = np.roll(truth, 3, axis=0)
    (row,) = overlap(prediction, truth, ["plate"], (2.0, 0.5, 0.5))
    assert row.dice == row.iou == 0
    assert row.hausdorff95_mm == 6.0
    assert row.surface_distance_mm == 5.0
    assert row.volume_prediction_mm3 == 2 * 20 * 20 * 0.5


# ---------------------------------------------------------------- ranking

scores_and_targets = st.integers(2, 60).flatmap(lambda n: st.tuples(
    hnp.arrays(np.float64, n, elements=st.integers(0, 12).map(lambda v: v / 12)),
    hnp.arrays(np.int64, n, elements=st.integers(0, 1))))


@settings(max_examples=200)
@given(scores_and_targets)
def test_auroc_and_average_precision_equal_scikit_learn_with_ties(case):
    scores, targets = case
    if len(np.unique(targets)) < 2:
        assert np.isnan(auroc(scores, targets))
        return
    assert auroc(scores, targets) == pytest.approx(reference.roc_auc_score(targets, scores), abs=1e-12)
    assert average_precision(scores, targets) == pytest.approx(
        reference.average_precision_score(targets, scores), abs=1e-12)
    false_rate, sensitivity = roc_points(scores, targets)
    assert np.trapezoid(sensitivity, false_rate) == pytest.approx(auroc(scores, targets), abs=1e-12)


def test_auroc_has_its_binormal_closed_form():
    rng = np.random.default_rng(0)
    n, d = 4000, 1.2
    targets = np.repeat([0, 1], n)
    truth = norm.cdf(d / np.sqrt(2))
    error = np.sqrt(2 * truth * (1 - truth) / n)  # bound of the Mann-Whitney standard error
    assert auroc(rng.normal(size=2 * n) + d * targets, targets) == pytest.approx(truth, abs=3 * error)


def test_thinned_roc_curve_keeps_its_area():
    rng = np.random.default_rng(1)
    targets = rng.integers(0, 2, 20_000)
    scores = rng.normal(size=20_000) + targets
    false_rate, sensitivity = roc_points(scores, targets, most=200)
    assert len(false_rate) <= 200
    assert (false_rate[0], sensitivity[0], false_rate[-1], sensitivity[-1]) == (0, 0, 1, 1)
    assert np.trapezoid(sensitivity, false_rate) == pytest.approx(auroc(scores, targets), abs=1e-3)


# ---------------------------------------------------------------- classification


def probabilities_of(rng: np.random.Generator, targets: np.ndarray, k: int) -> np.ndarray:
    logits = rng.normal(size=(len(targets), k)) + 1.5 * np.eye(k)[targets]
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


@pytest.mark.parametrize("k", [2, 4])
def test_single_label_equals_scikit_learn(k):
    rng = np.random.default_rng(k)
    targets = rng.integers(0, k, 300)
    probabilities = probabilities_of(rng, targets, k)
    ours = single_label(probabilities, targets, [f"c{i}" for i in range(k)])
    called = probabilities.argmax(axis=1)
    one_hot = np.eye(k, dtype=int)[targets]
    np.testing.assert_array_equal(ours.confusion, reference.confusion_matrix(targets, called))
    assert ours.accuracy == pytest.approx(reference.accuracy_score(targets, called), abs=1e-12)
    assert ours.balanced_accuracy == pytest.approx(reference.balanced_accuracy_score(targets, called), abs=1e-12)
    assert ours.brier == pytest.approx(reference.brier_score_loss(
        targets if k == 2 else one_hot, probabilities[:, 1] if k == 2 else probabilities), abs=1e-12)
    for name, theirs in {
        "sensitivity": reference.recall_score(targets, called, average=None),
        "precision": reference.precision_score(targets, called, average=None),
        "specificity": [reference.recall_score(targets != i, called != i) for i in range(k)],
        "auroc": reference.roc_auc_score(one_hot, probabilities, average=None),
        "average_precision": reference.average_precision_score(one_hot, probabilities, average=None),
    }.items():
        np.testing.assert_allclose([getattr(row, name) for row in ours.classes], theirs, atol=1e-12)
        assert getattr(ours, name) == pytest.approx(theirs[1] if k == 2 else np.mean(theirs), abs=1e-12)


def test_multi_label_with_unknowns_equals_scikit_learn_on_the_known():
    rng = np.random.default_rng(3)
    targets = (rng.random((400, 3)) < [0.1, 0.4, 0.7]).astype(float)
    probabilities = np.clip(0.3 * targets + 0.7 * rng.random((400, 3)), 0, 1)
    targets[rng.random((400, 3)) < 0.25] = np.nan
    thresholds = [0.4, 0.5, 0.6]
    ours = multi_label(probabilities, targets, ["a", "b", "c"], thresholds)
    for k, row in enumerate(ours.classes):
        known = ~np.isnan(targets[:, k])
        y, p = targets[known, k], probabilities[known, k]
        assert row.auroc == pytest.approx(reference.roc_auc_score(y, p), abs=1e-12)
        assert row.average_precision == pytest.approx(reference.average_precision_score(y, p), abs=1e-12)
        assert row.sensitivity == pytest.approx(reference.recall_score(y, p >= thresholds[k]), abs=1e-12)
        assert row.specificity == pytest.approx(reference.recall_score(y == 0, p < thresholds[k]), abs=1e-12)
        assert row.prevalence == pytest.approx(y.mean())
        assert (row.n_positive, row.n_negative) == (y.sum(), (y == 0).sum())
    assert ours.auroc == pytest.approx(np.mean([row.auroc for row in ours.classes]))


@settings(max_examples=100)
@given(scores_and_targets)
def test_chosen_threshold_is_the_best_of_all(case):
    scores, targets = case
    if len(np.unique(targets)) < 2:
        return

    def youden(threshold: float) -> float:
        called = scores >= threshold
        return called[targets == 1].mean() - called[targets == 0].mean()

    chosen = choose_threshold(scores, targets)
    best = max(youden(t) for t in np.concatenate([scores, [2.0]]))
    assert youden(chosen) == pytest.approx(best, abs=1e-12) or (best <= 1e-12 and chosen == 0.5)


# ---------------------------------------------------------------- calibration


def test_calibration_error_equals_pandas_quantile_bins():
    rng = np.random.default_rng(4)
    probabilities = np.round(rng.dirichlet([1, 1, 1], 500), 2)  # rounded: many ties
    targets = (probabilities.cumsum(axis=1) < rng.random((500, 1))).sum(axis=1).clip(max=2)
    table = pd.DataFrame({"p": probabilities.max(axis=1), "right": probabilities.argmax(axis=1) == targets})
    bins = table.groupby(pd.qcut(table.p, BINS, duplicates="drop"), observed=True)
    theirs = ((bins.p.mean() - bins.right.mean()).abs() * bins.size()).sum() / len(table)
    assert expected_calibration_error(probabilities, targets) == pytest.approx(theirs, abs=1e-12)


def test_calibrated_model_has_small_error_and_overconfident_one_its_closed_form():
    rng = np.random.default_rng(5)
    p = rng.random(60_000)
    honest = (rng.random(60_000) < p).astype(float)[:, None]
    assert expected_calibration_error(p[:, None], honest) < 0.01
    # Claims p, happens half the time: E|p - 1/2| = 1/4.
    coin = rng.integers(0, 2, (60_000, 1)).astype(float)
    assert expected_calibration_error(p[:, None], coin) == pytest.approx(0.25, abs=0.01)
    assert brier(p[:, None], honest) == pytest.approx(1 / 6, abs=0.005)  # E p(1 - p)


def test_softmax_temperature_is_recovered_and_equals_scikit_learn():
    rng = np.random.default_rng(6)
    logits = 2 * rng.normal(size=(3000, 4))
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    targets = (shares.cumsum(axis=1) < rng.random((3000, 1))).sum(axis=1)
    model = LogisticRegression(max_iter=500).fit(logits, targets)
    theirs = CalibratedClassifierCV(FrozenEstimator(model), method="temperature").fit(logits, targets)
    beta = theirs.calibrated_classifiers_[0].calibrators[0].beta_
    assert fit_temperature(model.decision_function(logits), targets) == pytest.approx(1 / beta, rel=1e-4)
    assert fit_temperature(2.5 * logits, targets) == pytest.approx(2.5, rel=0.08)


def test_sigmoid_temperature_equals_logistic_regression_without_intercept():
    rng = np.random.default_rng(7)
    logits = 3 * rng.normal(size=(800, 5))
    targets = (rng.random((800, 5)) < 1 / (1 + np.exp(-logits / 1.7))).astype(float)
    targets[rng.random((800, 5)) < 0.2] = np.nan
    known = ~np.isnan(targets)
    slope = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10).fit(
        logits[known][:, None], targets[known]).coef_.item()
    assert fit_temperature(logits, targets) == pytest.approx(1 / slope, rel=1e-4)


# ---------------------------------------------------------------- bootstrap


def test_cluster_interval_covers_and_image_interval_does_not():
    # Binormal scores, disease by subject, four images each, intra-subject correlation 0.5.
    rng = np.random.default_rng(8)
    n_subjects, n_images, d, trials = 60, 4, 1.0, 200
    truth = norm.cdf(d / np.sqrt(2))
    subjects = np.repeat(np.arange(n_subjects), n_images)
    targets = np.arange(n_subjects)[subjects] % 2
    covered = np.zeros((trials, 2))
    for trial in range(trials):
        scores = (d * targets + np.sqrt(0.5) * rng.normal(size=n_subjects)[subjects]
                  + np.sqrt(0.5) * rng.normal(size=len(subjects)))

        def statistic(rows, scores=scores):
            return auroc(scores[rows], targets[rows])

        for j, units in enumerate((subjects, np.arange(len(subjects)))):
            interval = subject_bootstrap(statistic, units, 200, seed=trial)
            covered[trial, j] = interval.low <= truth <= interval.high
    by_subject, by_image = covered.mean(axis=0)
    assert 0.90 <= by_subject <= 0.98, by_subject
    assert by_image < 0.88, by_image

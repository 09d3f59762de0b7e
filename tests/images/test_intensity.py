"""Intensity statistics and normalisation against NumPy's own formulas."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from megavox.images.intensity import cohort_intensities, intensity_statistics, normalise, normaliser, outside_value

CT = np.stack([np.random.default_rng(0).normal(40, 60, (12, 20, 22)),
               np.random.default_rng(1).gamma(2, 100, (12, 20, 22))])


def test_statistics_are_numpys():
    for array in (CT.astype(np.float32), np.rint(CT).astype(np.int16), CT[:, 0]):
        for found, channel in zip(intensity_statistics(array), array, strict=True):
            low, high = np.percentile(channel, (0.5, 99.5))
            clipped = np.clip(channel, low, high)
            assert (found["p005"], found["p995"]) == pytest.approx((low, high), rel=1e-5)
            assert (found["mean"], found["std"]) == pytest.approx((clipped.mean(), clipped.std()), rel=1e-4)


def test_quantiles_are_those_of_the_foreground_if_there_is_one():
    foreground = np.zeros(CT.shape[1:], bool)
    foreground[3:6, 4:15] = True
    for inside, values in ((foreground, CT[0][foreground]), (~foreground & foreground, CT[0]), (None, CT[0])):
        quantiles = intensity_statistics(CT, inside)[0]["quantiles"]
        assert quantiles[0] == pytest.approx(values.min()) and quantiles[-1] == pytest.approx(values.max())
        assert np.median(quantiles) == pytest.approx(np.median(values), abs=0.5)
        assert np.all(np.diff(quantiles) >= 0)


def test_zscore_range_and_none_are_their_formulas():
    statistics = intensity_statistics(CT)
    for number, channel in enumerate(CT):
        low, high = np.percentile(channel, (0.5, 99.5))
        clipped = np.clip(channel, low, high)
        for mode, expected in (("zscore", (clipped - clipped.mean()) / clipped.std()),
                               ("range", (clipped - low) / (high - low)), ("none", channel)):
            found = normalise(CT, normaliser(mode, statistics))
            assert found.dtype == np.float32 and found.shape == CT.shape
            np.testing.assert_allclose(found[number], expected, rtol=1e-4, atol=1e-4)


def hounsfield(seed: int, voxels: int, centre: float) -> np.ndarray:
    """One channel of organ and fat, with a few very bright voxels of metal."""
    rng = np.random.default_rng(seed)
    values = np.concatenate([rng.normal(centre, 30, voxels), rng.normal(-90, 15, voxels // 5)])
    values[: voxels // 1500] = 3071
    return np.rint(rng.permutation(values)).astype(np.int16)[None]


def test_hu_numbers_are_those_of_the_pooled_foreground():
    cases = [hounsfield(seed, 30_000, 40 + 5 * seed) for seed in range(6)]
    found = cohort_intensities([intensity_statistics(case, np.ones(case.shape[1:], bool)) for case in cases])
    pool = np.concatenate([case[0] for case in cases])
    low, high = np.percentile(pool, (0.5, 99.5))
    clipped = np.clip(pool, low, high)
    assert len(found) == 1 and high < 200, "metal is above the limit"
    wanted = {"low": low, "high": high, "centre": clipped.mean(), "width": clipped.std()}
    for name, value in wanted.items():
        assert found[0][name] == pytest.approx(value, abs=1.0), name


@pytest.mark.parametrize("cases", [1, 2, 30])
def test_hu_limits_do_not_follow_the_extremes(cases):
    arrays = [np.random.default_rng(seed).normal(0, 1, (1, 20_000)) for seed in range(cases)]
    found = cohort_intensities([intensity_statistics(array) for array in arrays])[0]
    assert (found["low"], found["high"]) == pytest.approx(np.percentile(arrays, (0.5, 99.5)), abs=0.05)
    assert np.abs(arrays).max() > 3.5 and (found["centre"], found["width"]) == pytest.approx((0, 0.98), abs=0.03)


def test_hu_weighs_cases_equally_and_channels_apart():
    large, small = hounsfield(0, 60_000, 100), hounsfield(1, 3_000, 0)
    stacked = [np.concatenate([case, case + 500]) for case in (large, small)]
    found = cohort_intensities([intensity_statistics(case) for case in stacked])
    equal = np.concatenate([np.quantile(case, np.linspace(0.0005, 0.9995, 2000)) for case in (large, small)])
    low, high = np.percentile(equal, (0.5, 99.5))
    assert found[0]["centre"] == pytest.approx(np.clip(equal, low, high).mean(), abs=1.5)
    for name in ("low", "high", "centre"):
        assert found[1][name] == pytest.approx(found[0][name] + 500, abs=1e-6)


def test_hu_uses_the_cohorts_numbers_and_not_the_images():
    cohort = [{"low": -100.0, "high": 200.0, "centre": 50.0, "width": 60.0}]
    array = np.array([[-1000, -100, 50, 200, 3000]], np.int16)
    numbers = normaliser("hu", intensity_statistics(array), cohort)
    np.testing.assert_allclose(normalise(array, numbers), [[-2.5, -2.5, 0, 2.5, 2.5]])


@pytest.mark.parametrize("mode", ["zscore", "range", "none"])
@pytest.mark.parametrize("array", [
    np.full((1, 9, 9), 7, np.int16), np.where(np.arange(10_000).reshape(1, 100, 100) == 5, 9.0, 3.0)])
def test_nearly_constant_images_stay_finite(array, mode):
    found = normalise(array, normaliser(mode, intensity_statistics(array)))
    assert np.isfinite(found).all() and np.abs(found).max() < 1e3


def test_large_images_are_strided_and_small_ones_are_not():
    values = np.random.default_rng(0).normal(size=(1, 5_000_000)).astype(np.float32)
    found = intensity_statistics(values)[0]
    low, high = np.percentile(values, (0.5, 99.5))
    assert (found["p005"], found["p995"]) == pytest.approx((low, high), abs=0.02)
    assert found["mean"] == pytest.approx(0, abs=0.005)


@given(st.sampled_from([np.uint8, np.int16, np.uint16, np.float32, np.float64]),
       st.sampled_from(["zscore", "range", "none"]))
def test_normalising_leaves_its_input_alone_for_any_type(kind, mode):
    array = np.random.default_rng(0).uniform(0, 200, (2, 5, 6, 4)).astype(kind)
    before, numbers = array.copy(), normaliser(mode, intensity_statistics(array))
    found = normalise(array, numbers)
    np.testing.assert_array_equal(array, before)
    assert found.dtype == np.float32 and not np.shares_memory(found, array)
    low, high, centre, width = (numbers[:, i].reshape(2, 1, 1, 1).astype(float) for i in range(4))
    np.testing.assert_allclose(found, (np.clip(array.astype(float), low, high) - centre) / width, atol=1e-5, rtol=1e-5)


def test_outside_an_image_is_its_low_percentile():
    statistics = intensity_statistics(CT)
    for mode in ("zscore", "range", "none"):
        numbers = normaliser(mode, statistics)
        low = np.percentile(CT.reshape(2, -1), 0.5, axis=1).reshape(2, 1)
        found = outside_value(statistics, numbers)
        np.testing.assert_allclose(found, normalise(low, numbers)[:, 0], rtol=1e-4, atol=1e-5)
    cohort = [{"low": 100.0, "high": 200.0, "centre": 150.0, "width": 50.0}] * 2
    np.testing.assert_allclose(outside_value(statistics, normaliser("hu", statistics, cohort)), [-1, -1])

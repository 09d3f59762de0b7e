"""What augmentation draws and what it does to intensities: ranges, frequencies, formulas."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage, stats

from megavox.batches.apply import change_intensities
from megavox.batches.parameters import Augmentation, draw_augmentation
from megavox.study.sections import AugmentSection
from packed_arrays import STILL

seeds = st.integers(0, 2**40)
dimensions = st.sampled_from([2, 3])
shares = st.floats(0, 1)
sections = st.builds(
    AugmentSection, mirror=st.lists(st.sampled_from(["left-right", "front-back", "up-down"]), unique=True),
    rotate90=st.booleans(), affine_p=shares, rotation_deg=st.floats(0, 180), scale=st.floats(0, 0.99), shift=shares,
    intensity_p=shares, intensity_scale=st.floats(0, 0.99), intensity_offset=st.floats(0, 3), gamma_p=shares,
    gamma=st.floats(0, 0.99), noise_p=shares, noise=st.floats(0, 3), blur_p=shares, blur=st.floats(0, 3),
    low_resolution_p=shares, low_resolution=st.floats(1, 4))


@given(sections, seeds, dimensions, st.data())
def test_all_parameters_keep_to_their_ranges(section, seed, dims, data):
    spacing = data.draw(st.tuples(*[st.sampled_from([0.5, 1.0, 3.0])] * dims))
    patch = data.draw(st.tuples(*[st.sampled_from([8, 12])] * dims))
    found = draw_augmentation(np.random.default_rng(seed), section, spacing, patch)
    rows = {"left-right": dims - 1, "front-back": dims - 2, "up-down": max(dims - 3, 0)}
    assert {axis for axis, flip in enumerate(found.mirror) if flip} <= {rows[name] for name in section.mirror}
    assert abs(found.gain - 1) <= section.intensity_scale + 1e-12 and abs(found.offset) <= section.intensity_offset
    assert abs(found.gamma - 1) <= section.gamma + 1e-12 and 0 <= found.noise <= section.noise
    assert 0 <= found.blur <= section.blur and 1 <= found.coarsen <= section.low_resolution
    for mm, size, step in zip(found.shift, patch, spacing, strict=True):
        assert abs(mm) <= section.shift * size * step + 1e-12
    if found.quarter_turns:
        first, second, times = found.quarter_turns
        assert section.rotate90 and times in (1, 2, 3)
        assert spacing[first] == spacing[second] and patch[first] == patch[second]
    if found.affine is not None:
        square = found.affine @ found.affine.T
        np.testing.assert_allclose(square, square[0, 0] * np.eye(dims), atol=1e-9)
        assert dims == 3 or np.rad2deg(np.arccos(np.clip(found.affine[0, 0] / square[0, 0] ** 0.5, -1, 1))) <= (
            section.rotation_deg + 1e-5)


def test_each_change_is_as_frequent_as_asked_and_fills_its_range():
    section = AugmentSection(mirror=["left-right", "up-down"], rotate90=True, affine_p=0.5, rotation_deg=20, scale=0.25,
                             shift=0.1, intensity_p=0.3, gamma_p=0.2, noise_p=0.15, blur_p=0.1, low_resolution_p=0.4)
    drawn = [draw_augmentation(np.random.default_rng(n), section, (1, 1, 1), (8, 8, 8)) for n in range(3000)]
    for used, share in ((lambda a: a.affine is not None, 0.5), (lambda a: a.gain != 1, 0.3),
                        (lambda a: a.gamma != 1, 0.2), (lambda a: a.noise > 0, 0.15),
                        (lambda a: a.blur > 0, 0.1), (lambda a: a.coarsen > 1, 0.4),
                        (lambda a: a.mirror[0], 0.5), (lambda a: a.mirror[1], 0), (lambda a: a.mirror[2], 0.5),
                        (lambda a: a.quarter_turns is not None, 0.75)):
        assert abs(np.mean([used(a) for a in drawn]) - share) <= 4 * np.sqrt(share * (1 - share) / 3000)
    for values, low, high in (([a.gain for a in drawn if a.gain != 1], 0.8, 1.2),
                              ([a.offset for a in drawn if a.offset != 0], -0.1, 0.1),
                              ([a.gamma for a in drawn if a.gamma != 1], 0.7, 1.3),
                              ([a.noise for a in drawn if a.noise], 0, 0.1), ([a.blur for a in drawn if a.blur], 0, 1),
                              ([a.coarsen for a in drawn if a.coarsen > 1], 1, 2),
                              ([a.shift[1] for a in drawn if a.affine is not None], -0.8, 0.8)):
        assert stats.kstest(values, stats.uniform(low, high - low).cdf).pvalue > 1e-3
    factors = np.array([np.cbrt(np.linalg.det(a.affine)) for a in drawn if a.affine is not None])
    assert abs((factors > 1).mean() - 0.5) < 0.05 and factors.max() > 1.23 and factors.min() < 1 / 1.23
    planes = Counter(a.quarter_turns for a in drawn if a.quarter_turns)
    assert len(planes) == 9 and stats.chisquare(list(planes.values())).pvalue > 1e-3


def test_vertical_mirroring_of_pictures_by_either_name():
    for name in ("front-back", "up-down"):
        section = STILL.model_copy(update={"mirror": [name]})
        drawn = {draw_augmentation(np.random.default_rng(n), section, (1, 1), (8, 8)).mirror for n in range(30)}
        assert drawn == {(False, False), (True, False)}


# ---------------------------------------------------------------- intensities

STAY = (False, False, False)


def test_noise_is_gaussian_of_its_deviation_and_independent():
    patch = np.full((2, 20, 40, 40), 3.0, np.float32)
    noise = change_intensities(patch, Augmentation(STAY, noise=0.25, noise_seed=9)) - patch
    values = noise.ravel()
    assert stats.kstest(values / 0.25, "norm").pvalue > 0.01
    assert abs(values.mean()) < 4 * 0.25 / np.sqrt(values.size) and values.std() == pytest.approx(0.25, rel=0.02)
    assert abs(stats.skew(values)) < 0.05 and abs(stats.kurtosis(values)) < 0.1
    for axis in range(4):
        one, other = np.delete(noise, 0, axis), np.delete(noise, -1, axis)
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.025
    same, other = (change_intensities(patch, Augmentation(STAY, noise=0.25, noise_seed=n)) - patch for n in (9, 10))
    np.testing.assert_array_equal(same, noise)
    assert abs(np.corrcoef(other.ravel(), values)[0, 1]) < 0.02


@given(seeds, st.floats(0.05, 1.95), st.floats(-5, 5), st.floats(0, 40))
def test_gamma_keeps_range_and_order_of_each_channel(seed, gamma, low, width):
    rng = np.random.default_rng(seed)
    patch = (low + width * rng.random((2, 5, 6))).astype(np.float32)
    patch[1] = patch[1] * 3 + 1
    found = change_intensities(patch, Augmentation((False, False), gamma=gamma))
    tolerance = 1e-5 * (1 + np.abs(patch).max())
    for one, other in zip(patch, found, strict=True):
        assert abs(one.min() - other.min()) <= tolerance and abs(one.max() - other.max()) <= tolerance
        assert (np.diff(other.ravel()[one.ravel().argsort(kind="stable")]) >= -tolerance).all()
        span = float(one.max()) - float(one.min())
        if span > 1e-3:
            expected = ((one.astype(float) - one.min()) / span) ** gamma * span + one.min()
            np.testing.assert_allclose(other, expected, atol=10 * tolerance)


def test_gain_offset_and_blur_against_their_formulas():
    patch = np.random.default_rng(0).normal(size=(2, 6, 9, 8)).astype(np.float32)
    changed = change_intensities(patch, Augmentation(STAY, gain=1.15, offset=-0.07))
    np.testing.assert_allclose(changed, patch * 1.15 - 0.07, atol=1e-6)
    changed = change_intensities(patch, Augmentation(STAY, blur=0.8))
    for one, other in zip(changed, patch, strict=True):
        np.testing.assert_allclose(one, ndimage.gaussian_filter(other, 0.8, mode="nearest"), atol=6e-3)
    np.testing.assert_array_equal(change_intensities(patch, Augmentation(STAY)), patch)


@given(st.data(), seeds, st.floats(1.01, 4))
def test_low_resolution_keeps_shape_range_and_a_constant(data, seed, factor):
    dims = data.draw(dimensions)
    shape = data.draw(st.tuples(*[st.integers(1, 13)] * dims))
    patch = np.random.default_rng(seed).normal(size=(2, *shape)).astype(np.float32)
    patch[1] = 2.5
    found = change_intensities(patch, Augmentation((False,) * dims, coarsen=factor))
    assert found.shape == patch.shape and found.dtype == np.float32
    assert found[0].min() >= patch[0].min() - 1e-5 and found[0].max() <= patch[0].max() + 1e-5
    np.testing.assert_allclose(found[1], 2.5, atol=1e-5)


def test_low_resolution_loses_detail_and_not_place():
    shape = (24, 40, 40)
    _, y, x = np.indices(shape)
    slow = np.sin(2 * np.pi * y / 40).astype(np.float32)
    fast = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    found = change_intensities(np.stack([slow, fast]), Augmentation(STAY, coarsen=2.0))
    assert np.corrcoef(found[0].ravel(), slow.ravel())[0, 1] > 0.99 and found[1].std() < 0.8 * fast.std()
    ramp = change_intensities(x[None].astype(np.float32), Augmentation(STAY, coarsen=2.0))[0]
    moved = (ramp - x)[..., 4:-4]
    assert np.ptp(moved) < 0.01 and abs(moved.mean()) < 0.05

"""The low-resolution augmentation leaves everything where it was."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from megavox.batches.apply import change_intensities
from megavox.batches.parameters import Augmentation

factors = st.one_of(st.sampled_from([1.5, 2.0, 3.0, 4.0]), st.floats(1.01, 4))


def coarse(patch: np.ndarray, factor: float) -> np.ndarray:
    return change_intensities(patch, Augmentation((False,) * (patch.ndim - 1), coarsen=factor))


@settings(max_examples=60)
@given(st.lists(st.integers(1, 17), min_size=2, max_size=3), factors, st.integers(0, 2**32))
def test_a_symmetric_image_stays_symmetric(shape: list[int], factor: float, seed: int) -> None:
    patch = np.random.default_rng(seed).normal(size=(2, *shape)).astype(np.float32)
    axes = tuple(range(1, patch.ndim))
    patch += np.flip(patch, axes)
    found = coarse(patch, factor)
    np.testing.assert_allclose(found, np.flip(found, axes), atol=1e-5)


@pytest.mark.parametrize("factor", [1.3, 1.5, 2.0, 2.5, 3.0])
@pytest.mark.parametrize("shape", [(32, 32), (37, 30), (24, 33, 28)])
def test_a_blob_stays_where_it_is(shape: tuple[int, ...], factor: float) -> None:
    rng = np.random.default_rng(len(shape))
    for _ in range(5):
        centre = (np.asarray(shape) - 1) / 2 + rng.uniform(-2, 2, len(shape))
        grid = np.indices(shape) - centre.reshape(-1, *([1] * len(shape)))
        blob = np.exp(-(grid**2).sum(axis=0) / (2 * 2.5**2)).astype(np.float32)
        found = coarse(blob[None], factor)[0]
        moved = np.subtract(ndimage.center_of_mass(found), ndimage.center_of_mass(blob))
        assert np.abs(moved).max() < 0.05


@pytest.mark.parametrize("factor", [2, 4])
def test_it_is_the_mean_of_blocks_drawn_linearly_between_their_centres(factor: int) -> None:
    patch = np.random.default_rng(0).normal(size=(16, 40)).astype(np.float32)
    means = patch.reshape(16 // factor, factor, 40 // factor, factor).mean(axis=(1, 3))
    for axis, size in enumerate(patch.shape):
        centres = np.arange(size // factor) * factor + (factor - 1) / 2
        means = np.apply_along_axis(lambda line, at, n: np.interp(np.arange(n), at, line), axis, means, centres, size)
    np.testing.assert_allclose(coarse(patch[None], factor)[0], means, atol=1e-5)

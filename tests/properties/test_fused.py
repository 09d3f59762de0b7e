"""The compiled way of carrying out a draw gives what the plain way gives."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats

from drawn_patches import Drawn, drawn_patches
from megavox.batches import apply, fused
from megavox.batches import fused_kernel as kernel
from megavox.batches.parameters import Augmentation


def ragged(read: Any, dtype: np.dtype) -> Any:
    """A reader that gives nonsense for every voxel that it is allowed to leave out."""
    def reading(start: Any, stop: Any, wanted: Any = ()) -> np.ndarray:
        box = read(start, stop).copy()
        places = np.stack(np.meshgrid(*map(np.arange, start, stop), indexing="ij"), axis=-1)
        for row in wanted:
            box[:, np.abs(places @ row[3 - len(start):3] + row[3]) > 1] = np.nan if dtype == np.float32 else 99
        return box

    return reading


@settings(max_examples=150)
@given(drawn=drawn_patches())
def test_patches_and_masks_equal_the_plain_ones(drawn: Drawn) -> None:
    plain = apply.image_patch(drawn.read_image, *drawn.where, drawn.numbers, drawn.outside)
    look = fused.Look(*drawn.where)
    found = look.image(ragged(drawn.read_image, drawn.image.dtype), drawn.numbers, drawn.outside)
    assert found.dtype == np.float32 and found.shape == plain.shape
    np.testing.assert_allclose(found, plain, atol=1e-4 * max(float(np.ptp(plain)), 1.0))
    np.testing.assert_array_equal(look.mask(drawn.read_mask), apply.mask_patch(drawn.read_mask, *drawn.where))
    again = apply.change_intensities(plain.copy(), drawn.augmentation)
    np.testing.assert_allclose(fused.change_intensities(plain.copy(), drawn.augmentation), again,
                               atol=1e-4 * max(float(np.ptp(again)), 1.0))


@given(seed=st.integers(0, 2**62 - 1), size=st.integers(1, 500))
@example(seed=2**62 - 1, size=7)
def test_the_noise_of_both_is_one_field(seed: int, size: int) -> None:
    found = fused.change_intensities(np.zeros((1, size), np.float32), Augmentation((), noise=1.0, noise_seed=seed))
    np.testing.assert_allclose(found[0], apply.noise_field(seed, (size,)), atol=1e-5)


def test_every_radius_and_every_angle_of_the_compiled_noise_is_right() -> None:
    """All 2^24 values there are of each; and the largest radius, which is where the tails end."""
    from numba import njit

    @njit
    def of(bits: Any) -> Any:
        radius, cosine, sine = np.empty((3, bits.size), np.float32)
        for n in range(bits.size):
            radius[n] = kernel._radius(bits[n])
            cosine[n], sine[n] = kernel._turned_by(np.float32(1), bits[n])
        return radius, cosine, sine

    bits = np.arange(2**24, dtype=np.uint32)
    radius, cosine, sine = of(bits)
    np.testing.assert_allclose(radius, np.sqrt(-2 * np.log((bits // 2 + 0.5) / 2**23)), rtol=1e-5)
    angle = 2 * np.pi * (bits + 0.5) / 2**24
    np.testing.assert_allclose(cosine, np.cos(angle), atol=2e-6)
    np.testing.assert_allclose(sine, np.sin(angle), atol=2e-6)
    assert radius.max() > 5.7


def test_noise_is_gaussian_beyond_four_sigma() -> None:
    """Shares beyond 1 to 4 sigma within their counting error, and a Kolmogorov-Smirnov test of the whole."""
    size = 4_000_000
    noise = fused.change_intensities(np.zeros((1, size), np.float32), Augmentation((), noise=1.0, noise_seed=1))[0]
    for sigma in (1, 2, 3, 4):
        wanted = 2 * stats.norm.sf(sigma) * size
        assert abs((np.abs(noise) > sigma).sum() - wanted) < 4 * np.sqrt(wanted)
    assert stats.kstest(noise[::10].astype(float), "norm").pvalue > 1e-3
    other = fused.change_intensities(np.zeros((1, size), np.float32), Augmentation((), noise=1.0, noise_seed=2))[0]
    for a, b in ((noise, other), (noise[1:], noise[:-1]), (noise[64:], noise[:-64])):
        assert abs(np.corrcoef(a, b)[0, 1]) < 5 / np.sqrt(size)

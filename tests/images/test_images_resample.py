"""Resampling and turning on cases with known answers."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.transform import resize as skimage_resize

from megavox.images import Geometry, Image, resample_to_grid, resample_to_spacing, resize, to_lps


def smooth(shape: tuple[int, int, int]) -> np.ndarray:
    z, y, x = np.indices(shape)
    return (np.sin(z / 5) + np.cos(y / 7) * np.sin(x / 6)).astype(np.float32)


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_shrinking_agrees_with_scikit_image(factor):
    data = np.random.default_rng(0).normal(0, 1, (24, 36, 48)).astype(np.float32)
    size = tuple(n // factor for n in data.shape)
    ours = resize(Image(data[None], Geometry((48, 36, 24))), size).array[0]
    theirs = skimage_resize(data, size, order=1, mode="edge", anti_aliasing=True)
    inner = (slice(2, -2),) * 3  # the Gaussian's border rule differs
    np.testing.assert_allclose(ours[inner], theirs[inner], atol=1e-5)


def test_shrinking_does_not_alias():
    stripes = np.zeros((1, 64, 64), np.float32)
    stripes[..., ::2] = 1.0
    small = resize(Image(stripes, Geometry((64, 64, 1))), (16, 16)).array
    assert np.abs(small - 0.5)[..., 1:-1].max() < 0.001
    picked = resize(Image(stripes, Geometry((64, 64, 1))), (16, 16), order=0).array
    assert set(np.unique(picked)) <= {0.0, 1.0}


@pytest.mark.parametrize(("order", "error"), [(1, 0.02), (3, 0.001)])
def test_finer_spacing_follows_a_smooth_field(order, error):
    image = Image(smooth((20, 24, 28))[None], Geometry((28, 24, 20), (2.0, 2.0, 2.0), (5.0, 6.0, 7.0)))
    fine = resample_to_spacing(image, (1.0, 1.0, 1.0), order)
    assert fine.geometry.size == (56, 48, 40) and fine.geometry.origin == (4.5, 5.5, 6.5)
    z, y, x = (np.indices(fine.geometry.shape) - 0.5) / 2
    truth = np.sin(z / 5) + np.cos(y / 7) * np.sin(x / 6)
    inner = (slice(12, -12),) * 3
    assert np.abs(fine.array[0] - truth)[inner].max() < error


def test_outside_begins_at_the_outer_edge_of_voxels():
    source = Geometry((4, 1, 1))
    values = np.array([1, 2, 3, 4], np.float32).reshape(1, 1, 1, 4)
    target = Geometry((40, 1, 1), (0.25, 1.0, 1.0), (-2.0, 0.0, 0.0))
    line = resample_to_grid(values, source, target, order=1, outside=-7.0)[0, 0, 0]
    at = -2 + 0.25 * np.arange(40)
    inside = (at >= -0.5) & (at <= 3.5)
    np.testing.assert_allclose(line[inside], 1 + np.clip(at[inside], 0, 3))
    assert (line[~inside] == -7).all()


def test_types_and_channels():
    image = Image(np.arange(2 * 4 * 4 * 4, dtype=np.int16).reshape(2, 4, 4, 4), Geometry((4, 4, 4)))
    target = Geometry((4, 4, 4), origin=(0.25, 0, 0))
    assert resample_to_grid(image.array, image.geometry, target, 0).dtype == np.int16
    assert resample_to_grid(image.array, image.geometry, target, 1).dtype == np.float32
    flat = Image(np.ones((3, 6, 8), np.uint8), Geometry((8, 6, 1), (1.0, 1.0, 5.0)))
    out = resample_to_spacing(flat, (2.0, 2.0))
    assert out.array.shape == (3, 3, 4) and out.geometry.spacing == (2.0, 2.0, 5.0)


def test_a_2d_image_is_not_turned():
    image = Image(np.ones((1, 2, 3), np.uint8), Geometry((3, 2, 1), direction=(-1, 0, 0, 0, -1, 0, 0, 0, 1)))
    assert to_lps(image) is image


def test_grey_is_exact_or_luma():
    same = np.repeat(np.arange(6, dtype=np.uint8).reshape(1, 2, 3), 3, axis=0)
    image = Image(same, Geometry((3, 2, 1)), {"channels": "red,green,blue"})
    np.testing.assert_array_equal(image.to_grey().array, same[:1])
    pure = np.zeros((3, 1, 3), np.uint8)
    pure[[0, 1, 2], 0, [0, 1, 2]] = 200
    grey = Image(pure, Geometry((3, 1, 1)), {"channels": "red,green,blue"}).to_grey()
    assert grey.array.tolist() == [[[60, 117, 23]]] and "channels" not in grey.meta

"""Preparation: tissue stays where it is, masks go with their images, and what does not fit is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from megavox.core.errors import GeometryError, ImageError
from megavox.images.geometry import Geometry
from megavox.images.image import Image
from megavox.images.prepare import SAME, Preparation, join_channels, prepare, prepare_mask


@st.composite
def scans(draw: st.DrawFn) -> tuple[Geometry, tuple[int, int, int]]:
    """A grid in any orientation, also oblique, and a voxel (z, y, x) well inside it."""
    turn = Rotation.from_euler("zyx", draw(st.tuples(*[st.floats(-25, 25)] * 3)), degrees=True).as_matrix()
    axes = np.eye(3)[:, draw(st.permutations(range(3)))] * draw(st.tuples(*[st.sampled_from([1, -1])] * 3))
    size = draw(st.tuples(*[st.integers(12, 24)] * 3))
    spacing = draw(st.tuples(*[st.sampled_from([0.6, 1.0, 1.7, 2.5])] * 3))
    origin = draw(st.tuples(*[st.floats(-200, 200)] * 3))
    voxel = tuple(draw(st.integers(n // 3, 2 * n // 3)) for n in reversed(size))
    return Geometry(size, spacing, origin, tuple((turn @ axes).ravel().tolist())), voxel


def world(geometry: Geometry, zyx: np.ndarray) -> np.ndarray:
    return (geometry.affine() @ [*zyx[::-1], 1.0])[:3]


def index(geometry: Geometry, place: np.ndarray) -> np.ndarray:
    return np.linalg.solve(geometry.affine(), [*place, 1.0])[2::-1]


@st.composite
def preparations(draw: st.DrawFn) -> Preparation:
    spacing = draw(st.tuples(*[st.floats(0.5, 3)] * 3))
    size = draw(st.tuples(*[st.integers(10, 30)] * 3))
    return draw(st.sampled_from([
        Preparation(3, 1), Preparation(3, 1, spacing_mm=spacing), Preparation(3, 1, size=size)]))


@given(scans(), preparations())
def test_a_bright_voxel_stays_where_it_is_to_half_a_voxel(scan, preparation):
    geometry, voxel = scan
    array = np.zeros((1, *geometry.shape), np.float32)
    array[(0, *voxel)] = 1000
    done = prepare(Image(array, geometry), preparation)
    assert done.geometry.axis_codes() == "LPS"
    if preparation.spacing_mm:
        assert done.geometry.spacing_zyx == pytest.approx(preparation.spacing_mm, rel=SAME)  # what is as good is kept
    if preparation.size:
        assert done.array.shape[1:] == preparation.size
    found = index(done.geometry, world(geometry, np.array(voxel, float)))
    brightest = np.array(np.unravel_index(done.array[0].argmax(), done.array.shape[1:]))
    assert np.abs(found - brightest).max() <= 0.5 + 1e-6


@given(scans(), preparations())
def test_a_mask_goes_with_its_image(scan, preparation):
    geometry, (z, y, x) = scan
    mask = np.zeros(geometry.shape, np.uint8)
    mask[z - 3:z + 3, y - 2:y + 4, x - 3:x + 3] = 7
    image = prepare(Image(mask[None].astype(np.float32), geometry), preparation)
    done = prepare_mask(mask, geometry, image.geometry)
    assert done.shape == image.array.shape[1:] and done.dtype == np.uint8 and set(np.unique(done)) == {0, 7}
    middle = world(geometry, np.argwhere(mask).mean(axis=0))
    where = world(image.geometry, np.argwhere(done).mean(axis=0))
    assert np.linalg.norm(where - middle) <= np.linalg.norm(image.geometry.spacing) / 2
    weighted = np.average(np.indices(done.shape).reshape(3, -1), axis=1, weights=image.array[0].ravel())
    assert np.linalg.norm(world(image.geometry, weighted) - middle) <= np.linalg.norm(image.geometry.spacing) / 2


@given(scans())
def test_without_resampling_voxels_are_only_reordered(scan):
    geometry, _ = scan
    array = np.random.default_rng(0).integers(-1000, 3000, (2, *geometry.shape)).astype(np.int16)
    done = prepare(Image(array, geometry, {"modality": "CT"}), Preparation(3, 2))
    assert done.array.dtype == np.int16 and done.meta == {"modality": "CT"}
    np.testing.assert_array_equal(np.sort(done.array.reshape(2, -1)), np.sort(array.reshape(2, -1)))
    for corner in ((0, 0, 0), tuple(n - 1 for n in done.array.shape[1:])):
        old = np.rint(index(geometry, world(done.geometry, np.array(corner, float)))).astype(int)
        np.testing.assert_array_equal(done.array[:, *corner], array[:, *old])


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (1.004, 0.999999, 1.0)])
def test_an_image_that_has_the_spacing_already_keeps_its_voxels(spacing):
    array = np.random.default_rng(0).integers(0, 900, (1, 7, 8, 9)).astype(np.int16)
    found = prepare(Image(array, Geometry((9, 8, 7), spacing)), Preparation(3, 1, spacing_mm=(1.0, 1.0, 1.0)))
    assert found.array.dtype == np.int16 and found.geometry.spacing == spacing
    np.testing.assert_array_equal(found.array, array)


def test_a_picture_that_has_the_size_already_keeps_its_pixels():
    array = np.random.default_rng(0).integers(0, 255, (1, 7, 8)).astype(np.uint8)
    found = prepare(Image(array, Geometry((8, 7, 1), (1.0, 1.0, 1.0))), Preparation(2, 1, size=(7, 8)))
    assert found.array.dtype == np.uint8
    np.testing.assert_array_equal(found.array, array)


def test_a_mask_beyond_the_image_is_background():
    mask = np.ones((4, 4, 4), np.uint8)
    target = Geometry((8, 4, 4), origin=(-2.0, 0.0, 0.0))
    done = prepare_mask(mask, Geometry((4, 4, 4)), target)
    assert done[0, 0].tolist() == [0, 0, 1, 1, 1, 1, 0, 0]


def test_a_picture_is_scaled_and_never_turned():
    array = np.zeros((1, 20, 30), np.uint8)
    array[0, 4, 25] = 255
    geometry = Geometry((30, 20, 1), direction=(-1, 0, 0, 0, -1, 0, 0, 0, 1))
    same = prepare(Image(array, geometry), Preparation(2, 1))
    np.testing.assert_array_equal(same.array, array)
    big = prepare(Image(array, geometry), Preparation(2, 1, size=(40, 60)))
    assert big.array.shape == (1, 40, 60)
    np.testing.assert_allclose(np.argwhere(big.array[0] == big.array.max()).mean(axis=0), (8.5, 50.5))
    mask = prepare_mask(array[0], geometry, big.geometry)
    assert np.argwhere(mask).tolist() == [[8, 50], [8, 51], [9, 50], [9, 51]]


def test_channels_are_joined_in_order():
    arrays = [np.full((n, 3, 4, 5), value, np.int16) for n, value in ((1, 5), (2, 7), (1, 9))]
    images = [Image(array, Geometry((5, 4, 3), origin=(0, 0, 0.04 * n))) for n, array in enumerate(arrays)]
    joined = join_channels(images)
    assert joined.array[:, 0, 0, 0].tolist() == [5, 7, 7, 9] and joined.geometry == images[0].geometry
    assert join_channels(images[:1]) is images[0]


@pytest.mark.parametrize(("other", "text"), [
    (Geometry((5, 4, 3), origin=(0, 0, 0.3)), r"channel 2 has shape \(3, 4, 5\).* 0\.30 mm"),
    (Geometry((5, 4, 3), spacing=(1, 1.1, 1)), r"0\.30 mm"),
    (Geometry((5, 4, 2)), r"channel 2 has shape \(2, 4, 5\).*shape \(3, 4, 5\)"),
    (Geometry((5, 4, 3), direction=(-1, 0, 0, 0, 1, 0, 0, 0, 1)), r"8\.00 mm")])
def test_channels_on_different_grids_are_refused_with_the_distance(other, text):
    images = [Image(np.zeros((1, *geometry.shape)), geometry) for geometry in (Geometry((5, 4, 3)), other)]
    with pytest.raises(GeometryError, match=text) as caught:
        join_channels(images)
    assert caught.value.reason == "channels off-grid" and "Register" in caught.value.fix


@pytest.mark.parametrize(("shape", "reason"), [((1, 4, 5), "dimensions"), ((2, 3, 4, 5), "channels")])
def test_other_forms_than_the_cohorts_are_refused(shape, reason):
    image = Image(np.zeros(shape), Geometry((*reversed(shape[1:]), 1)[:3]))
    with pytest.raises(ImageError, match=r"as the rest of the cohort") as caught:
        prepare(image, Preparation(3, 1))
    assert caught.value.reason == reason


@pytest.mark.parametrize("preparation", [
    Preparation(3, 2, spacing_mm=(1.5, 0.7, 0.7)), Preparation(2, 1, size=(32, 48)), Preparation(2, 3, grey=False)])
def test_a_preparation_comes_back_from_json(preparation):
    assert Preparation.from_dict(json.loads(json.dumps(preparation.to_dict()))) == preparation

"""Checks: each names what is wrong, with numbers."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from megavox.core.errors import GeometryError, ImageError, LabelError
from megavox.images import Geometry, Image, check_image, check_mask_on_grid, mask_classes
from megavox.images.check import check_inside


def image_of(array: np.ndarray) -> Image:
    z, y, x = array.shape[1:]
    return Image(array, Geometry((x, y, z)))


def test_a_good_image_passes():
    check_image(image_of(np.arange(8, dtype=np.int16).reshape(1, 2, 2, 2)), "a.nii")


@pytest.mark.parametrize(("array", "reason"), [
    (np.zeros((1, 1, 1, 1)), "empty"), (np.zeros((1, 0, 2, 2)), "empty"), (np.zeros((0, 2, 2, 2)), "empty"),
    (np.full((1, 2, 2, 2), 5.0), "constant"), (np.full((1, 2, 2, 2), np.nan), "not finite")])
def test_reasons(array, reason):
    with pytest.raises(ImageError) as error:
        check_image(image_of(array), "a.nii")
    assert error.value.reason == reason and "a.nii" in str(error.value)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_not_finite_says_how_many_and_where(bad):
    array = np.arange(60, dtype=np.float32).reshape(1, 3, 4, 5)
    array[0, 1, 2, 3] = array[0, 2, 0, 0] = bad
    with pytest.raises(ImageError, match=r"2 of 60 voxels.*\(0, 1, 2, 3\)"):
        check_image(image_of(array), "a.nii")


def test_mask_grid_is_compared_in_mm_at_the_corners():
    grid = Geometry((10, 10, 10), (0.5, 0.5, 0.5))
    check_mask_on_grid(Geometry((10, 10, 10), (0.5, 0.5, 0.5), (0.05, 0, 0)), grid)
    with pytest.raises(GeometryError, match=r"off its image's by 0\.3 mm") as error:
        check_mask_on_grid(Geometry((10, 10, 10), (0.5, 0.5, 0.5), (0.3, 0, 0)), grid, where="case 7")
    assert "order=0" in error.value.fix and "case 7" in str(error.value)
    check_mask_on_grid(Geometry((10, 10, 10), (0.5, 0.5, 0.5), (0.3, 0, 0)), grid, tolerance_mm=0.5)
    # a small angle is a large distance at a far corner
    with pytest.raises(GeometryError, match="corner"):
        check_mask_on_grid(Geometry((10, 10, 10), (0.51, 0.5, 0.5)), grid, tolerance_mm=0.08)
    with pytest.raises(GeometryError, match="10 x 10 x 9 voxels"):
        check_mask_on_grid(Geometry((10, 10, 9), (0.5, 0.5, 0.5)), grid)
    check_mask_on_grid(Geometry((10, 10, 10), calibrated=False), grid)
    with pytest.raises(GeometryError):  # NaN is no small distance
        check_mask_on_grid(Geometry((10, 10, 10), (0.5, 0.5, float("nan"))), grid)


@given(st.tuples(*[st.floats(-3, 3)] * 3), st.tuples(*[st.floats(0.1, 5)] * 3), st.tuples(*[st.floats(-500, 500)] * 3),
       st.tuples(*[st.floats(-5, 14)] * 3))
def test_a_point_outside_is_told_with_its_distance(turn, spacing, origin, index):
    direction = Rotation.from_rotvec(turn).as_matrix()
    grid = Geometry((10, 8, 6), spacing, origin, tuple(direction.ravel()))
    point = (grid.affine() @ [*index, 1])[:3].tolist()
    nearest = np.clip(index, -0.5, np.array(grid.size) - 0.5)
    distance = np.linalg.norm((index - nearest) * spacing)
    assume(distance == 0 or distance > 1e-6)
    if distance == 0 and (np.abs(index - np.clip(index, -0.4, np.array(grid.size) - 0.6)) < 1e-12).all():
        check_inside([point], grid)
    elif distance > 0:
        with pytest.raises(GeometryError) as error:
            check_inside([grid.origin, point, grid.origin], grid, "case 7")
        assert f"lies {distance:.3g} mm outside" in str(error.value) and error.value.reason == "finding outside"
        assert "case 7" in str(error.value) and "RAS" in error.value.fix


def test_no_point_is_inside_and_a_point_that_is_no_number_is_not():
    check_inside([], Geometry((10, 10, 10)))
    with pytest.raises(GeometryError):
        check_inside([(1.0, 2.0, float("nan"))], Geometry((10, 10, 10)))


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int64", "float32", "float64", "uint16"])
def test_labels_are_mapped(dtype):
    array = np.array([[0, 1, 2], [600 % 256 if dtype == "uint8" else 600, 0, 1]]).astype(dtype)
    high = int(array[1, 0])
    out = mask_classes(array, {1: 1, 2: 3, high: 2}, "m.nii")
    assert out.dtype == np.uint8 and out.tolist() == [[0, 1, 3], [2, 0, 1]]


def test_unknown_and_broken_labels_are_listed():
    with pytest.raises(LabelError, match=r"7 \(2 voxels\), 9 \(1 voxels\)") as error:
        mask_classes(np.array([0, 1, 7, 7, 9]), {1: 1}, "m.nii")
    assert "[0, 1]" in str(error.value)
    with pytest.raises(LabelError, match=r"0\.5 \(2 voxels\)"):
        mask_classes(np.array([0, 0.5, 0.5, 1]), {1: 1}, "m.nii")
    with pytest.raises(LabelError):
        mask_classes(np.array([0, np.nan, 1]), {1: 1}, "m.nii")
    with pytest.raises(LabelError, match="-1"):
        mask_classes(np.array([-1, 0, 1], np.int8), {1: 1}, "m.nii")
    with pytest.raises(LabelError):
        mask_classes(np.array([0, 1e12, 1]), {1: 1}, "m.nii")


def test_errors_cross_processes_whole():
    error = GeometryError("off by 1 mm", where="a", expected="b", fix="c", reason="mask grid")
    again = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert str(again) == str(error) and again.reason == "mask grid"

"""Properties of grids, turning and resampling that hold for every orientation."""

from __future__ import annotations

import tempfile
from itertools import permutations, product
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from megavox.images import (
    Geometry,
    Image,
    read_image,
    resample_to_grid,
    resample_to_spacing,
    resize,
    to_lps,
    write_nifti,
)

numbers = st.floats(-200, 200).map(lambda v: round(v, 3))


@st.composite
def grids(draw: st.DrawFn) -> Geometry:
    """Oblique and flipped grids; left-handed ones too, which NIfTI allows."""
    quaternion = draw(st.tuples(*[st.floats(-1, 1)] * 4).filter(lambda q: np.linalg.norm(q) > 0.1))
    direction = Rotation.from_quat(quaternion).as_matrix() * draw(st.tuples(*[st.sampled_from([1, -1])] * 3))
    return Geometry(draw(st.tuples(*[st.integers(2, 7)] * 3)),
                    draw(st.tuples(*[st.floats(0.2, 5).map(lambda v: round(v, 3))] * 3)),
                    draw(st.tuples(numbers, numbers, numbers)), tuple(direction.ravel().tolist()))


def image_on(grid: Geometry, channels: int = 1) -> Image:
    shape = (channels, *grid.shape)
    return Image(np.random.default_rng(0).normal(0, 100, shape).astype(np.float32), grid)


@given(grids())
def test_affine_and_dict_round_trip(grid):
    again = Geometry.from_affine(grid.affine(), grid.size)
    assert again.size == grid.size and again.distance_mm(grid) < 1e-9
    assert Geometry.from_dict(grid.to_dict()) == grid


@given(grids(), st.tuples(*[st.floats(-3, 3)] * 3))
def test_distance_is_that_of_a_shift(grid, shift):
    affine = grid.affine()
    affine[:3, 3] += shift
    assert grid.distance_mm(Geometry.from_affine(affine, grid.size)) == pytest.approx(
        np.linalg.norm(shift), abs=1e-9)


@settings(max_examples=30)
@given(grids(), st.booleans())
def test_nifti_grid_agrees_with_simpleitk_both_ways(grid, packed):
    with tempfile.TemporaryDirectory() as folder:
        ours = Path(folder) / ("a.nii.gz" if packed else "a.nii")
        image = image_on(grid)
        write_nifti(ours, image)
        read = read_image(ours)
        np.testing.assert_array_equal(read.array, image.array)
        assert read.geometry.distance_mm(grid) < 1e-3
        itk = sitk.ReadImage(str(ours))
        np.testing.assert_array_equal(sitk.GetArrayFromImage(itk), image.array[0])
        matrix = np.reshape(itk.GetDirection(), (3, 3)) * itk.GetSpacing()
        # ITK takes qform or sform; both are single precision.
        np.testing.assert_allclose(matrix, grid.affine()[:3, :3], atol=2e-5)
        np.testing.assert_allclose(itk.GetOrigin(), grid.origin, atol=1e-4)
        theirs = Path(folder) / "b.nii.gz"
        sitk.WriteImage(itk, str(theirs))
        assert read_image(theirs).geometry.distance_mm(grid) < 1e-3


TIE = Geometry((2, 3, 4), direction=(-0.16104083371567146, -0.6711673330274628, 0.7236022809202334,
                                     0.6711673330274628, 0.4630661335780298, 0.5788818247361868,
                                     -0.7236022809202334, 0.5788818247361868, 0.37589303270629876))


@given(grids())
@example(TIE)  # two ways to turn it are equally close
def test_to_lps_keeps_every_voxel_where_it_is(grid):
    image = image_on(grid, 2)
    turned = to_lps(image)
    assert turned.geometry.axis_codes() == "LPS" and turned.array.flags.c_contiguous
    back = np.linalg.solve(grid.affine(), turned.geometry.affine())
    index = np.indices(turned.geometry.shape).reshape(3, -1)[::-1]
    at = back[:3, :3] @ index + back[:3, 3:]
    assert np.abs(at - np.rint(at)).max() < 1e-6
    x, y, z = np.rint(at).astype(int)
    np.testing.assert_array_equal(turned.array.reshape(2, -1), image.array[:, z, y, x])
    again = to_lps(turned)
    assert again.geometry == turned.geometry
    np.testing.assert_array_equal(again.array, turned.array)


@pytest.mark.parametrize("order", [0, 1])
@settings(max_examples=30)
@given(grid=grids())
def test_turned_and_resampled_back_is_exact(grid, order):
    image = image_on(grid)
    turned = to_lps(image)
    back = resample_to_grid(turned.array, turned.geometry, grid, order=order)
    np.testing.assert_array_equal(back, image.array)


def test_all_48_orientations_have_their_codes():
    seen = set()
    for axes, signs in product(permutations(range(3)), product((1, -1), repeat=3)):
        direction = np.eye(3)[:, axes] * signs
        grid = Geometry((2, 3, 4), direction=tuple(direction.ravel().tolist()))
        seen.add(grid.axis_codes())
        assert grid.axis_codes() == "".join(
            ("L", "R", "P", "A", "S", "I")[2 * a + (s < 0)] for a, s in zip(axes, signs, strict=True))
    assert len(seen) == 48


@settings(max_examples=25)
@given(grids(), grids(), st.sampled_from([0, 1]))
def test_resampling_agrees_with_simpleitk(source, target, order):
    # A left-handed direction is refused by some ITK builds only on reading: resampling takes it.
    centre = np.mean(source.corners(), axis=0)
    moved = target.affine()
    moved[:3, 3] += centre - np.mean(target.corners(), axis=0)
    target = Geometry.from_affine(moved, target.size)
    factors = np.linalg.norm(np.linalg.solve(source.affine(), target.affine())[:3, :3], axis=1)
    if order == 1 and factors.max() > 1.5:
        return  # we smooth there, ITK does not
    image = image_on(source)
    itk = sitk.GetImageFromArray(image.array[0])
    itk.SetSpacing(source.spacing)
    itk.SetOrigin(source.origin)
    itk.SetDirection(source.direction)
    done = sitk.Resample(itk, [int(n) for n in target.size], sitk.Transform(),
                         sitk.sitkLinear if order else sitk.sitkNearestNeighbor,
                         target.origin, target.spacing, target.direction, -999.0)
    expected = sitk.GetArrayFromImage(done)
    got = resample_to_grid(image.array, source, target, order, outside=-999.0)[0]
    # Where a centre falls on a border between voxels, the last bit decides: leave those out.
    index = np.indices(target.shape).reshape(3, -1)[::-1]
    full = np.linalg.solve(source.affine(), target.affine())
    half = (full[:3, :3] @ index + full[:3, 3:]) - 0.5
    border = (np.abs(half - np.rint(half)).min(0) < 1e-4).reshape(target.shape)
    np.testing.assert_allclose(got[~border], expected[~border], atol=2e-2)


@given(grids(), st.tuples(*[st.floats(0.2, 5)] * 3))
def test_new_spacing_keeps_the_outer_edge_and_the_extent(grid, spacing):
    out = resample_to_spacing(image_on(grid), spacing, order=0).geometry
    assert out.spacing_zyx == pytest.approx(spacing)
    for n, old, m, new in zip(grid.size, grid.spacing, out.size, out.spacing, strict=True):
        assert m == max(1, int(np.floor(n * old / new + 0.5)))
    edge = np.linalg.solve(grid.affine(), out.affine() @ [-0.5, -0.5, -0.5, 1])[:3]
    np.testing.assert_allclose(edge, -0.5, atol=1e-6)


@given(grids(), st.tuples(*[st.integers(1, 9)] * 3))
def test_resize_covers_the_same_box(grid, size):
    out = resize(image_on(grid), size).geometry
    assert out.shape == size
    for corner in product((0.0, 1.0), repeat=3):
        ends = [np.array(g.size) * corner - 0.5 for g in (grid, out)]
        places = [(g.affine() @ [*e, 1])[:3] for g, e in zip((grid, out), ends, strict=True)]
        np.testing.assert_allclose(*places, atol=1e-6)

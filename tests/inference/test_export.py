"""Labels from logits slice by slice, held against PyTorch's interpolation and SciPy's, in any orientation."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations, product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from megavox.images.geometry import Geometry
from megavox.images.image import Image
from megavox.images.prepare import Preparation, prepare
from megavox.images.resample import resample_to_grid
from megavox.inference.export import LabelExport

TILTED = (0.9363, -0.2896, 0.1987, 0.3130, 0.9447, -0.0978, -0.1593, 0.1538, 0.9752)


def exported(logits: np.ndarray, source: Geometry, target: Geometry, slabs: int, dims: int = 3) -> np.ndarray:
    export = LabelExport(source, target, dims)
    for part in np.array_split(logits, slabs, axis=1):
        export.add(part)
    return export.labels


def scaled(size: tuple[int, int, int], shape: tuple[int, ...]) -> Geometry:
    """The grid of `shape` (z, y, x) over the extent of a grid of 1 mm with `size` voxels along x, y, z."""
    spacing = np.array(size) / np.array(shape[::-1])
    origin = (spacing - 1) / 2
    return Geometry(tuple(shape[::-1]), tuple(map(float, spacing)), tuple(map(float, origin)))  # type: ignore[arg-type]


def clear(values: np.ndarray) -> np.ndarray:
    """Where the largest of the classes leads by more than rounding."""
    ordered = np.sort(values, axis=0)
    return ordered[-1] - ordered[-2] > 1e-4


@settings(max_examples=60)
@given(seed=st.integers(0, 2**31), classes=st.integers(2, 6), slabs=st.integers(1, 9),
       small=st.tuples(*[st.integers(1, 12)] * 3), large=st.tuples(*[st.integers(1, 20)] * 3))
def test_equals_trilinear_interpolation_of_all_classes(seed: int, classes: int, slabs: int,
                                                       small: tuple[int, int, int],
                                                       large: tuple[int, int, int]) -> None:
    logits = np.random.default_rng(seed).normal(size=(classes, *small)).astype(np.float32)
    source = Geometry(small[::-1])
    expected = torch.nn.functional.interpolate(torch.from_numpy(logits)[None], large, mode="trilinear")[0].numpy()
    found = exported(logits, source, scaled(small[::-1], large), slabs)
    assert found.shape == large
    sure = clear(expected)
    assert (found == expected.argmax(axis=0))[sure].all()


@pytest.mark.parametrize(("order", "flips"), list(product(permutations(range(3)), product((1, -1), repeat=3))))
def test_every_orientation_of_a_tilted_grid(order: tuple[int, int, int], flips: tuple[int, int, int]) -> None:
    """An image stored in any of 48 ways, prepared at another spacing, and its labels brought back."""
    random = np.random.default_rng(7)
    columns = np.reshape(TILTED, (3, 3))[:, order] * flips
    spacing = tuple(np.array([0.9, 1.3, 2.1])[list(order)])
    stored = Geometry((13, 9, 7), spacing, (5.0, -8.0, 3.0), tuple(columns.ravel()))
    image = Image(random.normal(size=(1, 7, 9, 13)).astype(np.float32), stored, {})
    prepared = prepare(image, Preparation(3, 1, (1.5, 1.1, 1.2)))
    assert prepared.geometry.axis_codes() == "LPS"
    logits = random.normal(size=(4, *prepared.geometry.shape)).astype(np.float32)
    found = exported(logits, prepared.geometry, stored, 3)
    expected = resample_to_grid(logits, prepared.geometry, stored, order=1, outside=np.nan)
    inside = ~np.isnan(expected).any(axis=0)
    sure = inside & clear(np.nan_to_num(expected))
    assert sure.mean() > 0.9
    assert (found == expected.argmax(axis=0))[sure].all()


def test_outside_the_prepared_grid_is_background() -> None:
    source = Geometry((4, 4, 4))
    target = replace(source, size=(8, 4, 4), origin=(-2.0, 0.0, 0.0))
    logits = np.stack([np.zeros((4, 4, 4)), np.ones((4, 4, 4))]).astype(np.float32)
    found = exported(logits, source, target, 2)
    assert (found[:, :, 2:6] == 1).all() and found.sum() == 64


def test_a_picture_comes_row_by_row() -> None:
    logits = np.random.default_rng(2).normal(size=(3, 9, 11)).astype(np.float32)
    source = Geometry((11, 9, 1))
    expected = torch.nn.functional.interpolate(torch.from_numpy(logits)[None], (20, 17), mode="bilinear")[0].numpy()
    found = exported(logits, source, scaled((11, 9, 1), (1, 20, 17)), 4, dims=2)
    assert found.shape == (20, 17)
    assert (found == expected.argmax(axis=0))[clear(expected)].all()


def test_of_equal_classes_the_first_wins_and_the_grid_itself_is_kept() -> None:
    logits = np.zeros((3, 2, 3, 4), np.float32)
    logits[1:, 1] = 1
    found = exported(logits, Geometry((4, 3, 2)), Geometry((4, 3, 2)), 1)
    assert (found[0] == 0).all() and (found[1] == 1).all()

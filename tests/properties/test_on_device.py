"""What PyTorch makes of a draw on the device is what the plain way makes of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from drawn_patches import Drawn, drawn_patches
from megavox.batches import apply, on_device
from megavox.batches.batch import Batch, RawBatch
from megavox.batches.parameters import Augmentation
from megavox.batches.samples import Draw
from packed_arrays import WILD, packed, samples_of, three_cases

DEVICES = [torch.device("cpu"), *([torch.device("cuda")] if torch.cuda.is_available() else [])]
pytestmark = pytest.mark.parametrize("device", DEVICES, ids=str)


def near(found: torch.Tensor, plain: np.ndarray) -> None:
    """Within 1e-4 of the range of intensities."""
    assert found.dtype == torch.float32 and found.shape == plain.shape
    np.testing.assert_allclose(found.cpu(), plain, atol=1e-4 * max(float(np.ptp(plain)), 1.0))


@settings(max_examples=150)
@given(drawn=drawn_patches())
def test_patches_and_masks_equal_the_plain_ones(drawn: Drawn, device: torch.device) -> None:
    plain = apply.image_patch(drawn.read_image, *drawn.where, drawn.numbers, drawn.outside)
    matrix, centre, patch, _ = drawn.where
    start, stop = apply.source_box(*drawn.where)
    first = centre - matrix @ ((np.asarray(patch) - 1) / 2) - start
    box = torch.from_numpy(drawn.read_image(start, stop).copy()).to(device)
    box_mask = torch.from_numpy(drawn.read_mask(start, stop).copy()).to(device)
    still = Draw(matrix, first, tuple(patch), drawn.numbers, drawn.outside, Augmentation((False,) * len(patch)))
    found, found_mask = on_device.carry_out(box, box_mask, still)
    near(found, plain)
    assert found_mask is not None and found_mask.dtype == torch.uint8
    np.testing.assert_array_equal(found_mask.cpu(), apply.mask_patch(drawn.read_mask, *drawn.where))
    near(on_device.change_intensities(torch.from_numpy(plain).to(device), drawn.augmentation),
         apply.change_intensities(plain.copy(), drawn.augmentation))


@given(seed=st.integers(0, 2**62 - 1), size=st.integers(1, 500))
@example(seed=2**62 - 1, size=7)
@example(seed=0xFFFFFFFF, size=7)
def test_the_noise_of_both_is_one_field(seed: int, size: int, device: torch.device) -> None:
    found = on_device.noise_field(seed, (size,), device)
    np.testing.assert_allclose(found.cpu(), apply.noise_field(seed, (size,)), atol=1e-6)


@given(shape=st.lists(st.integers(1, 30), min_size=2, max_size=3), sigma=st.floats(1e-3, 5), factor=st.floats(1.01, 6),
       seed=st.integers(0, 99))
def test_blur_and_coarsening_of_any_strength(shape: list[int], sigma: float, factor: float, seed: int,
                                             device: torch.device) -> None:
    patch = np.random.default_rng(seed).normal(size=(2, *shape)).astype(np.float32)
    on = torch.from_numpy(patch).to(device)
    near(on_device.blurred(on, sigma), apply.blurred(patch, sigma))
    near(on_device.coarsened(on, factor), apply.coarsened(patch, factor))


def test_a_long_image_keeps_its_precision(device: torch.device) -> None:
    """Where coordinates in float32 would be wrong: 6000 columns of noise between 0 and 1."""
    image = np.random.default_rng(0).random((1, 2, 6000), np.float32)
    turn, numbers = np.array([[1.0, 0.0], [1e-4, 0.99]]), np.array([[-np.inf, np.inf, 0, 1]], np.float32)
    patch, centre = (2, 5990), np.array([0.5, 2999.5])
    plain = apply.image_patch(lambda a, b: image[(slice(None), *map(slice, a, b))], turn, centre, patch, (2, 6000),
                              numbers, np.zeros(1, np.float32))
    start, stop = apply.source_box(turn, centre, patch, (2, 6000))
    draw = Draw(turn, centre - turn @ ((np.array(patch) - 1) / 2) - start, patch, numbers, np.zeros(1, np.float32),
                Augmentation((False, False)))
    box = torch.from_numpy(image[(slice(None), *map(slice, start, stop))].copy()).to(device)
    found, _ = on_device.carry_out(box, None, draw)
    np.testing.assert_allclose(found.cpu(), plain, atol=1e-5)


def test_a_batch_finished_on_the_device_is_the_batch_of_the_loader(tmp_path: Path, device: torch.device) -> None:
    samples = samples_of(three_cases(tmp_path), (8, 10, 10), augment=WILD, seed=5)
    for step in range(6):
        raw = RawBatch.of([samples.raw(step, position) for position in range(4)], step)
        made, wanted = raw.on(device), Batch.of([samples.sample(step, position) for position in range(4)], step)
        assert (made.cases, made.step, raw.shape) == (wanted.cases, step, tuple(wanted.image.shape))
        near(made.image, wanted.image.numpy())
        np.testing.assert_array_equal(made.target.cpu(), wanted.target)


def test_classified_pictures_of_several_types_in_one_batch(tmp_path: Path, device: torch.device) -> None:
    rng = np.random.default_rng(0)
    readers = [packed(tmp_path / dtype, rng.uniform(0, 255, (2, 12, 15)).astype(dtype), labels=(n,))
               for n, dtype in enumerate(("uint8", "int16", "uint16", "float32"))]
    samples = samples_of(readers, (9, 8), augment=WILD, classes=4)
    for step in range(3):
        made = RawBatch.of([samples.raw(step, n) for n in range(4)], step).on(device)
        wanted = Batch.of([samples.sample(step, n) for n in range(4)], step)
        near(made.image, wanted.image.numpy())
        assert torch.equal(made.target.cpu(), wanted.target) and sorted(made.cases) == [0, 1, 2, 3]

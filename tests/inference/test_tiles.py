"""Sliding windows against MONAI's, by hand on small cases, and the averaging of mirrored views."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from monai.data.utils import compute_importance_map
from monai.inferers import sliding_window_inference
from torch import nn

from megavox.inference.engines import TorchEngine
from megavox.inference.tiles import bands, gaussian_weights, mirrored, sliding_windows, whole_image, window_starts

CPU = torch.device("cpu")
NOTHING = np.zeros(1, np.float32)


class Local(nn.Module):
    """A small network whose output differs near the edge of its window, as that of every padded network."""

    def __init__(self, dims: int = 3) -> None:
        super().__init__()
        torch.manual_seed(1)
        kind = nn.Conv3d if dims == 3 else nn.Conv2d
        self.layers = nn.Sequential(kind(1, 4, 3, padding=1), nn.Tanh(), kind(4, 3, 3, padding=1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


class Recorder(nn.Module):
    """Says what it was shown: the identity, and the windows it met."""

    def __init__(self) -> None:
        super().__init__()
        self.met: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.met += list(x.clone())
        return x


def image_of(shape: Sequence[int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(1, *shape)).astype(np.float32)


def test_weights_are_the_separable_gaussian() -> None:
    for window in ((8,), (16, 12), (9, 16, 5)):
        found = gaussian_weights(window)
        grids = np.meshgrid(*[(np.arange(n) - (n - 1) / 2) / (n / 8) for n in window], indexing="ij")
        np.testing.assert_allclose(found, np.maximum(np.exp(-0.5 * sum(g**2 for g in grids)), 1e-3), rtol=1e-5)
        assert found.dtype == np.float32


@pytest.mark.parametrize("window", [(16, 16), (16, 12, 20), (7, 9, 5)])
def test_weights_are_those_of_monai(window: tuple[int, ...]) -> None:
    monai = compute_importance_map(window, mode="gaussian", sigma_scale=0.125, dtype=torch.float32).numpy()
    np.testing.assert_allclose(gaussian_weights(window), monai, rtol=1e-4)


@pytest.mark.parametrize(("shape", "patch", "overlap"), [
    ((32, 24, 16), (16, 16, 16), 0.5), ((45, 23, 31), (16, 12, 20), 0.5), ((40, 35, 17), (16, 16, 16), 0.3),
    ((40, 37), (16, 16), 0.5), ((16, 50, 16), (16, 16, 16), 0.7)])
def test_equals_monai(shape: tuple[int, ...], patch: tuple[int, ...], overlap: float) -> None:
    """Images at least as large as a window; smaller ones MONAI centres half a voxel elsewhere."""
    network = Local(len(shape)).eval()
    image = image_of(shape)
    ours = sliding_windows(network, image, patch, outside=NOTHING, overlap=overlap, batch=3)
    with torch.inference_mode():
        theirs = sliding_window_inference(torch.from_numpy(image)[None], patch, 3, network, overlap=overlap,
                                          mode="gaussian", sigma_scale=0.125)
    assert isinstance(theirs, torch.Tensor)
    np.testing.assert_allclose(ours, theirs[0].numpy(), atol=1e-5)
    whole = network(torch.from_numpy(image)[None])[0].detach().numpy()
    assert np.abs(ours - whole).max() > 0.01  # the windows' edges are seen, so the comparison says something


def test_slabs_come_in_order_whole_and_early() -> None:
    image = image_of((40, 20, 24))
    begun = [0]
    windows = []

    def engine(shown: torch.Tensor) -> torch.Tensor:
        windows.append(len(shown))
        return shown

    for slab in bands(engine, image, (16, 16, 16), outside=NOTHING):
        first = begun[-1]
        np.testing.assert_allclose(slab, image[:, first:first + slab.shape[1]], rtol=1e-5, atol=1e-6)
        if first == 0:
            assert sum(windows) == 4 and slab.shape[1] == 8  # of 4 rows of 4 windows only the first was needed
        begun.append(first + slab.shape[1])
    assert begun == [0, 8, 16, 24, 40]


def test_windows_of_air_are_left_out_and_are_background() -> None:
    image = np.zeros((1, 48, 16, 16), np.float32)
    image[0, 40:, 4:8, 4:8] = 3
    seen = []

    def engine(shown: torch.Tensor) -> torch.Tensor:
        seen.extend(float(one.max()) for one in shown)
        return torch.stack([-shown[:, 0], shown[:, 0] + 7], dim=1)

    found = np.concatenate(list(bands(engine, image, (16, 16, 16), outside=NOTHING, overlap=0.0,
                                      where=image[0] > 1)), axis=1)
    assert seen == [0, 3]  # the first window always, to learn the number of classes; then those that show something
    assert (found.argmax(axis=0)[16:32] == 0).all()
    np.testing.assert_allclose(found[1, 32:], image[0, 32:] + 7, rtol=1e-5)


def test_equals_the_sum_over_windows_written_out() -> None:
    network = Local(2).eval()
    image, patch = image_of((13, 10)), (8, 6)
    found = sliding_windows(network, image, patch, outside=NOTHING, overlap=0.25, batch=2)
    weights = gaussian_weights(patch)
    total, norm = np.zeros((3, 13, 10)), np.zeros((13, 10))
    for a in (0, 5):
        for b in (0, 4):
            window = torch.from_numpy(image[None, :, a:a + 8, b:b + 6])
            total[:, a:a + 8, b:b + 6] += network(window)[0].detach().numpy() * weights
            norm[a:a + 8, b:b + 6] += weights
    np.testing.assert_allclose(found, total / norm, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("size", "window", "overlap", "expected"), [
    (16, 16, 0.5, [0]), (10, 16, 0.5, [0]), (17, 16, 0.5, [0, 1]), (32, 16, 0.5, [0, 8, 16]), (32, 16, 0.0, [0, 16]),
    (33, 16, 0.0, [0, 16, 17]), (40, 16, 0.5, [0, 8, 16, 24]), (4, 1, 0.9, [0, 1, 2, 3])])
def test_where_windows_begin(size: int, window: int, overlap: float, expected: list[int]) -> None:
    assert window_starts(size, window, overlap) == expected


def test_an_image_smaller_than_a_window_stands_in_its_middle_amid_the_outside_value() -> None:
    network = Recorder()
    image = np.stack([image_of((3, 20, 6))[0], image_of((3, 20, 6), seed=1)[0]])
    found = sliding_windows(network, image, (8, 8, 8), outside=np.array([-5.0, 7.0], np.float32))
    np.testing.assert_allclose(found, image, rtol=1e-5, atol=1e-6)
    window = network.met[0].numpy()
    assert window.shape == (2, 8, 8, 8)
    np.testing.assert_array_equal(window[:, 3:6, :, 1:7], image[:, :, :8])
    window[:, 3:6, :, 1:7] = np.array([-5.0, 7.0])[:, None, None, None]
    assert (window[0] == -5).all() and (window[1] == 7).all()


def test_a_classifier_sees_the_centre_box() -> None:
    class Sum(Recorder):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x).flatten(2).sum(-1)

    network = Sum()
    image = image_of((11, 6))
    found = whole_image(network, image, (6, 8), outside=np.array([2.0], np.float32))
    expected = np.full((6, 8), 2.0, np.float32)
    expected[:, 1:7] = image[0, 2:8]
    np.testing.assert_array_equal(network.met[0][0].numpy(), expected)
    np.testing.assert_allclose(found, expected.sum(), rtol=1e-5)


@pytest.mark.parametrize("mirror", [(-1,), (-1, -3), (-1, -2, -3)])
def test_mirrored_views_are_the_mean_over_all_flips_turned_back(mirror: tuple[int, ...]) -> None:
    network, image = Local().eval(), image_of((16, 16, 16))
    found = sliding_windows(mirrored(network, mirror), image, (16, 16, 16), outside=NOTHING)
    views = []
    for choice in range(2 ** len(mirror)):
        axes = tuple(axis for place, axis in enumerate(mirror) if choice >> place & 1)
        flipped = torch.from_numpy(np.flip(image, axes).copy() if axes else image)[None]
        output = network(flipped)[0].detach().numpy()
        views.append(np.flip(output, axes) if axes else output)
    np.testing.assert_allclose(found, np.mean(views, axis=0), atol=1e-5)
    assert np.abs(found - views[0]).max() > 1e-3
    turned = sliding_windows(mirrored(network, mirror), np.flip(image, mirror[0]).copy(), (16, 16, 16),
                             outside=NOTHING)
    np.testing.assert_allclose(np.flip(turned, mirror[0]), found, atol=1e-5)  # what averaging is for


def test_a_classifier_is_averaged_over_views_too() -> None:
    class Slope(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.stack([x[..., 0].flatten(1).sum(1), x[..., -1].flatten(1).sum(1)], dim=1)

    image = image_of((6, 6))
    ends = image[0, :, [0, -1]].sum(axis=1)
    plain = whole_image(Slope(), image, (6, 6), outside=NOTHING)
    np.testing.assert_allclose(plain, ends, rtol=1e-4)
    both = whole_image(mirrored(Slope(), (-1,)), image, (6, 6), outside=NOTHING)
    np.testing.assert_allclose(both, ends.mean(), rtol=1e-4)


def test_of_a_deeply_supervised_network_the_full_resolution_counts() -> None:
    class Deep(Local):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            output = super().forward(x)
            return [output, output[:, :, ::2, ::2, ::2] * 9]  # type: ignore[return-value]

    image = image_of((16, 16, 16))
    found = sliding_windows(TorchEngine(Deep().eval(), CPU), image, (16, 16, 16), outside=NOTHING)
    np.testing.assert_allclose(found, Local()(torch.from_numpy(image)[None])[0].detach().numpy(), atol=1e-5)


def test_bfloat16_is_near_float32_and_comes_back_as_float32() -> None:
    network, image = Local().eval(), image_of((16, 24, 16))
    exact, short = (sliding_windows(TorchEngine(network, CPU, precision), image, (16, 16, 16), outside=NOTHING)
                    for precision in ("float32", "bfloat16"))
    assert exact.dtype == short.dtype == np.float32
    assert 0 < np.abs(exact - short).max() < 0.05

"""Properties of the tiling: for any image, window and overlap every voxel is seen and weights make one."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from megavox.inference.tiles import gaussian_weights, mirrored, sliding_windows, window_starts


@st.composite
def tilings(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...], float]:
    """Shape of an image, of a window, and the overlap."""
    dims = draw(st.integers(2, 3))
    shape = tuple(draw(st.integers(1, 28)) for _ in range(dims))
    window = tuple(draw(st.integers(1, 16)) for _ in range(dims))
    return shape, window, draw(st.floats(0, 0.8))


@given(size=st.integers(1, 500), window=st.integers(1, 200), overlap=st.floats(0, 0.95))
def test_windows_cover_every_voxel_lie_inside_and_overlap_enough(size: int, window: int, overlap: float) -> None:
    starts = window_starts(size, window, overlap)
    assert starts[0] == 0 and starts == sorted(set(starts))
    if size <= window:
        assert starts == [0]
        return
    assert starts[-1] == size - window
    step = max(1, int(window * (1 - overlap)))
    gaps = np.diff(starts)
    assert (gaps[:-1] == step).all() and 0 < gaps[-1] <= step <= window


@given(window=st.lists(st.integers(1, 24), min_size=1, max_size=3))
def test_weights_are_positive_symmetric_and_largest_in_the_middle(window: list[int]) -> None:
    weights = gaussian_weights(window)
    assert weights.shape == tuple(window) and weights.min() >= 1e-3 * (1 - 1e-6) and weights.max() <= 1
    np.testing.assert_allclose(weights, np.flip(weights), rtol=1e-5)
    assert weights[tuple(n // 2 for n in window)] == weights.max()


@settings(max_examples=40)
@given(tiling=tilings(), batch=st.integers(1, 5), seed=st.integers(0, 99))
def test_the_identity_network_gives_the_image_back(tiling: tuple[tuple[int, ...], tuple[int, ...], float], batch: int,
                                                   seed: int) -> None:
    shape, window, overlap = tiling
    image = np.random.default_rng(seed).normal(size=(2, *shape)).astype(np.float32)
    mirror = [(), (-1,), (-1, -2)][seed % 3]
    found = sliding_windows(mirrored(nn.Identity(), mirror), image, window, outside=np.zeros(2, np.float32),
                            overlap=overlap, batch=batch)
    assert found.shape == image.shape
    np.testing.assert_allclose(found, image, rtol=1e-4, atol=1e-5)


@settings(max_examples=40)
@given(tiling=tilings())
def test_normalised_weights_sum_to_one_at_every_voxel(tiling: tuple[tuple[int, ...], tuple[int, ...], float]) -> None:
    """A network that says only which window it sees: shares of all windows at a voxel make one."""
    shape, window, overlap = tiling
    seen = 0

    class Which(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            nonlocal seen
            output = torch.zeros(len(x), 200, *x.shape[2:])
            for row in output:
                row[seen % 200] = 1
                seen += 1
            return output

    shares = sliding_windows(Which(), np.zeros((1, *shape), np.float32), window, outside=np.zeros(1, np.float32),
                             overlap=overlap)
    np.testing.assert_allclose(shares.sum(axis=0), 1, rtol=1e-5)
    assert shares.min() >= 0
    assert seen == np.prod([len(window_starts(max(n, w), w, overlap)) for n, w in zip(shape, window, strict=True)])

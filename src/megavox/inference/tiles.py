"""Sliding windows: a network on a whole image, window by window, blended with Gaussian weights."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
import torch
from torch import nn

SIGMA = 0.125  # of the Gaussian, as a share of the window (Isensee 2021, nnU-Net; MONAI's default)
LEAST = 1e-3  # smallest weight relative to the largest, so that corners never divide by nothing


def window_starts(size: int, window: int, overlap: float) -> list[int]:
    """First voxels of the windows along one axis: evenly spread, first and last flush with the ends."""
    if size <= window:
        return [0]
    step = max(1.0, window * (1 - overlap))
    count = int(np.ceil((size - window) / step)) + 1
    return [round(start) for start in np.linspace(0, size - window, count)]


def gaussian_weights(window: Sequence[int]) -> np.ndarray:
    """Weight of each voxel of a window, float32, largest 1."""
    weights = np.ones(())
    for size in window:
        x = (np.arange(size) - (size - 1) / 2) / (SIGMA * size)
        weights = np.multiply.outer(weights, np.exp(-0.5 * x * x))
    return np.maximum(weights / weights.max(), LEAST).astype(np.float32)


@torch.inference_mode()
def sliding_windows(network: nn.Module, image: np.ndarray, patch: Sequence[int], *, outside: np.ndarray,
                    overlap: float = 0.5, batch: int = 4, mirror: Sequence[int] = (), device: torch.device,
                    precision: str = "float32") -> np.ndarray:
    """Logits of a whole image.

    Args:
        network: `(B, C, *patch)` to `(B, K, *patch)`, in evaluation mode.
        image: `(C, *S)` float32, normalised.
        patch: window size.
        outside: `(C,)`, put around images smaller than a window.
        overlap: share of a window that neighbours share.
        batch: windows a forward pass.
        mirror: spatial axes over which the flipped views are averaged, e.g. (-1,).
        device, precision: where and how to compute.

    Returns:
        `(K, *S)` float32.
    """
    size = image.shape[1:]
    padded, origin = _pad(image, patch, outside)
    weights = torch.from_numpy(gaussian_weights(patch)).to(device)
    source = torch.from_numpy(padded)
    corners = list(product(*(window_starts(n, w, overlap) for n, w in zip(padded.shape[1:], patch, strict=True))))
    total: torch.Tensor | None = None
    norm = torch.zeros(padded.shape[1:])
    for first in range(0, len(corners), batch):
        boxes = [(slice(None), *(slice(a, a + w) for a, w in zip(corner, patch, strict=True)))
                 for corner in corners[first:first + batch]]
        windows = torch.stack([source[box] for box in boxes]).to(device)
        logits = (_views(network, windows, mirror, precision) * weights).cpu()
        if total is None:
            total = torch.zeros(logits.shape[1], *padded.shape[1:])
        for box, part in zip(boxes, logits, strict=True):
            total[box] += part
            norm[box[1:]] += weights.cpu()
    assert total is not None
    inside = tuple(slice(a, a + n) for a, n in zip(origin, size, strict=True))
    return (total / norm)[(slice(None), *inside)].numpy()


@torch.inference_mode()
def whole_image(network: nn.Module, image: np.ndarray, patch: Sequence[int], *, outside: np.ndarray,
                mirror: Sequence[int] = (), device: torch.device, precision: str = "float32") -> np.ndarray:
    """Logits `(K,)` of a classifier for the centre box of an image, averaged over mirrored views.

    Args are those of `sliding_windows`.
    """
    padded, _ = _pad(image, patch, outside)
    centre = tuple(slice((n - w) // 2, (n - w) // 2 + w) for n, w in zip(padded.shape[1:], patch, strict=True))
    window = torch.from_numpy(np.ascontiguousarray(padded[(slice(None), *centre)]))[None].to(device)
    return _views(network, window, mirror, precision)[0].cpu().numpy()


def _views(network: nn.Module, windows: torch.Tensor, mirror: Sequence[int], precision: str) -> torch.Tensor:
    """Logits in float32, the mean over all combinations of flips of the axes in `mirror`."""
    total: torch.Tensor | None = None
    choices = list(product(*[(False, True)] * len(mirror)))
    for flips in choices:
        axes = [axis for axis, flip in zip(mirror, flips, strict=True) if flip]
        with torch.autocast(windows.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            output = network(windows.flip(axes) if axes else windows)
        output = output[0] if isinstance(output, (list, tuple)) else output
        logits = output.float()
        if axes and logits.ndim == windows.ndim:
            logits = logits.flip(axes)
        total = logits if total is None else total + logits
    assert total is not None
    return total / len(choices)


def _pad(image: np.ndarray, patch: Sequence[int], outside: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """The image centred in a frame of at least a window, and where it begins in it."""
    size = image.shape[1:]
    frame = [max(n, w) for n, w in zip(size, patch, strict=True)]
    origin = [(w - n + 1) // 2 for n, w in zip(size, frame, strict=True)]
    if list(size) == frame:
        return image, origin
    padded = np.empty((len(image), *frame), np.float32)
    padded[...] = outside.reshape(-1, *([1] * len(size)))
    padded[(slice(None), *(slice(a, a + n) for a, n in zip(origin, size, strict=True)))] = image
    return padded, origin

"""Sliding windows: a network on a whole image, window by window, blended with Gaussian weights.

The same windows, weights and sums as MONAI's `sliding_window_inference(mode="gaussian")`, but in a band that
moves along the first axis: the logits that no later window touches are handed on, so memory does not grow
with the length of the volume.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np
import torch

SIGMA = 0.125  # of the Gaussian, as a share of the window (Isensee 2021, nnU-Net; MONAI's default)
LEAST = 1e-3  # smallest weight (MONAI's), so that corners never divide by nothing
NOWHERE = -100.0  # logit of all classes but the background where no window was computed

Engine = Callable[[torch.Tensor], torch.Tensor]
"""Logits of windows: `(B, C, *patch)` float32 in main memory to `(B, K, *patch)` float32 on any device."""


def window_starts(size: int, window: int, overlap: float) -> list[int]:
    """First voxels of the windows along one axis: a step apart, the last one flush with the end."""
    if size <= window:
        return [0]
    step = max(1, int(window * (1 - overlap)))
    return [min(start, size - window) for start in range(0, size - window + step, step)]


def gaussian_weights(window: Sequence[int]) -> np.ndarray:
    """Weight of each voxel of a window, float32."""
    weights = np.ones(())
    for size in window:
        x = (np.arange(size) - (size - 1) / 2) / (SIGMA * size)
        weights = np.multiply.outer(weights, np.exp(-0.5 * x * x))
    return np.maximum(weights, LEAST).astype(np.float32)


@torch.inference_mode()
def bands(engine: Engine, image: np.ndarray, patch: Sequence[int], *, outside: np.ndarray, overlap: float = 0.5,
          batch: int = 4, where: np.ndarray | None = None) -> Iterator[np.ndarray]:
    """Logits of a whole image, slab by slab along its first axis.

    Args:
        engine: computes windows.
        image: `(C, *S)` float32, normalised.
        patch: window size.
        outside: `(C,)`, put around images smaller than a window.
        overlap: share of a window that neighbours share.
        batch: windows a forward pass.
        where: `(*S)` of booleans; where given, windows without a true one are not computed and count as background.

    Yields:
        The logits of the next `n` slices, `(K, n, *S[1:])` float32.
    """
    size = image.shape[1:]
    padded, origin = _pad(image, patch, outside)
    rows, *others = [window_starts(n, w, overlap) for n, w in zip(padded.shape[1:], patch, strict=True)]
    columns: list[Any] = [(..., *(slice(a, a + w) for a, w in zip(corner, patch[1:], strict=True)))
                          for corner in product(*others)]
    across = tuple(slice(a, a + n) for a, n in zip(origin[1:], size[1:], strict=True))
    wanted = None if where is None else _pad(where[None], patch, np.zeros(1, bool))[0][0]
    band = _Band(gaussian_weights(patch), padded.shape[2:])
    for row, following in zip(rows, [*rows[1:], rows[-1] + patch[0]], strict=True):
        slab = padded[:, row:row + patch[0]]
        seen = columns if wanted is None else [box for box in columns if wanted[row:row + patch[0]][box].any()]
        if band.empty:
            seen = seen or columns[:1]  # one window is computed always: it tells the number of classes
        for first in range(0, len(seen), batch):
            chosen = seen[first:first + batch]
            windows = torch.from_numpy(np.stack([slab[box] for box in chosen]))
            for box, logits in zip(chosen, engine(windows), strict=True):
                band.add(box, logits)
        found = band.finish(following - row, last=row == rows[-1])
        low, high = max(row, origin[0]), min(following, origin[0] + size[0])
        yield found[(slice(None), slice(low - row, high - row), *across)]


def sliding_windows(engine: Engine, image: np.ndarray, patch: Sequence[int], *, outside: np.ndarray,
                    overlap: float = 0.5, batch: int = 4, where: np.ndarray | None = None) -> np.ndarray:
    """Logits `(K, *S)` float32 of a whole image; args are those of `bands`."""
    return np.concatenate(list(bands(engine, image, patch, outside=outside, overlap=overlap, batch=batch,
                                     where=where)), axis=1)


class _Band:
    """Weighted sums of logits over as many slices as a window has.

    Args:
        weights: of a window.
        across: size of the image along the other axes.
    """

    def __init__(self, weights: np.ndarray, across: Sequence[int]) -> None:
        self._weights = torch.from_numpy(weights)
        self._norm = torch.zeros(len(weights), *across)
        self._total = torch.zeros(0)

    @property
    def empty(self) -> bool:
        """Whether nothing was added yet."""
        return not self._total.numel()

    def add(self, box: Any, logits: torch.Tensor) -> None:
        """Add the logits `(K, *patch)` of a window that begins at the band's first slice, at `box` of the last axes."""
        if self.empty:
            self._total = torch.zeros(len(logits), *self._norm.shape, device=logits.device)
            self._weights, self._norm = self._weights.to(logits.device), self._norm.to(logits.device)
        self._total[box].addcmul_(logits, self._weights)
        self._norm[box] += self._weights

    def finish(self, count: int, last: bool) -> np.ndarray:
        """Logits `(K, count, *across)` of the first slices; the band moves on by as many, after the last no more."""
        logits = self._total[:, :count].div_(self._norm[:count])
        nowhere = self._norm[:count] == 0
        if nowhere.any():
            logits[:, nowhere] = NOWHERE
            logits[0, nowhere] = 0
        if last:
            return logits.cpu().numpy()
        found = logits.to("cpu", copy=True).numpy()
        for sums in (self._total, self._norm[None]):
            sums[:, :-count] = sums[:, count:].clone()
            sums[:, -count:] = 0
        return found


def _pad(image: np.ndarray, patch: Sequence[int], outside: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """The image centred in a frame of at least a window, and where it begins in it; training centres it so too."""
    size = image.shape[1:]
    frame = [max(n, w) for n, w in zip(size, patch, strict=True)]
    origin = [(w - n + 1) // 2 for n, w in zip(size, frame, strict=True)]
    if list(size) == frame:
        return image, origin
    padded = np.empty((len(image), *frame), image.dtype)
    padded[...] = outside.reshape(-1, *([1] * len(size)))
    padded[(slice(None), *(slice(a, a + n) for a, n in zip(origin, size, strict=True)))] = image
    return padded, origin


@torch.inference_mode()
def whole_image(engine: Engine, image: np.ndarray, patch: Sequence[int], *, outside: np.ndarray) -> np.ndarray:
    """Logits `(K,)` of a classifier for the centre box of an image; args are those of `bands`."""
    padded, _ = _pad(image, patch, outside)
    centre = tuple(slice((n - w) // 2, (n - w) // 2 + w) for n, w in zip(padded.shape[1:], patch, strict=True))
    window = torch.from_numpy(np.ascontiguousarray(padded[(slice(None), *centre)]))[None]
    return engine(window)[0].cpu().numpy()


def mirrored(engine: Engine, axes: Sequence[int]) -> Engine:
    """The mean over all combinations of flips of some spatial axes, e.g. (-1,)."""
    if not axes:
        return engine

    def mean(windows: torch.Tensor) -> torch.Tensor:
        choices = [[axis for axis, flip in zip(axes, flips, strict=True) if flip]
                   for flips in product(*[(False, True)] * len(axes))]
        total: torch.Tensor | None = None
        for flipped in choices:
            logits = engine(windows.flip(flipped) if flipped else windows)
            if flipped and logits.ndim == windows.ndim:
                logits = logits.flip(flipped)
            total = logits if total is None else total + logits
        assert total is not None
        return total / len(choices)

    return mean

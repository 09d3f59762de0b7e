"""Carrying out an augmentation by compiled code, in one pass from the stored voxels; `apply` says what it means.

Equal to `apply` within 1e-4 of the range of intensities, masks voxel by voxel. Only the part of the image that
the patch looks at is read, in its stored type. Where the patch reaches over the border, what lies outside is
laid around the box first, so that the loops need no checks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from megavox.batches import apply
from megavox.batches import fused_kernel as kernel
from megavox.batches.apply import Read
from megavox.batches.parameters import Augmentation
from megavox.store.shard import EVERYTHING

NEIGHBOUR = 1.01  # voxels from a position to those it is interpolated from, at the most
MARGIN = 1  # voxels around what is looked at: positions are rounded


class Look:
    """What a patch looks at, in three dimensions: a picture is a volume of one slice.

    Args:
        matrix, centre, patch, shape: as of `apply.sample_patch`.
    """

    def __init__(self, matrix: np.ndarray, centre: np.ndarray, patch: Sequence[int], shape: Sequence[int]) -> None:
        flat = 3 - len(patch)
        self._plain = (matrix, centre, patch, shape)
        self.patch = (1,) * flat + tuple(patch)
        self.matrix, middle, whole = np.eye(3), np.zeros(3), np.ones(3, np.int64)
        self.matrix[flat:, flat:], middle[flat:], whole[flat:] = matrix, centre, shape
        start, stop, self.first, self.permutes, self.inside, corner, size, wanted = kernel.look(
            self.matrix, middle, np.array(self.patch), whole, flat, MARGIN, NEIGHBOUR)
        self._box = (start[flat:].tolist(), stop[flat:].tolist(), EVERYTHING if self.permutes else wanted)
        self.corner, self.size = tuple(corner.tolist()), tuple(size.tolist())

    def image(self, read: Read, numbers: np.ndarray, outside: np.ndarray) -> np.ndarray:
        """See `apply.image_patch`."""
        if self.permutes and not self.inside:
            return apply.image_patch(read, *self._plain, numbers, outside)
        box = self._read(read)
        out = np.empty((len(box), *self.patch), np.float32)
        for channel, (low, high, middle, width) in enumerate(numbers):
            how = (low, high, middle, np.float32(1 / width))
            if self.permutes:
                self._turn(box[channel], how, out[channel])
            else:
                around = self._around(box.shape[1:], np.float32, outside[channel])
                kernel.normalise_into(box[channel], *how, around, self.corner)
                kernel.interpolate(around, self.matrix, self.first + self.corner, out[channel])
        return out.reshape(len(box), *self._plain[2])

    def mask(self, read: Read) -> np.ndarray:
        """See `apply.mask_patch`."""
        if self.permutes and not self.inside:
            return apply.mask_patch(read, *self._plain)
        box = self._read(lambda *box: read(*box)[None])[0]
        if not box.max():  # often, and looking is ten times faster than turning
            return np.zeros(self._plain[2], box.dtype)
        if self.permutes:
            out = np.empty(self.patch, box.dtype)
            self._turn(box, (), out)
            return out.reshape(self._plain[2])
        around = self._around(box.shape, box.dtype, 0)
        around[tuple(slice(c, c + n) for c, n in zip(self.corner, box.shape, strict=True))] = box
        out = np.empty(self.patch, box.dtype)
        kernel.nearest(around, self.matrix, self.first, self.corner, out)
        return out.reshape(self._plain[2])

    def _around(self, box: tuple[int, ...], dtype: Any, outside: Any) -> np.ndarray:
        """All that is looked at, with what lies outside around the place of the box, which is left empty."""
        around = np.empty(self.size, dtype)
        for axis, (corner, length) in enumerate(zip(self.corner, box, strict=True)):
            lead = (slice(None),) * axis
            around[(*lead, slice(0, corner))] = outside
            around[(*lead, slice(corner + length, None))] = outside
        return around

    def _read(self, read: Read) -> np.ndarray:
        """The box, `(C, Z, Y, X)` in its stored type."""
        box = np.ascontiguousarray(read(*self._box))
        return box.reshape(len(box), *(1,) * (4 - box.ndim), *box.shape[1:])

    def _turn(self, box: np.ndarray, how: tuple, out: np.ndarray) -> None:
        """The box `(Z, Y, X)` with its axes permuted and flipped as the patch has them, and normalised."""
        strides, begin, steps = (box.shape[1] * box.shape[2], box.shape[2], 1), 0, [0, 0, 0]
        for row, stride, length in zip(self.matrix.tolist(), strides, box.shape, strict=True):
            along = max(range(3), key=[abs(v) for v in row].__getitem__)  # the patch's axis along this one of the box
            steps[along] = stride if row[along] > 0 else -stride
            begin += 0 if row[along] > 0 else stride * (length - 1)
        kernel.turn(box.reshape(-1), begin, tuple(steps), how, out)


def change_intensities(patch: np.ndarray, augmentation: Augmentation) -> np.ndarray:
    """See `apply.change_intensities`; may change `patch` itself."""
    patch = np.ascontiguousarray(patch, dtype=np.float32)
    if augmentation.blur > 0:
        patch = np.ascontiguousarray(apply.blurred(patch, augmentation.blur))
    if augmentation.coarsen > 1:
        patch = apply.coarsened(patch, augmentation.coarsen)
    gain, offset = np.float32(augmentation.gain), np.float32(augmentation.offset)
    if augmentation.noise > 0:
        seed = augmentation.noise_seed
        kernel.add_noise(patch.reshape(-1), np.float32(augmentation.noise), np.uint32(seed & 0xFFFFFFFF),
                         np.uint32(seed >> 32 & 0xFFFFFFFF), gain, offset)
    elif gain != 1 or offset != 0:
        kernel.scale(patch.reshape(-1), gain, offset)
    return apply.bent(patch, augmentation.gamma) if augmentation.gamma != 1 else patch

"""Carrying out an augmentation by compiled code, in one pass from the stored voxels; `apply` says what it means.

Equal to `apply` within 1e-4 of the range of intensities, masks voxel by voxel. Only the part of the image that
the patch looks at is read, in its stored type. Where the patch reaches over the border, what lies outside is
laid around the box first, so that the loops need no checks.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

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
        dims = len(patch)
        self._plain = (matrix, centre, patch, shape)
        half = (np.asarray(patch) - 1) / 2
        reach = np.abs(matrix) @ half
        self.start, self.stop = apply.source_box(matrix, centre, patch, shape)
        first = centre - matrix @ half - self.start
        self.permutes = apply.is_permutation(matrix, first)  # patch voxels fall on image voxels
        self.inside = bool((centre - reach > -0.5).all() and (centre + reach < np.asarray(shape) - 0.5).all())
        flat = (0,) * (3 - dims)
        self.patch = (1,) * len(flat) + tuple(patch)
        self.first = np.concatenate([flat, first])  # patch voxel p looks at box position `first + matrix @ p`
        self.matrix = np.eye(3)
        self.matrix[len(flat):, len(flat):] = matrix
        if not self.permutes:  # the box stands within all that is looked at, with a margin
            begin = np.minimum(np.floor(centre - reach).astype(int) - MARGIN, self.start)
            end = np.maximum(np.ceil(centre + reach).astype(int) + 2 + MARGIN, self.stop)
            self.corner = flat + tuple((self.start - begin).tolist())
            self.size = (1,) * len(flat) + tuple((end - begin).tolist())

    def image(self, read: Read, numbers: np.ndarray, outside: np.ndarray) -> np.ndarray:
        """See `apply.image_patch`."""
        if self.permutes and not self.inside:
            return apply.image_patch(read, *self._plain, numbers, outside)
        box = self._read(read)
        out = np.empty((len(box), *self.patch), np.float32)
        for channel, (low, high, middle, width) in enumerate(numbers):
            how = (low, high, middle, np.float32(1 / width))
            if self.permutes:
                kernel.normalise_into(self._turned(box[channel]), *how, out[channel], (0, 0, 0))
            else:
                around = np.full(self.size, outside[channel], np.float32)
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
            return self._turned(box).reshape(self._plain[2])
        around = np.zeros(self.size, box.dtype)
        around[tuple(slice(c, c + n) for c, n in zip(self.corner, box.shape, strict=True))] = box
        out = np.empty(self.patch, box.dtype)
        kernel.nearest(around, self.matrix, self.first, self.corner, out)
        return out.reshape(self._plain[2])

    def _read(self, read: Read) -> np.ndarray:
        """The box, `(C, Z, Y, X)` in its stored type."""
        box = np.ascontiguousarray(read(self.start.tolist(), self.stop.tolist(), self._wanted))
        return box.reshape(len(box), *(1,) * (4 - box.ndim), *box.shape[1:])

    @cached_property
    def _wanted(self) -> np.ndarray:
        """Slabs of the image, one for each axis of the patch, that hold every voxel it looks at."""
        if self.permutes:
            return EVERYTHING
        inverse = np.linalg.inv(self.matrix)
        half = (np.array(self.patch) - 1) / 2
        scale = 1 / (half + np.abs(inverse).sum(axis=1) * NEIGHBOUR)
        origin = self.first + np.array([0] * (3 - len(self.start)) + self.start.tolist()) + self.matrix @ half
        return np.column_stack([inverse, -inverse @ origin]) * scale[:, None]

    def _turned(self, box: np.ndarray) -> np.ndarray:
        """The box `(Z, Y, X)` with its axes permuted and flipped as the patch has them."""
        whole = np.rint(self.matrix).astype(int)
        axis = np.abs(whole).argmax(axis=0)  # of the box, for each axis of the patch
        signs = whole[axis, range(3)]
        if (signs > 0).all() and (axis == range(3)).all():
            return box
        steps = np.array([box.shape[1] * box.shape[2], box.shape[2], 1])[axis]
        ends = steps * (np.array(box.shape)[axis] - 1)
        begin = int(ends[signs < 0].sum())
        out = np.empty(self.patch, box.dtype)
        kernel.turn(box.reshape(-1), begin, tuple(int(v) for v in steps * signs), out)
        return out


def change_intensities(patch: np.ndarray, augmentation: Augmentation) -> np.ndarray:
    """See `apply.change_intensities`; may change `patch` itself."""
    patch = np.ascontiguousarray(patch, dtype=np.float32)
    if augmentation.blur > 0:
        patch = np.ascontiguousarray(apply.blurred(patch, augmentation.blur))
    if augmentation.coarsen > 1:
        patch = apply.coarsened(patch, augmentation.coarsen)
    if augmentation.noise > 0:
        seed = augmentation.noise_seed
        kernel.add_noise(patch.reshape(-1), np.float32(augmentation.noise), np.uint32(seed & 0xFFFFFFFF),
                         np.uint32(seed >> 32 & 0xFFFFFFFF))
    if augmentation.gain != 1 or augmentation.offset != 0:
        patch *= np.float32(augmentation.gain)
        patch += np.float32(augmentation.offset)
    return apply.bent(patch, augmentation.gamma) if augmentation.gamma != 1 else patch

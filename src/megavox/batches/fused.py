"""Carrying out an augmentation by compiled code, in one pass from the stored voxels; `apply` says what it means.

The same three functions as `apply`, equal to them within 1e-4 of the range of intensities, masks voxel by
voxel. Only the box of the image that the patch looks at is read, in its stored type. Where the patch reaches
over the border, what lies outside is laid around the box first, so that the loops need no checks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from megavox.batches import apply
from megavox.batches import fused_kernel as kernel
from megavox.batches.apply import Read
from megavox.batches.parameters import Augmentation

MARGIN = 1  # voxels around what is looked at: positions are rounded


def image_patch(read: Read, matrix: np.ndarray, centre: np.ndarray, patch: Sequence[int], shape: Sequence[int],
                numbers: np.ndarray, outside: np.ndarray) -> np.ndarray:
    """See `apply.image_patch`."""
    look = _Look(matrix, centre, patch, shape)
    if look.permutes and not look.inside:
        return apply.image_patch(read, matrix, centre, patch, shape, numbers, outside)
    box = look.read(read)
    out = np.empty((len(box), *look.patch), np.float32)
    for channel, (low, high, middle, width) in enumerate(numbers):
        how = (low, high, middle, np.float32(1 / width))
        if look.permutes:
            kernel.normalise_into(look.turned(box[channel]), *how, out[channel], (0, 0, 0))
        else:
            around = np.full(look.size, outside[channel], np.float32)
            kernel.normalise_into(box[channel], *how, around, look.corner)
            kernel.interpolate(around, look.matrix, look.first + look.corner, out[channel])
    return out.reshape(len(box), *patch)


def mask_patch(read: Read, matrix: np.ndarray, centre: np.ndarray, patch: Sequence[int],
               shape: Sequence[int]) -> np.ndarray:
    """See `apply.mask_patch`."""
    look = _Look(matrix, centre, patch, shape)
    if look.permutes and not look.inside:
        return apply.mask_patch(read, matrix, centre, patch, shape)
    box = look.read(lambda a, b: read(a, b)[None])[0]
    if look.permutes:
        return look.turned(box).reshape(patch)
    around = np.zeros(look.size, box.dtype)
    around[tuple(slice(c, c + n) for c, n in zip(look.corner, box.shape, strict=True))] = box
    out = np.empty(look.patch, box.dtype)
    kernel.nearest(around, look.matrix, look.first, look.corner, out)
    return out.reshape(patch)


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


class _Look:
    """Where a patch looks, in three dimensions: a picture is a volume of one slice.

    Attributes:
        start, stop: box of the image that is read, along the image's own axes.
        matrix, first: patch voxel p looks at box position `first + matrix @ p`.
        patch: size, (z, y, x).
        permutes: whether patch voxels fall on image voxels.
        inside: whether the patch looks at nothing outside the image.
        corner, size: of the box within all that is looked at, with a margin; and the size of all that.
    """

    def __init__(self, matrix: np.ndarray, centre: np.ndarray, patch: Sequence[int], shape: Sequence[int]) -> None:
        dims = len(patch)
        half = (np.asarray(patch) - 1) / 2
        self.start, self.stop = apply.source_box(matrix, centre, patch, shape)
        first = centre - matrix @ half - self.start
        self.permutes = apply.is_permutation(matrix, first)
        reach = np.abs(matrix) @ half
        begin = np.floor(centre - reach).astype(int) - MARGIN
        end = np.ceil(centre + reach).astype(int) + 2 + MARGIN
        begin, end = np.minimum(begin, self.start), np.maximum(end, self.stop)
        self.inside = bool((centre - reach > -0.5).all() and (centre + reach < np.asarray(shape) - 0.5).all())
        flat = (0,) * (3 - dims)
        self.patch = (1,) * len(flat) + tuple(patch)
        self.corner = flat + tuple(int(v) for v in self.start - begin)
        self.size = (1,) * len(flat) + tuple(int(v) for v in end - begin)
        self.first = np.concatenate([flat, first])
        self.matrix = np.eye(3)
        self.matrix[len(flat):, len(flat):] = matrix

    def read(self, read: Read) -> np.ndarray:
        """The box, `(C, Z, Y, X)` in its stored type."""
        box = np.ascontiguousarray(read(self.start.tolist(), self.stop.tolist()))
        return box.reshape(len(box), *(1,) * (4 - box.ndim), *box.shape[1:])

    def turned(self, box: np.ndarray) -> np.ndarray:
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

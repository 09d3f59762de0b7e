"""Carrying out an augmentation: one matrix, one interpolation, then intensities.

Mirror, quarter turns, rotation, scale and shift are composed into one matrix from patch voxels to
image voxels; only the box of the image that the patch looks at is read. A matrix that only permutes
and flips whole voxels copies instead of interpolating. Outside the image lies the image's own 0.5
percentile, and the mask's background.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy import ndimage
from skimage.transform import resize_local_mean

from megavox.batches.parameters import Augmentation
from megavox.images.intensity import normalise

Read = Callable[..., np.ndarray]
"""Gives the voxels of a box from its start and stop; a third argument, slabs, may say which of them are needed
(`store.read.CaseReader.image`)."""


def spatial_matrix(augmentation: Augmentation, spacing_mm: Sequence[float]) -> np.ndarray:
    """`(d, d)`: patch voxel offsets from the patch's centre to image voxel offsets."""
    dims = len(spacing_mm)
    rows = [[0.0] * dims for _ in range(dims)]
    for axis, flip in enumerate(augmentation.mirror):
        rows[axis][axis] = -1.0 if flip else 1.0
    if augmentation.quarter_turns is not None:
        first, second, times = augmentation.quarter_turns
        for _ in range(times):
            rows[first], rows[second] = [-value for value in rows[second]], rows[first]
    matrix = np.array(rows)
    if augmentation.affine is not None:
        spacing = np.asarray(spacing_mm)
        matrix = (augmentation.affine * spacing / spacing[:, None]) @ matrix  # mm -> voxels on both sides
    return matrix


def source_box(matrix: np.ndarray, centre: np.ndarray, patch: Sequence[int],
               shape: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """`[start, stop)` of the image voxels that the patch needs, inside the image.

    Args:
        matrix: from `spatial_matrix`.
        centre: image position of the patch's centre, in voxels.
        patch: patch size.
        shape: image size.
    """
    half = np.abs(matrix) @ ((np.asarray(patch) - 1) / 2)
    start = np.floor(centre - half + 1e-6).astype(int)
    stop = np.ceil(centre + half - 1e-6).astype(int) + 1
    size = np.asarray(shape)
    start = np.minimum(np.maximum(start, 0), size - 1)
    return start, np.minimum(np.maximum(stop, start + 1), size)


def is_permutation(matrix: np.ndarray, first: np.ndarray) -> bool:
    """Whether patch voxels fall exactly on image voxels: a signed permutation at whole positions."""
    whole = np.rint(matrix)
    return bool(np.abs(matrix - whole).max() < 1e-9 and (np.abs(whole).sum(axis=0) == 1).all()
                and (np.abs(whole).sum(axis=1) == 1).all() and np.abs(first - np.rint(first)).max() < 1e-6)


def sample_patch(read: Read, matrix: np.ndarray, centre: np.ndarray, patch: Sequence[int], shape: Sequence[int],
                 outside: np.ndarray, order: int, transform: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """A patch of an image.

    Args:
        read: gives the voxels of a box, `(C, ...)`.
        matrix, centre: patch voxel p looks at image position `centre + matrix @ (p - patch centre)`.
        patch, shape: sizes of patch and image.
        outside: value outside the image for each channel, `(C,)`.
        order: 1 linear, 0 nearest.
        transform: applied to what was read, before interpolation (normalisation).

    Returns:
        `(C, *patch)`.
    """
    start, stop = source_box(matrix, centre, patch, shape)
    box = transform(read(start.tolist(), stop.tolist()))
    first = centre - matrix @ ((np.asarray(patch) - 1) / 2) - start  # box position of patch voxel 0
    if is_permutation(matrix, first):
        return _copy(box, np.rint(matrix).astype(int), np.rint(first).astype(int), patch, outside)
    result = np.empty((len(box), *patch), box.dtype)
    for channel, values in enumerate(box):
        ndimage.affine_transform(values, matrix, first, tuple(patch), output=result[channel], order=order,
                                 mode="grid-constant", cval=float(outside[channel]), prefilter=False)
    return result


def _copy(box: np.ndarray, matrix: np.ndarray, first: np.ndarray, patch: Sequence[int],
          outside: np.ndarray) -> np.ndarray:
    dims = len(patch)
    axis = np.abs(matrix).argmax(axis=0)  # image axis that each patch axis runs along
    sign = matrix[axis, np.arange(dims)]
    turned = box.transpose(0, *(1 + axis))
    result = np.empty((len(box), *patch), box.dtype)
    result[...] = outside.reshape(-1, *([1] * dims))
    into, source = [slice(None)], [slice(None)]
    for p in range(dims):
        length, begin = turned.shape[1 + p], first[axis[p]]
        steps = np.arange(patch[p]) * sign[p] + begin
        inside = np.flatnonzero((steps >= 0) & (steps < length))
        if not inside.size:
            return result
        low, high = inside[0], inside[-1] + 1
        into.append(slice(low, high))
        source.append(slice(*_run(steps[low], steps[high - 1], sign[p])))
    result[tuple(into)] = turned[tuple(source)]
    return result


def _run(begin: int, end: int, sign: int) -> tuple[int, int | None, int]:
    if sign > 0:
        return int(begin), int(end) + 1, 1
    return int(begin), int(end) - 1 if end > 0 else None, -1


def image_patch(read: Read, matrix: np.ndarray, centre: np.ndarray, patch: Sequence[int], shape: Sequence[int],
                numbers: np.ndarray, outside: np.ndarray) -> np.ndarray:
    """A normalised patch of an image, `(C, *patch)` float32, linearly interpolated.

    Args:
        read, matrix, centre, patch, shape: as for `sample_patch`.
        numbers: `(C, 4)` of the normalisation.
        outside: `(C,)`, normalised value outside the image.
    """
    return sample_patch(read, matrix, centre, patch, shape, outside, 1, lambda box: normalise(box, numbers))


def mask_patch(read: Read, matrix: np.ndarray, centre: np.ndarray, patch: Sequence[int],
               shape: Sequence[int]) -> np.ndarray:
    """The mask of the same patch, `patch` uint8, of the nearest voxels; background outside."""
    return sample_patch(lambda a, b: read(a, b)[None], matrix, centre, patch, shape, np.zeros(1, np.uint8), 0,
                        lambda box: box)[0]


def change_intensities(patch: np.ndarray, augmentation: Augmentation) -> np.ndarray:
    """Blur, low resolution, noise, gain and offset, gamma, in this order.

    Args:
        patch: `(C, ...)` float32, normalised.
        augmentation: the parameters.
    """
    if augmentation.blur > 0:
        patch = blurred(patch, augmentation.blur)
    if augmentation.coarsen > 1:
        patch = coarsened(patch, augmentation.coarsen)
    if augmentation.noise > 0:
        patch = patch + augmentation.noise * noise_field(augmentation.noise_seed, patch.shape)
    if augmentation.gain != 1 or augmentation.offset != 0:
        patch = patch * np.float32(augmentation.gain) + np.float32(augmentation.offset)
    if augmentation.gamma != 1:
        patch = bent(patch, augmentation.gamma)
    return np.ascontiguousarray(patch, dtype=np.float32)


def noise_field(seed: int, shape: Sequence[int]) -> np.ndarray:
    """Standard Gaussian noise, float32: each value a function of the seed and its own number.

    Pairs by the transform of Box and Muller (1958), from 23 bits of a hash for the radius and 24 for the angle;
    the second of each pair stands half the field further on. Values reach 5.8 deviations.
    """
    size = int(np.prod(shape))
    numbers = np.arange(size + size % 2, dtype=np.uint32)
    bits = _mixed(_mixed(numbers + np.uint32(seed & 0xFFFFFFFF)) ^ np.uint32(seed >> 32 & 0xFFFFFFFF)) >> np.uint32(8)
    radius = np.sqrt(-2 * np.log((bits[::2] // 2 + 0.5) / 2**23))
    angle = 2 * np.pi * (bits[1::2] + 0.5) / 2**24
    pairs = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])
    return pairs[:size].astype(np.float32).reshape(shape)


def _mixed(x: np.ndarray) -> np.ndarray:
    """A bijection of 32 bits whose output bits look independent ("lowbias32" of C. Wellons, 2018)."""
    x = (x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B)
    return x ^ (x >> np.uint32(16))


def bent(patch: np.ndarray, gamma: float) -> np.ndarray:
    """Each channel's values to the power of gamma over their range, which stays."""
    axes = tuple(range(1, patch.ndim))
    low, high = patch.min(axis=axes, keepdims=True), patch.max(axis=axes, keepdims=True)
    width = np.maximum(high - low, 1e-6)
    return ((patch - low) / width) ** np.float32(gamma) * width + low


def blurred(patch: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur of each channel, sigma in voxels."""
    return ndimage.gaussian_filter(patch, (0, *[sigma] * (patch.ndim - 1)), mode="nearest", truncate=3)


def coarsened(patch: np.ndarray, factor: float) -> np.ndarray:
    """Averaged over voxels `factor` times as wide and interpolated back linearly, as of a coarser scanner.

    Both grids cover the same box, so nothing moves. (Picking the nearest voxel instead of the average
    would move the image by half a voxel at factor 2, where a coarse centre lies between two fine ones.)
    """
    shape = patch.shape[1:]
    small = [max(2, round(n / factor)) for n in shape]
    result = np.empty_like(patch)
    for channel, values in enumerate(patch):
        low = resize_local_mean(values, small, grid_mode=True, preserve_range=True)
        ndimage.zoom(low, np.divide(shape, low.shape), output=result[channel], order=1, grid_mode=True,
                     mode="nearest", prefilter=False)
    return result

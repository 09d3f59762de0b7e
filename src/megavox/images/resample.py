"""Put voxels on another grid: new spacing, a fixed size, or the grid of another image.

Two rules hold everywhere. Grids are aligned at the outer edges of their voxels, not at the centres of
their corner voxels, so that the same tissue is covered. And before a grid is made coarser by more
than 1.5 times along an axis, the image is smoothed with a Gaussian of sigma = (factor - 1) / 2 voxels
(the rule of `skimage.transform.resize`, anti_aliasing), except for nearest neighbour (order 0).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from megavox.images.geometry import Geometry
from megavox.images.image import Image, grid_shape

SMOOTH_ABOVE = 1.5  # ratio of target to source spacing
_SNAP = 1e-6  # voxels: coordinates this close to whole numbers are meant to be whole


def resample_to_spacing(image: Image, spacing: Sequence[float], order: int = 1) -> Image:
    """Resample to `spacing` in mm, array order: (z, y, x), or (y, x) for a 2D image.

    The size becomes round(n * old / new), at least 1; the outer edge of voxel (0, 0, 0) stays where
    it is.
    """
    wanted = _spatial(spacing, image)
    old = np.array(image.geometry.spacing)
    new = np.where(np.isnan(wanted), old, wanted)
    size = np.maximum(1, np.floor(np.array(image.geometry.size) * old / new + 0.5)).astype(int)
    return _onto(image, _edge_aligned(image.geometry, size, new), order)


def resize(image: Image, size: Sequence[int], order: int = 1) -> Image:
    """Resample to a fixed number of voxels (z, y, x), or (y, x) for a 2D image; same physical extent."""
    wanted = _spatial(size, image)
    old = np.array(image.geometry.size)
    new = np.where(np.isnan(wanted), old, wanted).astype(int)
    return _onto(image, _edge_aligned(image.geometry, new, np.array(image.geometry.spacing) * old / new),
                 order)


def resample_to_grid(array: np.ndarray, source: Geometry, target: Geometry, order: int = 1,
                     outside: float = 0.0) -> np.ndarray:
    """Values of `array` (on grid `source`) at the voxel centres of grid `target`; any two orientations.

    Args:
        array: `(C, Z, Y, X)` or `(C, Y, X)`.
        order: 0 nearest, 1 linear, 3 cubic spline.
        outside: value where a target centre lies outside the outermost voxel edges of the source.

    Returns:
        `(C, Z, Y, X)`, or `(C, Y, X)` when the array was 2D and the target has one slice. float32 for
        order 1 and 3; the type of `array` for order 0.
    """
    from scipy import ndimage  # takes 0.2 s to import

    assert order in (0, 1, 3), order
    assert grid_shape(array) == source.shape, (array.shape, source.shape)
    matrix, offset = _index_map(source, target)
    volume = array.reshape(array.shape[0], *source.shape)
    dtype = array.dtype if order == 0 else np.dtype(np.float32)
    out = np.empty((volume.shape[0], *target.shape), dtype)
    factors = np.linalg.norm(matrix, axis=1)  # source voxels per target step, along each source axis
    diagonal = np.diag(matrix)
    steps = diagonal if np.array_equal(matrix, np.diag(diagonal)) else matrix  # scipy: 1-D is faster
    for channel in range(volume.shape[0]):
        values = volume[channel] if order == 0 else _smoothed(volume[channel], factors)
        ndimage.affine_transform(values, steps, offset, output_shape=target.shape, output=out[channel],
                                 order=order, mode="nearest")
    _fill_outside(out, matrix, offset, source.shape, outside)
    return out[:, 0] if array.ndim == 3 and target.shape[0] == 1 else out


def _onto(image: Image, target: Geometry, order: int) -> Image:
    array = resample_to_grid(image.array, image.geometry, target, order)
    return Image(array, target, dict(image.meta))


def _spatial(values: Sequence[float], image: Image) -> np.ndarray:
    """Array-order numbers as (x, y, z); NaN along z of a 2D image, meaning "as it is"."""
    assert len(values) == image.spatial_dims, f"{image.spatial_dims} numbers, not {list(values)}"
    assert min(values) > 0, f"more than zero, not {list(values)}"
    return np.array([*reversed(values), np.nan][:3], dtype=float)


def _edge_aligned(old: Geometry, size: np.ndarray, spacing: np.ndarray) -> Geometry:
    shift = (spacing - np.array(old.spacing)) / 2
    origin = np.array(old.origin) + np.reshape(old.direction, (3, 3)) @ shift
    x, y, z = (int(n) for n in size)
    return replace(old, size=(x, y, z), spacing=(float(spacing[0]), float(spacing[1]), float(spacing[2])),
                   origin=(float(origin[0]), float(origin[1]), float(origin[2])))


def _index_map(source: Geometry, target: Geometry) -> tuple[np.ndarray, np.ndarray]:
    """3x3 matrix and offset, in array order (z, y, x), from target index to source index."""
    full = np.linalg.solve(source.affine(), target.affine())
    matrix, offset = full[:3, :3][::-1, ::-1], full[:3, 3][::-1]
    # Rounding of 1e-15 would blend neighbours, and put voxels on the edge outside.
    snapped = np.rint(matrix)
    far = np.maximum(target.shape, 1)
    matrix = np.where(np.abs(matrix - snapped) * far < _SNAP, snapped, matrix)
    whole = np.rint(offset)
    return np.ascontiguousarray(matrix), np.where(np.abs(offset - whole) < _SNAP, whole, offset)


def _smoothed(volume: np.ndarray, factors: np.ndarray) -> np.ndarray:
    from scipy import ndimage

    values = volume.astype(np.float32, copy=False)
    sigma = np.where(factors > SMOOTH_ABOVE, (factors - 1) / 2, 0.0)
    return ndimage.gaussian_filter(values, sigma, mode="nearest") if sigma.any() else values


def _fill_outside(out: np.ndarray, matrix: np.ndarray, offset: np.ndarray, shape: tuple[int, ...],
                  outside: float) -> None:
    """Set voxels of `out` (C, Z, Y, X) whose source coordinate is beyond an outer voxel edge."""
    z, y, x = (np.arange(n, dtype=float) for n in out.shape[1:])
    last = np.array(out.shape[1:]) - 1.0
    for axis, n in enumerate(shape):
        ends = offset[axis] + np.array([np.minimum(0, matrix[axis] * last).sum(),
                                        np.maximum(0, matrix[axis] * last).sum()])
        if ends[0] >= -0.5 - _SNAP and ends[1] <= n - 0.5 + _SNAP:
            continue
        plane = matrix[axis, 1] * y[:, None] + matrix[axis, 2] * x
        for k in range(out.shape[1]):  # a slab at a time: no coordinate volume in memory
            at = plane + (offset[axis] + matrix[axis, 0] * z[k])
            out[:, k][:, (at < -0.5 - _SNAP) | (at > n - 0.5 + _SNAP)] = outside

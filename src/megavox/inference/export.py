"""Class numbers on the grid that an image came on, from logits on the prepared grid, slice by slice.

The result is that of bringing the logits of every class to the grid by trilinear interpolation and taking the
largest. But only two slices of logits are held at a time, and none at full size: each row of the grid is
interpolated class by class, and the largest so far is kept.
"""

from __future__ import annotations

import numpy as np

from megavox.images.geometry import Geometry
from megavox.inference.export_kernel import largest_of_slice

_SNAP = 1e-6  # voxels: positions this close to whole numbers are meant to be whole


class LabelExport:
    """Takes logits slab by slab and makes class numbers.

    Args:
        source: grid of the logits.
        target: grid of the class numbers; its axes run along those of `source`, in any order and direction.
        dims: 3, or 2 for pictures, whose logits come row by row.

    Attributes:
        labels: uint8 `(Z, Y, X)`, or `(Y, X)` for a picture, on `target`; voxels outside `source` are background.
    """

    def __init__(self, source: Geometry, target: Geometry, dims: int) -> None:
        turned = _along(source, target)
        order = [0, 1, 2] if dims == 3 else [1, 0, 2]  # axes of the source, the one that slabs follow first
        volume = np.zeros(target.shape, np.uint8)
        self.labels = volume if dims == 3 else volume[0]
        self._out = volume.transpose([turned[axis][0] for axis in order])
        self._places = [_places(positions, source.shape[axis]) for axis, (_, positions) in
                        ((axis, turned[axis]) for axis in order)]
        self._dims = dims
        self._last: np.ndarray | None = None  # the last slice that came
        self._next = 0  # number of the slice that comes next

    def add(self, logits: np.ndarray) -> None:
        """Take the next slices, `(K, n, Y, X)`, or `(K, n, X)` rows of a picture, float32."""
        if self._dims == 2:
            logits = logits[:, :, None]
        low, part, inside = self._places[0]
        for number in range(logits.shape[1]):
            plane = np.ascontiguousarray(logits[:, number])
            lower = plane if self._last is None else self._last
            for k in np.flatnonzero(inside & (np.where(part > 0, low + 1, low) == self._next)):
                out = np.zeros(self._out.shape[1:], np.uint8)
                first, share = (lower, part[k]) if part[k] > 0 else (plane, np.float32(0))
                largest_of_slice(first, plane, share, *self._places[1], *self._places[2], out)
                self._out[k] = out
            self._last = plane
            self._next += 1


def _along(source: Geometry, target: Geometry) -> list[tuple[int, np.ndarray]]:
    """For each axis of the source, z, y, x: the axis of the target along it, and where its voxels lie on it."""
    full = np.linalg.solve(source.affine(), target.affine())
    matrix, offset = full[:3, :3][::-1, ::-1], full[:3, 3][::-1]
    found = []
    for row, begin in zip(matrix, offset, strict=True):
        axis = int(np.abs(row).argmax())
        stray = np.abs(np.delete(row, axis)) * np.delete(target.shape, axis)
        assert stray.max() < 0.01, f"the grids are turned against each other: {matrix}"
        positions = begin + row[axis] * np.arange(target.shape[axis])
        whole = np.rint(positions)
        found.append((axis, np.where(np.abs(positions - whole) < _SNAP, whole, positions)))
    assert sorted(axis for axis, _ in found) == [0, 1, 2], matrix
    return found


def _places(positions: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The source voxel below each position, the share of the one above it, and whether it is inside.

    Positions within half a voxel of an end, which is the outer edge of the last voxel, take that voxel.
    """
    inside = (positions >= -0.5 - _SNAP) & (positions <= size - 0.5 + _SNAP)
    held = positions.clip(0, size - 1)
    low = np.floor(held).astype(np.int64)
    return low, (held - low).astype(np.float32), inside

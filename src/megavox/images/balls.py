"""Balls on a grid: how findings that are known by centre and diameter become voxels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from megavox.images.geometry import Geometry


def ball(geometry: Geometry, shape: Sequence[int], centre_mm: Sequence[float],
         diameter_mm: float) -> tuple[np.ndarray, ...]:
    """Indices, along each axis, of the voxels of a ball; at least of the one in which its centre lies.

    Args:
        geometry: of the grid.
        shape: `(Z, Y, X)` voxels.
        centre_mm: LPS world; outside the grid there are no voxels.
        diameter_mm: of the ball.
    """
    centre = geometry.index_of(centre_mm)[::-1]
    reach = diameter_mm / 2 / np.asarray(geometry.spacing_zyx)
    low = np.maximum(np.floor(centre - reach), 0).astype(int)
    high = np.minimum(np.ceil(centre + reach) + 1, shape).astype(int)
    if (low >= high).any():
        return (np.zeros(0, int),) * 3
    grid = np.meshgrid(*map(np.arange, low, high), indexing="ij")
    away = sum(np.square((axis - at) * mm) for axis, at, mm in zip(grid, centre, geometry.spacing_zyx, strict=True))
    inside = away <= (diameter_mm / 2) ** 2
    nearest = np.rint(centre).astype(int)
    if (nearest >= 0).all() and (nearest < shape).all():
        inside[tuple(nearest - low)] = True
    return tuple(axis[inside] for axis in grid)

"""Turn a volume so that its axes run closest to left, posterior, superior.

Exact: axes are only swapped and flipped, voxels are never interpolated, and an oblique grid stays
oblique.
"""

from __future__ import annotations

import numpy as np

from megavox.images.geometry import Geometry
from megavox.images.image import Image


def to_lps(image: Image) -> Image:
    """The same volume with `geometry.axis_codes() == "LPS"`.

    A 2D image is returned as it is: its rows and columns are a view (a radiograph, a photograph), and
    turning it would make a plane that is not a slice along z.
    """
    if image.spatial_dims == 2:
        return image
    order, flipped = _turn(image.geometry)
    # Array axes (Z, Y, X) are the index axes (x, y, z) reversed, behind the channel axis.
    array = image.array.transpose(0, *(3 - i for i in reversed(order)))
    array = np.flip(array, tuple(3 - new for new in range(3) if flipped[new]))
    return Image(array, _turned(image.geometry, order, flipped), dict(image.meta))


def lps_geometry(geometry: Geometry) -> Geometry:
    """The grid of a volume after `to_lps`."""
    return _turned(geometry, *_turn(geometry))


def _turn(geometry: Geometry) -> tuple[list[int], list[bool]]:
    """For each world axis the index axis closest to it, and whether it runs backwards."""
    axes = geometry.closest_axes()
    order = [next(i for i, (axis, _) in enumerate(axes) if axis == world) for world in range(3)]
    return order, [axes[i][1] < 0 for i in order]


def _turned(geometry: Geometry, order: list[int], flipped: list[bool]) -> Geometry:
    """New axis k is old axis `order[k]`, run backwards where `flipped[k]`."""
    first = [0.0, 0.0, 0.0]  # old index of the new voxel (0, 0, 0)
    for old, flip in zip(order, flipped, strict=True):
        first[old] = geometry.size[old] - 1.0 if flip else 0.0
    origin = (geometry.affine() @ [*first, 1.0])[:3]
    signs = np.where(flipped, -1.0, 1.0)
    direction = np.reshape(geometry.direction, (3, 3))[:, order] * signs
    x, y, z = order
    return Geometry(size=(geometry.size[x], geometry.size[y], geometry.size[z]),
                    spacing=(geometry.spacing[x], geometry.spacing[y], geometry.spacing[z]),
                    origin=(float(origin[0]), float(origin[1]), float(origin[2])),
                    direction=tuple(float(v) for v in direction.ravel()),
                    calibrated=geometry.calibrated)

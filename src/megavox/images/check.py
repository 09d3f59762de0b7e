"""Is this image fit for use, does this mask lie on it, and are its values the ones we expect?

Each check returns nothing (or clean labels) when all is well, and raises with a reason for
quarantine.csv when it is not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from megavox.core.errors import GeometryError, ImageError, LabelError
from megavox.images.geometry import Geometry
from megavox.images.image import Image

MASK_TOLERANCE_MM = 0.1


def check_image(image: Image, where: object) -> None:
    """Raises `ImageError` with `reason` "empty", "not finite" or "constant"."""
    array = image.array
    if array.size == 0 or int(np.prod(array.shape[1:])) < 2:
        raise ImageError(f"the image has the shape {array.shape}", where=where,
                         expected="at least two voxels", fix="Leave it out or export it again",
                         reason="empty")
    low, high = array.min(), array.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        bad = ~np.isfinite(array)
        first = tuple(int(i) for i in np.unravel_index(int(bad.argmax()), bad.shape))
        axes = "(C, Z, Y, X)" if array.ndim == 4 else "(C, Y, X)"
        raise ImageError(f"{int(bad.sum())} of {array.size} voxels are not finite, the first at {axes} = "
                         f"{first}",
                         where=where, expected="finite numbers", fix="Export the image again",
                         reason="not finite")
    if low == high:
        raise ImageError(f"all voxels are {low}", where=where, expected="an image with contrast",
                         fix="Leave it out or export it again", reason="constant")


def check_mask_on_grid(mask: Geometry, image: Geometry, tolerance_mm: float = MASK_TOLERANCE_MM,
                       where: object = "") -> None:
    """A mask must have its image's size, and corners within `tolerance_mm` of the image's corners.

    Where either file carries no calibration (a PNG mask) only the sizes are compared.

    Raises:
        GeometryError: names the distance in mm and the fix.
    """
    fix = ("Resample the mask onto the image's grid with nearest neighbour "
           "(megavox.images.resample_to_grid, order=0), or pair it with the image it was drawn on")
    if mask.size != image.size:
        raise GeometryError(f"the mask has {_times(mask)} voxels", where=where,
                            expected=f"{_times(image)} voxels as its image", fix=fix, reason="mask grid")
    if not (mask.calibrated and image.calibrated):
        return
    distance = mask.distance_mm(image)
    if not distance <= tolerance_mm:
        raise GeometryError(f"the mask's grid is off its image's by {distance:.3g} mm at the worst corner "
                            f"(axes {mask.axis_codes()} against {image.axis_codes()})", where=where,
                            expected=f"at most {tolerance_mm:g} mm", fix=fix, reason="mask grid")


def check_inside(points_mm: Sequence[Sequence[float]], image: Geometry, where: object = "") -> None:
    """Points in LPS world mm must lie in the image: within half a voxel of the box of its voxel centres.

    Raises:
        GeometryError: names the farthest point, and its distance in mm.
    """
    if not points_mm:
        return
    points = np.asarray(points_mm, float)
    axes = np.reshape(image.direction, (3, 3))
    from_origin_mm = (points - image.origin) @ axes  # along the axes of the grid
    half, spacing = np.asarray(image.size) / 2, np.asarray(image.spacing)
    beyond_mm = np.abs(from_origin_mm - (half - 0.5) * spacing) - half * spacing
    distances = np.linalg.norm(np.maximum(beyond_mm, 0), axis=1)
    farthest = int(distances.argmax())
    if not distances[farthest] <= 0:
        at = ", ".join(f"{v:g}" for v in points[farthest])
        raise GeometryError(f"the finding at ({at}) mm lies {distances[farthest]:.3g} mm outside the image",
                            where=where, reason="finding outside",
                            expected="LPS world coordinates in mm, as DICOM and ITK have them",
                            fix="Coordinates of another convention are the usual cause: negate x and y of RAS "
                                "coordinates (NIfTI, 3D Slicer); voxel numbers must be turned to mm")


def mask_classes(array: np.ndarray, mapping: Mapping[int, int], where: object) -> np.ndarray:
    """Mask values turned to class numbers, uint8, same shape.

    Args:
        array: any integer type, or floats that are whole numbers.
        mapping: file value -> class, classes in 0..255. The value 0 is class 0 unless it is named.

    Raises:
        LabelError: values that are not whole, or that `mapping` does not name, with their counts.
    """
    assert all(0 <= c <= 255 for c in mapping.values()), "classes must lie in 0..255"
    known = {0: 0, **mapping}
    values, counts = _value_counts(array)
    whole = np.isfinite(values) & (values == np.rint(values))
    if not whole.all():
        raise LabelError(f"{int(counts[~whole].sum())} voxels of the mask are not whole numbers: "
                         f"{_listed(values[~whole], counts[~whole])}", where=where,
                         expected="a label map", reason="label values",
                         fix="It may be a probability map or resampled with interpolation: threshold it, "
                             "or export it with nearest neighbour")
    unknown = np.array([int(v) not in known for v in values], bool)
    if unknown.any():
        raise LabelError(f"the mask has values that the study does not name: "
                         f"{_listed(values[unknown], counts[unknown])}", where=where,
                         expected=f"values among {sorted(known)}", reason="label values",
                         fix="Name these values in the study, or correct the mask")
    out = np.zeros(array.shape, np.uint8)
    for value in values:
        if known[int(value)]:
            out[array == value] = known[int(value)]
    return out


def _value_counts(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values that occur and how often; by counting where that can be, for sorting 512^3 takes long."""
    low, high = (array.min(), array.max()) if array.size else (0, 0)
    whole = array.dtype.kind in "bui" or bool(np.array_equal(array, np.rint(array)))
    if not whole or not np.isfinite(float(high) - float(low)) or int(high) - int(low) > 65535:
        return np.unique(array, return_counts=True)
    counts = np.bincount(array.ravel().astype(np.int64) - int(low))
    values = np.flatnonzero(counts)
    return values + int(low), counts[values]


def _times(geometry: Geometry) -> str:
    return " x ".join(map(str, geometry.size))


def _listed(values: np.ndarray, counts: np.ndarray) -> str:
    shown = [f"{v:g} ({n} voxels)" for v, n in zip(values[:8], counts[:8], strict=True)]
    return ", ".join(shown) + (f" and {len(values) - 8} more" if len(values) > 8 else "")

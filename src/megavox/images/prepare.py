"""Bringing images to one form: axes towards L, P, S, one spacing or size, grey where asked.

The same function prepares an image for the store and for prediction, so the network never meets at a
hospital what it did not meet in training.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from megavox.core.errors import GeometryError, ImageError
from megavox.images.geometry import Geometry
from megavox.images.image import Image
from megavox.images.reorient import to_lps
from megavox.images.resample import resample_to_grid, resample_to_spacing, resize

SAME = 0.01  # a spacing that differs by a smaller share is the one asked for: rounding in headers is not blurred away


@dataclass(frozen=True)
class Preparation:
    """What is done to every image before the network sees it.

    Attributes:
        spatial_dims: 2 or 3.
        channels: number of channels after joining the case's files.
        spacing_mm: (z, y, x) to resample to; None keeps each image's own.
        size: (y, x) or (z, y, x) in voxels to scale to, instead of spacing_mm.
        grey: colour pictures become one channel.
    """

    spatial_dims: int
    channels: int
    spacing_mm: tuple[float, ...] | None = None
    size: tuple[int, ...] | None = None
    grey: bool = True

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, value: dict) -> Preparation:
        """Inverse of `to_dict`."""
        return cls(spatial_dims=value["spatial_dims"], channels=value["channels"], grey=value["grey"],
                   spacing_mm=tuple(value["spacing_mm"]) if value["spacing_mm"] else None,
                   size=tuple(value["size"]) if value["size"] else None)


def join_channels(images: list[Image], tolerance_mm: float = 0.1) -> Image:
    """One image from the images of a case's channels.

    Args:
        images: arrays `(C, Z, Y, X)` or `(C, Y, X)`; all on one grid.
        tolerance_mm: largest distance between corresponding corners.

    Raises:
        GeometryError: the channels lie on different grids.
    """
    first = images[0]
    for number, image in enumerate(images[1:], 2):
        distance = first.geometry.distance_mm(image.geometry)
        if image.array.shape[1:] != first.array.shape[1:] or distance > tolerance_mm:
            raise GeometryError(
                f"channel {number} has shape {image.array.shape[1:]} and its corners lie {distance:.2f} mm from "
                f"those of channel 1 with shape {first.array.shape[1:]}",
                expected=f"all channels of a case on one grid (within {tolerance_mm} mm)", reason="channels off-grid",
                fix="Register and resample the channels onto one grid first")
    if len(images) == 1:
        return first
    return Image(np.concatenate([image.array for image in images]), first.geometry, dict(first.meta))


def prepare(image: Image, preparation: Preparation) -> Image:
    """The image as the network sees it, intensities in their own units.

    Args:
        image: `(C, Z, Y, X)` or `(C, Y, X)`.
        preparation: what to do.

    Raises:
        ImageError: wrong number of dimensions or channels.
    """
    _check_form(image, preparation)
    if preparation.spatial_dims == 3:
        image = to_lps(image)
    if preparation.size is not None:
        return image if image.array.shape[1:] == preparation.size else resize(image, preparation.size)
    if preparation.spacing_mm is None:
        return image
    own = image.geometry.spacing_zyx[-preparation.spatial_dims:]
    wanted = tuple(mine if abs(mine / asked - 1) < SAME else asked
                   for mine, asked in zip(own, preparation.spacing_mm, strict=True))
    return image if wanted == own else resample_to_spacing(image, wanted)


def prepare_mask(mask: np.ndarray, geometry: Geometry, target: Geometry) -> np.ndarray:
    """A mask `(Z, Y, X)` or `(Y, X)` brought onto a prepared grid by nearest neighbour; outside is 0."""
    return resample_to_grid(mask[None], geometry, target, order=0)[0]


def _check_form(image: Image, preparation: Preparation) -> None:
    if image.spatial_dims != preparation.spatial_dims:
        raise ImageError(f"the image has {image.spatial_dims} spatial dimensions (shape {image.array.shape})",
                         expected=f"{preparation.spatial_dims}, as the rest of the cohort", reason="dimensions")
    if image.array.shape[0] != preparation.channels:
        raise ImageError(f"the image has {image.array.shape[0]} channels (shape {image.array.shape})",
                         expected=f"{preparation.channels}, as the rest of the cohort", reason="channels")
    if preparation.size is None and preparation.spacing_mm is not None and not image.geometry.calibrated:
        raise GeometryError("the file does not say how large its voxels are, so it cannot be resampled",
                            expected="a spacing in mm", reason="no spacing",
                            fix="Add the spacing to the file, or set images.spacing_mm: native")

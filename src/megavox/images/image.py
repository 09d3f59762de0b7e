"""An image in memory: voxels, where they lie, and what little else is known.

Every reader returns an `Image`, and every transform takes and returns one. Nothing in `meta`
identifies a patient.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from megavox.images.geometry import Geometry

COLOURS = ("red", "green", "blue")
LUMA = (0.299, 0.587, 0.114)  # Y' of ITU-R BT.601


@dataclass
class Image:
    """Voxels and their grid.

    Attributes:
        array: `(C, Z, Y, X)` of a volume or `(C, Y, X)` of an image; made C-contiguous.
        geometry: the grid. An image of one slice has `size[2] == 1`.
        meta: what the file says: `modality` ("CT", "MR", "CR"), `channels` (names, comma-separated),
            `notes` (what the reader had to decide).
    """

    array: np.ndarray
    geometry: Geometry
    meta: dict[str, str | float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        assert self.array.ndim in (3, 4), f"(C, Z, Y, X) or (C, Y, X), not {self.array.shape}"
        assert grid_shape(self.array) == self.geometry.shape, (self.array.shape, self.geometry.shape)
        self.array = np.ascontiguousarray(self.array)

    @property
    def spatial_dims(self) -> int:
        """3 for a volume, 2 for an image."""
        return self.array.ndim - 1

    @property
    def channel_names(self) -> list[str]:
        """One name a channel; "0", "1", ... where the file gave none."""
        names = str(self.meta.get("channels", "")).split(",")
        count = self.array.shape[0]
        return names if len(names) == count and all(names) else [str(i) for i in range(count)]

    def to_grey(self) -> Image:
        """One channel from red, green and blue; any other image is returned as it is.

        Exact where the three are equal everywhere; else the luma of ITU-R BT.601,
        0.299 R + 0.587 G + 0.114 B, rounded to the nearest whole number for integer types.
        """
        if tuple(self.channel_names) != COLOURS:
            return self
        red, green, blue = self.array
        if np.array_equal(red, green) and np.array_equal(red, blue):
            grey = red
        else:
            luma = LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue
            grey = np.rint(luma) if np.issubdtype(red.dtype, np.integer) else luma
        meta = {key: value for key, value in self.meta.items() if key != "channels"}
        return Image(grey[None].astype(self.array.dtype), self.geometry, meta)


@dataclass(frozen=True)
class Description:
    """What the header alone says, without decoding voxels.

    Attributes:
        shape: of the array that reading will give, `(C, Z, Y, X)` or `(C, Y, X)`.
        geometry: the grid.
        dtype: expected NumPy type of the voxels. A reader may still choose float32 where integers
            would overflow.
        channels: channel names, empty where the file has none.
        modality: "CT", "MR", ... or "".
        kind: name of the format.
    """

    shape: tuple[int, ...]
    geometry: Geometry
    dtype: str
    channels: tuple[str, ...] = ()
    modality: str = ""
    kind: str = ""


def grid_shape(array: np.ndarray) -> tuple[int, int, int]:
    """`(Z, Y, X)` of a `(C, Z, Y, X)` or `(C, Y, X)` array."""
    z, y, x = array.shape[1:] if array.ndim == 4 else (1, *array.shape[1:])
    return (z, y, x)


def join_names(names: Sequence[str]) -> str:
    """Channel names as `meta["channels"]` keeps them."""
    return ",".join(name.replace(",", ";") for name in names)

"""TIFF files: read and describe, one page or a stack of pages.

Values stay as stored (8, 16 or 32 bits, float); white-is-zero is inverted, palettes become colour,
alpha is dropped. Pages of equal size become Z. The resolution tags give the pixel size where their
unit is inch or centimetre; an ImageJ stack may add the distance of its pages.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from megavox.core.errors import UnreadableImage, UnsupportedImage
from megavox.images.geometry import Geometry
from megavox.images.image import COLOURS, Description, Image
from megavox.images.raster import oriented, picture_image
from megavox.images.values import check_not_empty, check_size, decoding

name = "tiff"
suffixes = (".tif", ".tiff")

_MARKS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_UNIT_MM = {2: 25.4, 3: 10.0}  # ResolutionUnit: inch, centimetre
_IMAGEJ_MM = {"mm": 1.0, "cm": 10.0, "inch": 25.4, "micron": 1e-3, "um": 1e-3, "\\u00B5m": 1e-3,
               "µm": 1e-3}


@dataclass(frozen=True)
class _Layout:
    """How the pages of a file make one array."""

    axes: str                     # tifffile's axes without those of length 1 (Y and X stay)
    shape: tuple[int, ...]        # in the order of axes
    samples: int                  # 1 or 3 after palette and alpha
    geometry: Geometry
    dtype: str
    orientation: int


def recognise(path: Path) -> bool:
    """Whether the file starts as TIFF or BigTIFF does."""
    try:
        with path.open("rb") as stream:
            return stream.read(4) in _MARKS
    except OSError:
        return False


def read(path: Path) -> Image:
    """Read a TIFF as `(C, Y, X)`, or `(C, Z, Y, X)` when it has several pages.

    Raises:
        UnreadableImage: truncated, damaged or not TIFF.
        UnsupportedImage: several images of unequal size, more than one stack axis, absurd size.
    """
    with decoding(path), _refusing_damage(path), _opened(path) as file:
        layout = _layout(file, path)
        page = file.pages[0]
        pixels = file.series[0].asarray().reshape(layout.shape)
        if "S" in layout.axes:
            pixels = np.moveaxis(pixels, layout.axes.index("S"), -1)[..., :layout.samples]
        elif page.photometric.name == "PALETTE" and page.colormap is not None:
            table = page.colormap
            pixels = np.moveaxis((table >> 8).astype(np.uint8) if table.max() > 255 else
                                 table.astype(np.uint8), 0, -1)[pixels]
        else:
            pixels = pixels[..., None]
        if page.photometric.name == "MINISWHITE":
            pixels = _inverted(pixels, path)
        if layout.orientation != 1 and pixels.ndim == 3:
            pixels = oriented(pixels, layout.orientation)
    return picture_image(pixels, layout.geometry)


def describe(path: Path) -> Description:
    """Shape, grid and type from the tags alone. Raises as `read` does."""
    with decoding(path), _refusing_damage(path), _opened(path) as file:
        layout = _layout(file, path)
    z, y, x = layout.geometry.shape
    stack = any(axis not in "YXS" for axis in layout.axes)
    return Description(shape=(layout.samples, z, y, x) if stack else (layout.samples, y, x),
                       geometry=layout.geometry, dtype=layout.dtype,
                       channels=COLOURS if layout.samples == 3 else (), kind=name)


def _opened(path: Path) -> Any:
    import tifffile

    check_not_empty(path)
    return tifffile.TiffFile(path)


@contextmanager
def _refusing_damage(path: Path) -> Iterator[None]:
    """tifffile logs a broken tag or page list and reads on with less: make that an error."""
    errors: list[str] = []

    def keep(record: logging.LogRecord) -> bool:
        if record.levelno >= logging.ERROR:
            errors.append(record.getMessage())
        return False

    logger = logging.getLogger("tifffile")
    logger.addFilter(keep)
    try:
        yield
    finally:
        logger.removeFilter(keep)
    if errors:
        raise UnreadableImage(f"the file is damaged or truncated ({' '.join(errors[0].split())[:200]})",
                              where=path, fix="Copy it again")


def _layout(file: Any, path: Path) -> _Layout:
    page, series = file.pages[0], file.series[0]
    if len(file.series) > 1:
        raise UnsupportedImage(f"the file holds {len(file.series)} images of unequal size or type",
                               where=path, expected="one image, or pages of equal size",
                               fix="Save each image as a file of its own")
    check_size(int(np.prod(series.shape, dtype=object)), series.dtype.itemsize * 8, path)
    _check_whole(file, path)
    kept = [(a, n) for a, n in zip(series.axes, series.shape, strict=True) if n > 1 or a in "YX"]
    axes, shape = "".join(a for a, _ in kept), tuple(n for _, n in kept)
    stack = [a for a in axes if a not in "YXS"]
    if len(stack) > 1 or not {"Y", "X"} <= set(axes) or page.photometric.name in ("SEPARATED", "CIELAB"):
        raise UnsupportedImage(f"the file has axes {axes} and {page.photometric.name} pixels", where=path,
                               expected="grey, palette or RGB pages in one stack",
                               fix="Save it as a single stack of grey or RGB pages")
    stored = shape[axes.index("S")] if "S" in axes else 1
    colour = (stored >= 3 and page.photometric.name in ("RGB", "YCBCR")) or page.photometric.name == "PALETTE"
    if stored > 2 and not colour:
        raise UnsupportedImage(f"the file has {stored} samples a pixel that are not RGB", where=path,
                               expected="grey, palette or RGB", fix="Save its channels as separate files")
    tag = page.tags.get("Orientation")
    orientation = int(tag.value) if tag and not stack else 1
    y, x = shape[axes.index("Y")], shape[axes.index("X")]
    if orientation > 4:
        y, x = x, y
    z = shape[axes.index(stack[0])] if stack else 1
    palette = page.photometric.name == "PALETTE"
    dtype = "uint8" if palette or series.dtype == bool else series.dtype.newbyteorder("=").name
    return _Layout(axes, shape, 3 if colour else 1, _geometry(file, (x, y, z), orientation > 4),
                   {"float64": "float32", "float16": "float32"}.get(dtype, dtype), orientation)


def _geometry(file: Any, size: tuple[int, int, int], turned: bool) -> Geometry:
    """Spacing in mm where the tags give every axis that matters; else uncalibrated."""
    tags = file.pages[0].tags
    unit, pixel_x, pixel_y = (tags.get(t) for t in ("ResolutionUnit", "XResolution", "YResolution"))
    imagej = file.imagej_metadata or {}
    mm = _UNIT_MM.get(int(unit.value)) if unit else None
    mm = mm or _IMAGEJ_MM.get(str(imagej.get("unit", "")))
    if not (mm and pixel_x and pixel_y and all(pixel_x.value) and all(pixel_y.value)):
        return Geometry(size, calibrated=False)
    x, y = (mm * tag.value[1] / tag.value[0] for tag in (pixel_x, pixel_y))
    z = float(imagej.get("spacing", 0)) * _IMAGEJ_MM.get(str(imagej.get("unit", "")), 0.0)
    if size[2] > 1 and z <= 0:
        return Geometry(size, calibrated=False)  # the distance of the pages is unknown
    return Geometry(size, spacing=(y, x, z or 1.0) if turned else (x, y, z or 1.0))


def _check_whole(file: Any, path: Path) -> None:
    """tifffile fills missing strips with zeros: check that every strip lies inside the file."""
    length = file.filehandle.size
    for page in file.pages:
        ends = [o + n for o, n in zip(page.dataoffsets, page.databytecounts, strict=False)]
        if not ends or max(ends) > length or min(page.databytecounts) <= 0:
            raise UnreadableImage(f"page {page.index} is not whole (the file has {length} bytes)",
                                  where=path, fix="Copy it again", reason="truncated")


def _inverted(pixels: np.ndarray, path: Path) -> np.ndarray:
    if pixels.dtype == bool:
        return ~pixels
    if pixels.dtype.kind != "u":
        raise UnsupportedImage(f"white-is-zero pixels of type {pixels.dtype}", where=path,
                               expected="unsigned integers")
    return np.iinfo(pixels.dtype).max - pixels

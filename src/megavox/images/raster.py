"""PNG, JPEG and BMP files: read and describe; PNG: write.

Values stay as stored: 8- and 16-bit grey or colour, 1-bit as 0 and 1. Alpha is dropped, palettes
become colour, and the EXIF orientation is applied. These formats carry no trustworthy voxel size (a
screen's 72 or 96 dpi is common), so the geometry is uncalibrated: 1 pixel along every axis.
"""

from __future__ import annotations

import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from megavox.core.errors import UnsupportedImage
from megavox.core.files import write_bytes
from megavox.images.geometry import Geometry
from megavox.images.image import COLOURS, Description, Image, join_names
from megavox.images.values import check_not_empty, decoding, native

name = "raster"
suffixes = (".png", ".jpg", ".jpeg", ".bmp")

_MARKS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM")
_GREY = {"1": "uint8", "L": "uint8", "LA": "uint8", "I;16": "uint16", "I;16B": "uint16",
         "I": "int32", "F": "float32"}
_ROTATED = (5, 6, 7, 8)  # EXIF orientations that swap rows and columns


def recognise(path: Path) -> bool:
    """Whether the file starts as PNG, JPEG or BMP does."""
    try:
        with path.open("rb") as stream:
            return stream.read(8).startswith(_MARKS)
    except OSError:
        return False


def read(path: Path) -> Image:
    """Read a picture as `(1, Y, X)` grey or `(3, Y, X)` colour.

    Raises:
        UnreadableImage: truncated, damaged or not a picture.
        UnsupportedImage: more pixels than Pillow's guard against decompression bombs allows.
    """
    picture = _opened(path)
    with decoding(path), picture:
        orientation = int(picture.getexif().get(0x0112, 1))
        if _deep_colour(path):
            picture.load()  # Pillow checks the whole stream; imagecodecs keeps all 16 bits
            pixels = _sixteen_bits(path)
        else:
            pixels = _pixels(picture)
        pixels = oriented(pixels, orientation)
    return picture_image(pixels)


def describe(path: Path) -> Description:
    """Shape and type from the header alone. Raises as `read` does."""
    picture = _opened(path)
    with decoding(path), picture:
        turned = int(picture.getexif().get(0x0112, 1)) in _ROTATED
        width, height = reversed(picture.size) if turned else picture.size
        deep = _deep_colour(path)
        grey = _grey_deep(path) if deep else picture.mode in _GREY
        dtype = "uint16" if deep else _GREY.get(picture.mode, "uint8")
    return Description(shape=(1 if grey else 3, height, width), dtype=dtype,
                       geometry=Geometry((width, height, 1), calibrated=False),
                       channels=() if grey else COLOURS, kind=name)


def write_raster(path: Path, array: np.ndarray) -> None:
    """Write `(1, Y, X)` or `(3, Y, X)`, uint8 or uint16, as PNG, whole or not at all."""
    import imagecodecs

    assert path.suffix.lower() == ".png", f"only PNG is written, not {path.name}"
    assert array.ndim == 3 and array.shape[0] in (1, 3), array.shape
    assert array.dtype in (np.uint8, np.uint16), array.dtype
    pixels = array[0] if array.shape[0] == 1 else array.transpose(1, 2, 0)
    write_bytes(path, bytes(imagecodecs.png_encode(np.ascontiguousarray(pixels))))


def picture_image(pixels: np.ndarray, geometry: Geometry | None = None) -> Image:
    """`(Y, X)`, `(Y, X, 3)` or `(Z, Y, X, 1 or 3)` pixels as an image; without geometry uncalibrated."""
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    array, note = native(np.moveaxis(pixels, -1, 0))
    meta: dict[str, str | float] = {"channels": join_names(COLOURS)} if array.shape[0] == 3 else {}
    if note:
        meta["notes"] = note
    z, y, x = (1, *array.shape[1:])[-3:]
    return Image(array, geometry or Geometry((x, y, z), calibrated=False), meta)


def oriented(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Apply an EXIF or TIFF orientation (tag 274, values 1 to 8) to `(Y, X, ...)` pixels."""
    if orientation in _ROTATED:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels


def _opened(path: Path) -> Any:
    from PIL import Image as Pillow

    check_not_empty(path)
    with decoding(path, "the file is not a picture that can be opened"):
        warnings.simplefilter("error", Pillow.DecompressionBombWarning)
        try:
            return Pillow.open(path, formats=("PNG", "JPEG", "BMP"))
        except (Pillow.DecompressionBombError, Pillow.DecompressionBombWarning) as error:
            raise UnsupportedImage(
                f"the picture declares too many pixels ({error})", where=path,
                fix="If it is not damaged, convert it to TIFF, or cut it into smaller pictures",
                reason="too large") from error


def _pixels(picture: Any) -> np.ndarray:
    mode = picture.mode
    if mode in ("LA", "La"):
        picture = picture.convert("LA").getchannel(0)
    elif mode not in _GREY:  # P, PA, RGBA, RGBX, CMYK, YCbCr, LAB, HSV
        picture = picture.convert("RGBA" if mode in ("P", "PA") else "RGB")
    pixels = np.asarray(picture)
    return pixels[..., :3] if pixels.ndim == 3 else pixels


def _deep_colour(path: Path) -> bool:
    """Whether Pillow would reduce this PNG to 8 bits: 16 bits with colour or alpha."""
    with path.open("rb") as stream:
        head = stream.read(26)
    return head.startswith(_MARKS[0]) and len(head) == 26 and head[24] == 16 and head[25] != 0


def _grey_deep(path: Path) -> bool:
    with path.open("rb") as stream:
        return struct.unpack("B", stream.read(26)[25:])[0] == 4


def _sixteen_bits(path: Path) -> np.ndarray:
    import imagecodecs

    pixels = imagecodecs.png_decode(path.read_bytes())
    return pixels[..., 0] if pixels.shape[-1] == 2 else pixels[..., :3]

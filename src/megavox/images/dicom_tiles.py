"""Tiled DICOM (whole-slide pictures and segmentations of them): tiles to one flat image.

The total pixel matrix of PS3.3 C.8.12.4: TILED_FULL files list tiles row by row; sparse ones name each
tile's place. Only small matrices are meant to be read whole (the memory guard says no to the rest).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from megavox.core.errors import UnsupportedImage
from megavox.images.dicom_header import SEGMENTATIONS, Header, group_value, open_dataset
from megavox.images.dicom_pixels import decode
from megavox.images.geometry import Geometry
from megavox.images.image import COLOURS, Description, Image, join_names
from megavox.images.values import check_size, decoding


def read_tiled(header: Header) -> Image:
    """The whole matrix as `(C, Y, X)`; a segmentation has one channel a segment, tiles left out are 0.

    Raises:
        UnsupportedImage: several focal planes or optical paths, or too large for memory.
        UnreadableImage: damaged.
    """
    dataset = open_dataset(header.path, pixels=False)
    with decoding(header.path, "the DICOM header is damaged"):
        rows, columns = _size(dataset, header)
        places, channels = _places(dataset, header, rows, columns)
    tile_rows, tile_columns = header.frames[0].shape
    out = None
    for (channel, top, left), values in zip(places, decode(header), strict=True):
        if out is None:
            out = np.zeros((channels * header.samples, rows, columns), values.dtype)
        if not (0 <= top < rows and 0 <= left < columns):
            raise UnsupportedImage(f"a tile at row {top}, column {left} lies outside the matrix of {rows} x "
                                   f"{columns}", where=header.path)
        base = channel * header.samples
        part = values[:, :min(tile_rows, rows - top), :min(tile_columns, columns - left)]
        out[base:base + header.samples, top:top + part.shape[1], left:left + part.shape[2]] = part
    assert out is not None
    meta: dict[str, str | float] = {"modality": header.modality}
    if header.samples == 3:
        meta["channels"] = join_names(COLOURS)
    elif channels > 1:
        meta["channels"] = join_names([f"segment {i + 1}" for i in range(channels)])
    return Image(out, _geometry(header, rows, columns), meta)


def describe_tiled(header: Header) -> Description:
    """Shape and grid from the header alone."""
    dataset = open_dataset(header.path, pixels=False)
    with decoding(header.path, "the DICOM header is damaged"):
        rows, columns = _size(dataset, header)
        _, channels = _places(dataset, header, rows, columns)
    return Description((channels * header.samples, rows, columns), _geometry(header, rows, columns),
                       header.dtype, COLOURS if header.samples == 3 else (), header.modality, "dicom")


def _size(dataset: Any, header: Header) -> tuple[int, int]:
    rows, columns = int(dataset.TotalPixelMatrixRows), int(dataset.TotalPixelMatrixColumns)
    check_size(rows * columns * header.samples, header.bits, header.path)
    return rows, columns


def _places(dataset: Any, header: Header, rows: int, columns: int) -> tuple[list[tuple[int, int, int]], int]:
    """(channel, top row, left column) of each frame, and the number of channels."""
    tile_rows, tile_columns = header.frames[0].shape
    segments = sorted({int(float(f.keys.get("segment", 1))) for f in header.frames})
    if "PerFrameFunctionalGroupsSequence" in dataset and group_value(
            dataset, 0, "PlanePositionSlideSequence", "RowPositionInTotalImagePixelMatrix") is not None:
        group = "PlanePositionSlideSequence"
        places = [(segments.index(int(float(f.keys.get("segment", 1)))),
                   int(group_value(dataset, f.number, group, "RowPositionInTotalImagePixelMatrix")) - 1,
                   int(group_value(dataset, f.number, group, "ColumnPositionInTotalImagePixelMatrix")) - 1)
                  for f in header.frames]
        return _single(places, header), len(segments)
    down, across = -(-rows // tile_rows), -(-columns // tile_columns)
    channels, left_over = divmod(len(header.frames), down * across)
    if left_over or (channels > 1 and header.sop_class not in SEGMENTATIONS):
        raise UnsupportedImage(f"{len(header.frames)} tiles for a matrix of {down} x {across} tiles",
                               where=header.path, expected="one focal plane and one optical path",
                               fix="Export one plane and one path as a file of its own")
    return [(k // (down * across), k % (down * across) // across * tile_rows, k % across * tile_columns)
            for k in range(len(header.frames))], channels


def _single(places: list[tuple[int, int, int]], header: Header) -> list[tuple[int, int, int]]:
    if len(set(places)) < len(places):
        raise UnsupportedImage("several tiles lie at one place (focal planes or optical paths)",
                               where=header.path, expected="one tile at each place",
                               fix="Export one plane and one path as a file of its own")
    return places


def _geometry(header: Header, rows: int, columns: int) -> Geometry:
    spacing = header.frames[0].spacing
    return Geometry((columns, rows, 1), (*(spacing or (1.0, 1.0)), header.frames[0].thickness or 1.0),
                    calibrated=spacing is not None)

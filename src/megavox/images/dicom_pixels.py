"""DICOM pixels: stored values of one file to real values, frame by frame.

Modality LUT or rescale (HU for CT, Gy for dose grids); MONOCHROME1 is inverted, so that more is
brighter, except where numbers are quantities (CT, PET, dose); palettes and YBR become RGB.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from megavox.core.errors import UnreadableImage, UnsupportedImage
from megavox.images.dicom_header import SEGMENTATIONS, Header, open_dataset, rescale_values, sop_name
from megavox.images.values import decoding, native, rescale

QUANTITIES = ("CT", "PT", "RTDOSE")


def decode(header: Header) -> Iterator[np.ndarray]:
    """Yield each frame of `header.frames` in turn as `(C, Y, X)`.

    Raises:
        UnreadableImage: damaged, truncated, or the codec is missing.
        UnsupportedImage: the file has no pixels.
    """
    from pydicom.pixels import apply_color_lut, apply_modality_lut

    dataset = open_dataset(header.path, pixels=True)
    stored = _stored(dataset, header)
    palette = header.samples == 3 and stored.shape[-1] == 1
    for frame in header.frames:
        (top, left), (rows, columns) = frame.corner, frame.shape
        part = stored[frame.number, top:top + rows, left:left + columns]
        with decoding(header.path):
            if palette:
                values = apply_color_lut(part[..., 0], dataset)[..., :3]
            elif part.shape[-1] >= 3 or header.sop_class in SEGMENTATIONS:
                values = part[..., :3]
            elif dataset.get("ModalityLUTSequence"):
                values = apply_modality_lut(_upright(part, dataset, header), dataset)
            else:
                values = rescale(_upright(part, dataset, header), *rescale_values(dataset, frame.number))
        yield np.moveaxis(native(values)[0], -1, 0)


def _stored(dataset: Any, header: Header) -> np.ndarray:
    """Decoded stored values `(F, Y, X, S)`; YBR is turned into RGB by pydicom."""
    from pydicom.pixels import pixel_array

    if not any(key in dataset for key in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise UnsupportedImage(f"the file has no pixels ({sop_name(dataset)})", where=header.path,
                               fix="Export the image with its pixels", reason="no pixels")
    count = int(dataset.get("NumberOfFrames") or 1)
    shape = (count, int(dataset.Rows), int(dataset.Columns))
    with decoding(header.path, "the pixels cannot be decoded"):
        array = pixel_array(dataset)
    if array.size % (np.prod(shape) or 1) or array.size == 0:
        raise UnreadableImage(f"decoding gave {array.shape} values", where=header.path,
                              expected=f"{shape} as the header says", fix="Export it again")
    return array.reshape(*shape, -1)


def _upright(part: np.ndarray, dataset: Any, header: Header) -> np.ndarray:
    """Stored values with MONOCHROME1 inverted within the range of BitsStored."""
    if dataset.get("PhotometricInterpretation") != "MONOCHROME1" or header.modality in QUANTITIES \
            or part.dtype.kind not in "ui":
        return part
    if part.dtype.kind == "i":
        return -1 - part
    top = max((1 << int(dataset.get("BitsStored") or header.bits)) - 1, int(part.max()))
    return (top - part.astype(np.int64)).astype(part.dtype)

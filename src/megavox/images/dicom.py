"""DICOM: one file, or the files of one series, to one image.

Single-frame series, enhanced and other multi-frame files, Siemens mosaics, segmentations, dose grids
and tiled whole slides. Values are real ones (HU after rescale); geometry is DICOM's own LPS.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from megavox.core.errors import GeometryError, ImageError
from megavox.images import dicom_tiles
from megavox.images.dicom_frame import Frame
from megavox.images.dicom_header import SEGMENTATIONS, Header, has_mark, open_dataset, read_header
from megavox.images.dicom_pixels import decode
from megavox.images.dicom_series import Stack, series_label, stack
from megavox.images.image import COLOURS, Description, Image, join_names
from megavox.images.values import common_type

name = "dicom"
suffixes = (".dcm", ".ima", ".dicom")


def recognise(path: Path) -> bool:
    """Whether the file has DICOM's mark, or parses as DICOM and might be (right suffix or none)."""
    if has_mark(path):
        return True
    if path.suffix.lower() not in (*suffixes, ""):
        return False
    try:
        open_dataset(path, pixels=False)
    except ImageError:
        return False
    return True


def read(path: Path) -> Image:
    """Read one file. See `read_series`."""
    return read_series([path])


def describe(path: Path) -> Description:
    """Describe one file. See `describe_series`."""
    return describe_series([path])


def read_series(paths: Sequence[Path]) -> Image:
    """Read the files of one series, in any order, as `(C, Z, Y, X)`; one slice as `(C, Y, X)`.

    Raises:
        UnreadableImage: a file is damaged, truncated, or its codec is missing.
        UnsupportedImage: a file holds no image.
        GeometryError: the files are not one regular grid; the distances are in mm.
    """
    headers, label = _headers(paths)
    if headers[0].tiled and len(headers) == 1:
        return dicom_tiles.read_tiled(headers[0])
    plan = _plan(headers, label)
    array = _filled(headers, plan)
    meta: dict[str, str | float] = {"modality": headers[0].modality} if headers[0].modality else {}
    if plan.notes:
        meta["notes"] = "; ".join(plan.notes)
    channels = _channel_names(plan, headers[0].samples)
    if len(channels) > 1:
        meta["channels"] = join_names(channels)
    return Image(array[:, 0] if plan.flat else array, plan.geometry, meta)


def describe_series(paths: Sequence[Path]) -> Description:
    """Shape, grid, type and modality from headers alone. Raises as `read_series` does."""
    headers, label = _headers(paths)
    first = headers[0]
    if first.tiled and len(headers) == 1:
        return dicom_tiles.describe_tiled(first)
    plan = _plan(headers, label)
    channels = _channel_names(plan, first.samples)
    shape = plan.geometry.shape[1:] if plan.flat else plan.geometry.shape
    return Description((len(channels), *shape), plan.geometry, first.dtype,
                       tuple(channels) if len(channels) > 1 else (), first.modality, name)


def _headers(paths: Sequence[Path]) -> tuple[list[Header], str]:
    assert paths, "a series needs at least one file"
    label = series_label(list(paths))
    headers = [read_header(path) for path in sorted(paths)]
    series = {header.series for header in headers}
    kinds = {(header.samples, header.tiled) for header in headers}
    if len(series) > 1 or len(kinds) > 1:
        raise GeometryError(f"the files belong to {max(len(series), len(kinds))} series", where=label,
                            expected="the files of one series", reason="mixed series",
                            fix="Let find_images sort the folder into series, or give one series at a time")
    return headers, label


def _plan(headers: list[Header], label: str) -> Stack:
    by_path = {header.path: header for header in headers}
    known: dict[int, bytes] = {}  # by identity: a frame holds a dict and has no hash

    def digest(frame: Frame) -> bytes:
        if frame.path in by_path:  # decode each file once
            header = by_path.pop(frame.path)
            for other, values in zip(header.frames, decode(header), strict=True):
                known[id(other)] = hashlib.sha256(np.ascontiguousarray(values).tobytes()).digest()
        return known[id(frame)]

    frames = [frame for header in headers for frame in header.frames]
    return stack(frames, label, digest, segmentation=headers[0].sop_class in SEGMENTATIONS)


def _filled(headers: list[Header], plan: Stack) -> np.ndarray:
    """`(C, Z, Y, X)`, one file decoded at a time, in the narrowest type that holds all slices."""
    place = {(f.path, f.number, f.corner): p for f, p in zip(plan.frames, plan.places, strict=True)}
    samples, out = headers[0].samples, None
    for header in headers:
        if not any((f.path, f.number, f.corner) in place for f in header.frames):
            continue
        for frame, values in zip(header.frames, decode(header), strict=True):
            at = place.get((frame.path, frame.number, frame.corner))
            if at is None:
                continue
            if out is None:
                out = np.zeros((len(plan.channels) * samples, *plan.geometry.shape), values.dtype)
            elif out.dtype != values.dtype:
                out = out.astype(common_type(out, values))
            out[at[0] * samples:(at[0] + 1) * samples, at[1]] = values
    assert out is not None
    return out


def _channel_names(plan: Stack, samples: int) -> list[str]:
    colours = COLOURS if samples == 3 else ("",)
    return [f"{group} {colour}".strip() for group in plan.channels for colour in colours]


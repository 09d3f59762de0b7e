"""Stored numbers to real values, and the guards that all readers share.

Integers stay integers wherever that is exact: a 512^3 CT in int16 takes half of float32's memory.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from megavox.core.errors import GeometryError, MegavoxError, UnreadableImage, UnsupportedImage

LARGEST_IMAGE_BYTES = 8 << 30
LARGEST_SHEAR_DEGREES = 0.5
_INT16 = np.iinfo(np.int16)


def rescale(stored: np.ndarray, slope: float, intercept: float) -> np.ndarray:
    """Real values `slope * stored + intercept`.

    The stored type is kept for slope 1 and intercept 0. Whole slope and intercept give int16 where
    all values fit. Everything else is computed in float64 and returned as float32.
    """
    if slope == 1 and intercept == 0:
        return stored
    whole = float(slope).is_integer() and float(intercept).is_integer()
    if whole and stored.dtype.kind in "bui" and stored.size and stored.dtype.itemsize <= 4:
        ends = [int(slope) * int(end) + int(intercept) for end in (stored.min(), stored.max())]
        if min(ends) >= _INT16.min and max(ends) <= _INT16.max:
            return (stored.astype(np.int64) * int(slope) + int(intercept)).astype(np.int16)
    return (stored.astype(np.float64) * slope + intercept).astype(np.float32)


def common_type(first: np.ndarray, second: np.ndarray) -> np.dtype:
    """The type for slices that came out in two types: int16 where all values fit, else float32."""
    if first.dtype == second.dtype:
        return first.dtype
    arrays = [array for array in (first, second) if array.size]
    if all(a.dtype.kind in "bui" and a.min() >= _INT16.min and a.max() <= _INT16.max for a in arrays):
        return np.dtype(np.int16)
    return np.dtype(np.float32)


def native(array: np.ndarray) -> tuple[np.ndarray, str]:
    """Voxels in the machine's byte order with at most 32-bit floats, and a note if that rounded."""
    if array.dtype == bool:
        return array.astype(np.uint8), ""
    if array.dtype.kind == "f" and array.dtype != np.float32:
        single = _as_float32(array)
        exact = array.dtype.itemsize < 4 or np.array_equal(single, array, equal_nan=True)
        return single, f"{array.dtype.name} read as float32, {'exact' if exact else 'rounded'}"
    if not array.dtype.isnative:
        return array.astype(array.dtype.newbyteorder("=")), ""
    return array, ""


def _as_float32(array: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore", invalid="ignore"):  # too large becomes inf; check_image says so
        return array.astype(np.float32)


def check_size(count: int, bits: int, where: object) -> None:
    """Refuse a header that asks for more memory than any real image needs.

    Raises:
        UnsupportedImage: `reason` "too large".
    """
    needed = count * bits // 8
    if needed > LARGEST_IMAGE_BYTES:
        raise UnsupportedImage(
            f"the header declares {needed / (1 << 30):.1f} GiB of voxels", where=where,
            expected=f"at most {LARGEST_IMAGE_BYTES >> 30} GiB",
            fix="If the file is not damaged, split it into smaller images", reason="too large")


def check_affine(affine: np.ndarray, where: object) -> None:
    """Refuse a 4x4 matrix from index to world that is not finite, is singular, or shears the grid.

    Raises:
        GeometryError: `reason` "affine" or "shear".
    """
    fix = "Mend the header's voxel size and directions, or export the image again"
    if not np.isfinite(affine).all():
        raise GeometryError("the affine has values that are not finite", where=where, fix=fix,
                            reason="affine")
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if lengths.min() <= 0 or abs(np.linalg.det(affine[:3, :3] / np.where(lengths > 0, lengths, 1))) < 1e-3:
        raise GeometryError(f"the affine is singular (voxel size {np.round(lengths, 6).tolist()} mm)",
                            where=where, expected="three independent axes of more than 0 mm", fix=fix,
                            reason="affine")
    axes = affine[:3, :3] / lengths
    cosines = np.abs(axes.T @ axes - np.eye(3)).max()
    shear = float(np.degrees(np.arcsin(min(cosines, 1.0))))
    if shear > LARGEST_SHEAR_DEGREES:
        raise GeometryError(f"the axes of the grid are sheared by {shear:.2f} degrees", where=where,
                            expected=f"at most {LARGEST_SHEAR_DEGREES} degrees",
                            fix="Resample it onto a grid with right angles first", reason="shear")


def check_not_empty(path: Path) -> None:
    """Raises `UnreadableImage` for a file that is not there, cannot be opened, or holds no bytes."""
    try:
        with path.open("rb"):
            size = path.stat().st_size
    except OSError as error:
        raise UnreadableImage(f"the file cannot be opened ({os.strerror(error.errno or 0)})",
                              where=path, fix="Check the path and its permissions") from error
    if size == 0:
        raise UnreadableImage("the file is empty (0 bytes)", where=path, fix="Copy it again",
                              reason="empty file")


@contextmanager
def decoding(path: object, what: str = "the image cannot be decoded") -> Iterator[None]:
    """Turn whatever a decoding library raises into `UnreadableImage`, and drop its warnings.

    The warnings are dropped because they quote header values, and those may identify a patient.

    Decoders meet arbitrary bytes and raise almost anything (struct.error, KeyError, RuntimeError,
    ...): catching all of it is right here, and only here.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except MegavoxError:
            raise
        except Exception as error:  # see the docstring
            text = " ".join(str(error).split())[:300]
            raise UnreadableImage(
                f"{what} ({type(error).__name__}: {text})", where=path,
                fix="The file is damaged, truncated or uses a coding we lack: copy or export it "
                    "again") from error

"""NIfTI-1 and NIfTI-2 files (.nii, .nii.gz): read, describe, write.

World coordinates turn from RAS+ (NIfTI) to LPS (here) by negating x and y. Axes beyond the third
become channels. Integers stay as stored; nothing is resampled or reordered.

Source: https://nifti.nimh.nih.gov/pub/dist/src/niftilib/nifti1.h (methods 1, 2 and 3).
"""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from megavox.core.errors import UnreadableImage, UnsupportedImage
from megavox.core.files import whole_file
from megavox.images.geometry import Geometry
from megavox.images.image import COLOURS, Description, Image, grid_shape, join_names
from megavox.images.values import check_affine, check_not_empty, check_size, decoding, native, rescale

name = "nifti"
suffixes = (".nii", ".nii.gz")

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_MM = {"mm": 1.0, "meter": 1000.0, "micron": 0.001}
_BLOCK = 1 << 22


def recognise(path: Path) -> bool:
    """Whether the first bytes are a NIfTI-1 or NIfTI-2 header, gzipped or not."""
    try:
        with _open(path) as stream:
            start = stream.read(348)
    except (OSError, EOFError, ValueError):
        return False
    except Exception:  # zlib.error on a damaged stream
        return False
    return start[344:348] in (b"n+1\0",) or start[4:8] == b"n+2\0"


def read(path: Path) -> Image:
    """Read a NIfTI file as `(C, Z, Y, X)`, or `(C, Y, X)` when it holds one slice.

    Raises:
        UnreadableImage: truncated, damaged or not NIfTI.
        GeometryError: no usable affine.
        UnsupportedImage: complex voxels, more than five axes, absurd size.
    """
    header = _header(path)
    shape, affine, meta = _grid(header, path)
    stored_type = header.get_data_dtype()
    with decoding(path):
        stored = _voxels(path, header, shape, stored_type)
    if stored_type.names:  # RGB24, RGBA32
        stored = np.stack([stored[c] for c in stored_type.names[:3]], axis=-1)
        meta["channels"] = join_names(COLOURS)
    slope, intercept = _scaling(header)
    values = rescale(stored, slope, intercept)
    values, note = native(values)
    if note:
        meta["notes"] = "; ".join(filter(None, [str(meta.get("notes", "")), note]))
    array = _channels_first(values)
    size = grid_shape(array)[::-1]
    return Image(array, Geometry.from_affine(affine, size), meta)


def describe(path: Path) -> Description:
    """Shape, grid and type from the header alone. Raises as `read` does."""
    header = _header(path)
    shape, affine, _ = _grid(header, path)
    dtype = header.get_data_dtype()
    colour = bool(dtype.names)
    slope, intercept = _scaling(header)
    scaled = np.zeros(1, np.uint8 if colour else dtype)
    return Description(shape=_channel_shape((*shape, 3) if colour else shape),
                       geometry=Geometry.from_affine(affine, shape[:3]),
                       dtype=native(rescale(scaled, slope, intercept))[0].dtype.name,
                       channels=COLOURS if colour else (), kind=name)


def write_nifti(path: Path, image: Image | np.ndarray, geometry: Geometry | None = None) -> None:
    """Write an image or mask as NIfTI-1, whole or not at all; equal content gives equal bytes.

    Values are stored unscaled in their own type, except: bool becomes uint8, 32- and 64-bit
    integers (label arrays) become uint8 when they lie in 0..255, floats become float32. The grid is
    kept to float32, about 1e-5 mm for positions below 100 mm.

    Args:
        path: ends in .nii or .nii.gz.
        image: an `Image`, or `(C, Z, Y, X)`, `(C, Y, X)` or `(Z, Y, X)` values on `geometry`.
        geometry: needed when `image` is an array.
    """
    import nibabel

    array, geometry = (image.array, image.geometry) if isinstance(image, Image) else (image, geometry)
    assert geometry is not None, "write_nifti needs the geometry of a plain array"
    if array.ndim == 3 and array.shape == geometry.shape and grid_shape(array) != geometry.shape:
        array = array[None]
    assert grid_shape(array) == geometry.shape, (array.shape, geometry.shape)
    channels = array.reshape(array.shape[0], *geometry.shape)
    voxels = _writable(channels).transpose(3, 2, 1, 0)
    if voxels.shape[3] == 1:
        voxels = voxels[..., 0]
    affine = RAS_TO_LPS @ geometry.affine()
    out = cast(Any, nibabel.Nifti1Image(voxels, affine))
    out.header.set_data_dtype(voxels.dtype)
    out.set_sform(affine, code=1)
    out.set_qform(affine, code=1, strip_shears=True)
    out.header.set_xyzt_units("mm")
    suffix = ".nii.gz" if path.name.endswith(".gz") else ".nii"
    with whole_file(path, suffix=suffix) as temporary, temporary.open("wb") as stream:
        if suffix == ".nii":
            out.to_stream(stream)
        else:  # mtime and name would make equal content differ
            with gzip.GzipFile("", "wb", compresslevel=4, fileobj=stream, mtime=0) as packed:
                out.to_stream(packed)


def _open(path: Path) -> IO[bytes]:
    with path.open("rb") as stream:
        packed = stream.read(2) == b"\x1f\x8b"
    return cast(IO[bytes], gzip.open(path, "rb")) if packed else path.open("rb")


def _header(path: Path) -> Any:
    """The nibabel header, checked to be NIfTI."""
    import nibabel
    from nibabel.imageglobals import LoggingOutputSuppressor

    check_not_empty(path)
    with decoding(path, "the file is not NIfTI or its header is damaged"), LoggingOutputSuppressor():
        with _open(path) as stream:
            start = stream.read(540)
        kind = nibabel.Nifti2Header if start[4:7] == b"n+2" else nibabel.Nifti1Header
        if len(start) < kind.template_dtype.itemsize:
            raise UnreadableImage(f"the file ends inside the header ({len(start)} bytes)", where=path,
                                  fix="Copy it again", reason="truncated")
        if start[4:7] != b"n+2" and start[344:347] != b"n+1":
            raise UnreadableImage("the file does not have the mark of a NIfTI file", where=path,
                                  expected="a single-file NIfTI-1 or NIfTI-2",
                                  fix="Convert it, for example with SimpleITK or dcm2niix",
                                  reason="not nifti")
        header = kind(start[:kind.template_dtype.itemsize], check=True)
        header.get_data_dtype()
    return header


def _grid(header: Any, path: Path) -> tuple[tuple[int, ...], np.ndarray, dict[str, str | float]]:
    """Shape of three axes or more without trailing ones, the LPS affine in mm, and notes."""
    with decoding(path, "the header is damaged"):
        shape = tuple(int(n) for n in header.get_data_shape())
        dtype = header.get_data_dtype()
        spacing = np.asarray(header.get_zooms()[:3], float)
        code = int(header["sform_code"]) or int(header["qform_code"])
        affine = header.get_sform() if header["sform_code"] > 0 else (
            header.get_qform() if code > 0 else None)
        unit = _MM.get(header.get_xyzt_units()[0], 1.0)
    if not shape or min(shape) < 1:
        raise UnreadableImage(f"the header declares the shape {shape}", where=path,
                              expected="at least one voxel along every axis", reason="empty")
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    shape += (1,) * (3 - len(shape))
    if len(shape) > 5 or dtype.kind == "c":
        what = "complex voxels" if dtype.kind == "c" else f"{len(shape)} axes"
        raise UnsupportedImage(f"the file has {what}", where=path,
                               expected="real values and at most five axes")
    check_size(int(np.prod(shape, dtype=object)), dtype.itemsize * 8, path)
    meta: dict[str, str | float] = {}
    if affine is None:  # method 1 of nifti1.h: spacing only
        spacing = np.concatenate([np.abs(spacing), np.ones(3)])[:3]
        affine = RAS_TO_LPS @ np.diag([*spacing, 1.0])
        meta["notes"] = "position and direction unknown: neither sform nor qform is set"
    affine = RAS_TO_LPS @ affine
    affine[:3] *= unit
    check_affine(affine, path)
    return shape, affine, meta


def _scaling(header: Any) -> tuple[float, float]:
    """scl_slope and scl_inter; a slope of 0 or one that is not finite means "not scaled"."""
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if header.get_data_dtype().names or not np.isfinite(slope) or slope == 0:
        return 1.0, 0.0
    return slope, intercept if np.isfinite(intercept) else 0.0


def _voxels(path: Path, header: Any, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Stored values in file order. A gzip stream is read to its end, so that its checksum is checked."""
    count = int(np.prod(shape))
    data = np.empty(count, dtype)
    view = memoryview(data.view(np.uint8))  # type: ignore[arg-type]
    with _open(path) as stream:
        stream.seek(max(int(header["vox_offset"]), header.template_dtype.itemsize))
        filled = 0
        while filled < len(view):
            got = stream.readinto(view[filled:filled + _BLOCK])  # type: ignore[attr-defined]
            if not got:
                raise UnreadableImage(f"the file ends after {filled} of {len(view)} bytes of voxels",
                                      where=path, fix="Copy it again", reason="truncated")
            filled += got
        while isinstance(stream, gzip.GzipFile) and stream.read(_BLOCK):
            pass
    return data.reshape(shape, order="F")


def _channel_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    x, y, z = shape[:3]
    channels = int(np.prod(shape[3:], dtype=int))
    return (channels, y, x) if z == 1 else (channels, z, y, x)


def _channels_first(values: np.ndarray) -> np.ndarray:
    """`(X, Y, Z)`, `(X, Y, Z, T)` or `(X, Y, Z, T, V)` to `(C, Z, Y, X)`, or `(C, Y, X)` for one slice."""
    shape = _channel_shape(values.shape)
    return np.ascontiguousarray(values.T).reshape(shape)


def _writable(array: np.ndarray) -> np.ndarray:
    if array.dtype == bool:
        return array.astype(np.uint8)
    if array.dtype.kind in "ui" and array.dtype.itemsize >= 4 and array.size \
            and array.min() >= 0 and array.max() <= 255:
        return array.astype(np.uint8)
    if array.dtype.kind == "f":
        return array.astype(np.float32)
    return array

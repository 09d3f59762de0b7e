"""MetaImage files: a text header with its voxels in a file beside it (.mhd) or behind it (.mha). Read and describe.

World coordinates are LPS, as ITK writes them; `AnatomicalOrientation` is not looked at, which is what ITK does.
Values stay as stored; the channels of an element become channels.

Source: https://itk.org/Wiki/ITK/MetaIO/Documentation, and ITK's MetaImageIO where that is silent.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import IO

import numpy as np

from megavox.core.errors import ImageError, UnreadableImage, UnsupportedImage
from megavox.images.geometry import Geometry
from megavox.images.image import Description, Image
from megavox.images.values import check_affine, check_not_empty, check_size, decoding, native

name = "metaimage"
suffixes = (".mhd", ".mha")

DATA_SUFFIXES = (".raw", ".zraw")
_LONGEST_HEADER = 1 << 16
_BLOCK = 1 << 22
_LAST_KEY = re.compile(rb"^ElementDataFile[ \t]*=[ \t]*([^\r\n]*?)[ \t]*(?:\r?\n|\Z)", re.MULTILINE)
_TYPES = {"MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4", "MET_UINT": "u4",
          "MET_LONG": "i4", "MET_ULONG": "u4", "MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8", "MET_FLOAT": "f4",
          "MET_DOUBLE": "f8"}


@dataclass(frozen=True)
class _Header:
    """What a header says.

    Attributes:
        shape: `(C, Z, Y, X)`, or `(C, Y, X)` of one slice.
        dtype: of the stored values, in their byte order.
        data: file of the voxels.
        start: where they begin in it, in bytes; None: they are its last bytes.
        packed: whether they are a zlib stream.
    """

    shape: tuple[int, ...]
    geometry: Geometry
    dtype: np.dtype
    data: Path
    start: int | None
    packed: bool
    modality: str

    @property
    def bytes(self) -> int:
        """Of the voxels, unpacked."""
        return int(np.prod(self.shape, dtype=object)) * self.dtype.itemsize


def recognise(path: Path) -> bool:
    """Whether the file begins with lines of `Key = value`, `NDims` among them."""
    try:
        with path.open("rb") as stream:
            start = stream.read(4096)
    except OSError:
        return False
    return re.match(rb"\w+[ \t]*=", start) is not None and re.search(rb"(?m)^NDims[ \t]*=[ \t]*\d", start) is not None


def read(path: Path) -> Image:
    """Read a MetaImage as `(C, Z, Y, X)`, or `(C, Y, X)` when it holds one slice.

    Raises:
        UnreadableImage: header damaged; voxels missing, truncated, or outside the header's folder.
        GeometryError: no usable affine.
        UnsupportedImage: voxels as text or in a list of files, more than three axes, absurd size.
    """
    header = _header(path)
    with decoding(path), header.data.open("rb") as stream:
        stream.seek(header.data.stat().st_size - header.bytes if header.start is None else header.start)
        data = np.empty(header.bytes, np.uint8)
        view = memoryview(data)  # type: ignore[arg-type]
        filled = _unpack(stream, view, path) if header.packed else _copy(stream, view)
    if filled < len(data):
        raise _truncated(path, header, filled)
    # The channels of an element lie side by side.
    values = np.moveaxis(data.view(header.dtype).reshape(*header.shape[1:], header.shape[0]), -1, 0)
    array, note = native(values)
    meta: dict[str, str | float] = {"notes": note} if note else {}
    if header.modality:
        meta["modality"] = header.modality
    return Image(array, header.geometry, meta)


def describe(path: Path) -> Description:
    """Shape, grid and type from the header, and whether the voxels are there. Raises as `read` does."""
    header = _header(path)
    return Description(shape=header.shape, geometry=header.geometry, modality=header.modality, kind=name,
                       dtype=native(np.zeros(1, header.dtype))[0].dtype.name)


def files(path: Path) -> tuple[Path, ...]:
    """The header, and the file of the voxels where that is another one that can be found."""
    try:
        data = _header(path).data
    except ImageError:
        return (path,)
    return (path,) if data == path else (path, data)


def is_data(file: str, beside: Set[str]) -> bool:
    """Whether a file called so holds the voxels of a header `beside` it, and is no image by itself."""
    stem, dot, ending = file.rpartition(".")
    return dot + ending.lower() in DATA_SUFFIXES and f"{stem}.mhd" in beside


def _header(path: Path) -> _Header:
    check_not_empty(path)
    with path.open("rb") as stream:
        start = stream.read(_LONGEST_HEADER)
    last = _LAST_KEY.search(start)
    if last is None:
        raise UnreadableImage("the file has no line `ElementDataFile = ...`, which ends a MetaImage header", where=path,
                              fix="Copy it again, or convert it, for example with SimpleITK", reason="not metaimage")
    lines = (line.partition("=") for line in start[:last.start()].decode("latin-1").splitlines())
    keys = {key.strip(): value.strip() for key, _, value in lines}
    with decoding(path, "the header is damaged"):
        shape, geometry = _grid(keys, path)
        dtype = _type(keys, path)
        packed = _yes(keys, "CompressedData")
        skip = int(keys.get("HeaderSize", "0"))
        check_affine(geometry.affine(), path)
        check_size(int(np.prod(shape, dtype=object)), dtype.itemsize * 8, path)
        target = last[1].decode("utf-8", "surrogateescape")
        local = target.upper() == "LOCAL"
        header = _Header(shape, geometry, dtype, path if local else _beside(path, target),
                         last.end() if local else None if skip == -1 else max(skip, 0), packed,
                         keys.get("Modality", "").removeprefix("MET_MOD_").replace("UNKNOWN", ""))
        there = header.data.stat().st_size - (header.start or 0)
    if not packed and there < header.bytes:
        raise _truncated(path, header, max(there, 0))
    return header


def _grid(keys: dict[str, str], path: Path) -> tuple[tuple[int, ...], Geometry]:
    """Shape of the array and the grid; a plane is given a third axis."""
    dims = int(keys["NDims"])
    if dims not in (2, 3):
        raise UnsupportedImage(f"the file has {dims} axes", where=path, expected="2 or 3",
                               fix="Split it into volumes, for example with SimpleITK")
    x, y, z = (*map(int, keys["DimSize"].split()), *[1] * (3 - dims))
    channels = int(keys.get("ElementNumberOfChannels", "1"))
    if min(x, y, z, channels) < 1:
        raise UnreadableImage(f"the header declares {x} x {y} x {z} voxels of {channels} channels", where=path,
                              expected="at least one voxel along every axis", reason="empty")
    affine = np.eye(4)
    axes = _numbers(keys, ("TransformMatrix", "Rotation", "Orientation"), np.eye(dims))
    spacing = _numbers(keys, ("ElementSpacing", "ElementSize"), np.ones(dims))
    affine[:dims, :dims] = axes.reshape(dims, dims).T * spacing  # the matrix stands axis by axis
    affine[:dims, 3] = _numbers(keys, ("Offset", "Position", "Origin"), np.zeros(dims))
    calibrated = "ElementSpacing" in keys or "ElementSize" in keys
    return ((channels, y, x) if z == 1 else (channels, z, y, x),
            Geometry.from_affine(affine, (x, y, z), calibrated))


def _numbers(keys: dict[str, str], names: tuple[str, ...], default: np.ndarray) -> np.ndarray:
    """The numbers of the first key that is there; as many as `default` has."""
    text = next((keys[key] for key in names if key in keys), None)
    if text is None:
        return default.ravel()
    found = np.array(text.split(), float)
    if len(found) != default.size:
        raise ValueError(f"{names[0]} has {len(found)} numbers instead of {default.size}")
    return found


def _type(keys: dict[str, str], path: Path) -> np.dtype:
    stored = keys["ElementType"]
    if stored not in _TYPES or not _yes(keys, "BinaryData", "True"):
        raise UnsupportedImage(f"the voxels are stored as {stored if stored not in _TYPES else 'text'}", where=path,
                               expected=", ".join(_TYPES), fix="Convert it, for example with SimpleITK")
    big = _yes(keys, "BinaryDataByteOrderMSB") or _yes(keys, "ElementByteOrderMSB")
    return np.dtype((">" if big else "<") + _TYPES[stored])


def _yes(keys: dict[str, str], key: str, default: str = "False") -> bool:
    return keys.get(key, default).lower() in ("true", "1", "t", "y", "yes")


def _beside(path: Path, target: str) -> Path:
    """The file that a header names, which must lie in the header's folder or below it."""
    if target.upper().startswith("LIST") or re.search(r"%\d*d", target):
        raise UnsupportedImage("the voxels lie in a list of files", where=path, expected="one file of voxels",
                               fix="Convert it into one file, for example with SimpleITK")
    parts = PureWindowsPath(target)  # knows / and \ and drives
    if not target or parts.anchor or ".." in parts.parts or "\0" in target:
        raise UnreadableImage(f"the header names {target!r} as the file of its voxels", where=path,
                              expected="a file in the header's folder, or below it", reason="leads out of the folder",
                              fix="Put the file beside the header and mend the line ElementDataFile")
    data = path.parent / target
    if not data.is_file():
        raise UnreadableImage(f"the file of its voxels, {target}, is not there", where=path, reason="missing voxels",
                              fix="Copy it beside the header, or mend the line ElementDataFile")
    return data


def _copy(stream: IO[bytes], view: memoryview) -> int:
    """Fill `view` from a stream; how many bytes there were."""
    filled = 0
    while filled < len(view) and (got := stream.readinto(view[filled:filled + _BLOCK])):  # type: ignore[attr-defined]
        filled += got
    return filled


def _unpack(stream: IO[bytes], view: memoryview, path: Path) -> int:
    """Fill `view` from a zlib or gzip stream, never with more than it holds; how many bytes there were.

    The stream is read to its end, so that its checksum is checked.
    """
    unpacker, filled = zlib.decompressobj(wbits=47), 0
    while not unpacker.eof and (block := unpacker.unconsumed_tail or stream.read(_BLOCK)):
        part = unpacker.decompress(block, min(_BLOCK, len(view) - filled + 1))
        if filled + len(part) > len(view):
            raise UnreadableImage(f"the file holds more voxels than the {len(view)} bytes that its header declares",
                                  where=path, fix="Export it again", reason="wrong size")
        view[filled:filled + len(part)] = part
        filled += len(part)
    if filled == len(view) and not unpacker.eof:
        raise UnreadableImage("the file ends before the checksum of its voxels", where=path, fix="Copy it again",
                              reason="truncated")
    return filled


def _truncated(path: Path, header: _Header, found: int) -> UnreadableImage:
    where = "" if header.data == path else f"{header.data.name}, the file of its voxels, "
    return UnreadableImage(f"{where or 'the file '}ends after {found} of {header.bytes} bytes of voxels", where=path,
                           fix="Copy it again", reason="truncated")

"""How a packed case lies on disk: standard sharded Zarr v3 with OME-Zarr 0.5 metadata.

    store/<key>/zarr.json              group, NGFF multiscales (one scale) in mm
    store/<key>/0                      image (C, Z, Y, X): one shard, inner chunks 16 x 16 x 32
    store/<key>/labels/mask/0          mask (Z, Y, X) uint8, inner chunks 32^3, where the task has masks
    store/<key>/positions.npy          (N, 1 + dims): class, then voxel indices, where it has masks; to detect
                                       also of class 0, anywhere else where findings are looked for
    store/<key>/record.json            everything else and its CRC32C, written last

Chunks are LZ4HC, with byte shuffle where a voxel has several bytes, each followed by its CRC32C; the
shard's index has one too; pictures that hardly compress are stored as they are. Empty chunks are written
out, so that a chunk that is not there is always damage. Keys are not derived from names of patients: nothing
in the store tells who somebody is.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr
from numcodecs import Blosc
from zarr.codecs import BloscCodec, Crc32cCodec

from megavox.cohort.case import Finding
from megavox.images.geometry import Geometry

IMAGE = "0"
MASK = "labels/mask/0"
POSITIONS = "positions.npy"
RECORD = "record.json"
CHUNKS = {3: (16, 16, 32), 2: (256, 256)}  # voxels; see docs/decisions/007
IGNORE = 255  # value of voxels that teach nothing, in stored masks
OUTSIDE = 254  # value of voxels where findings are not looked for
MASK_CHUNK = 32  # voxels along each axis of a volume's mask, which compresses to next to nothing


@dataclass(frozen=True)
class Record:
    """What is known of a packed case without opening its arrays.

    Attributes:
        key: name of its folder in the store.
        shape: of the image array, `(C, Z, Y, X)` or `(C, Y, X)`.
        geometry: of the stored grid.
        original: of the image as it came.
        intensities: per channel, from `images.intensity.intensity_statistics`.
        pixel_hash: of the voxels as they came, to find one image twice.
        mask_hash: hash of the mask as it came; "" without.
        voxels: stored voxels of each class, in the order of the task (masks only).
        classes: numbers of the classes that hold; None without (masks only).
        unknown: numbers of the classes of which it is not known whether they hold.
        findings: in LPS world mm; None where the target is no findings.
        bytes: size of each shard and of the positions, to find truncated ones.
        remarks: what was odd but harmless.
        source: fingerprint of the files and the target that it was packed from.
    """

    key: str
    shape: tuple[int, ...]
    geometry: Geometry
    original: Geometry
    intensities: list[dict[str, Any]]
    pixel_hash: str
    mask_hash: str = ""
    voxels: tuple[int, ...] = ()
    classes: tuple[int, ...] | None = None
    unknown: tuple[int, ...] = ()
    findings: tuple[Finding, ...] | None = None
    bytes: tuple[tuple[str, int], ...] = ()
    remarks: tuple[str, ...] = ()
    source: str = ""

    @property
    def spatial_dims(self) -> int:
        """2 or 3."""
        return len(self.shape) - 1

    @property
    def spacing_mm(self) -> tuple[float, ...]:
        """Spacing of the stored grid in array order, as many numbers as dimensions."""
        return self.geometry.spacing_zyx[-self.spatial_dims:]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "geometry": self.geometry.to_dict(), "original": self.original.to_dict()}

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Record:
        """Inverse of `to_dict`."""
        return cls(**{
            **value, "shape": tuple(value["shape"]), "voxels": tuple(value["voxels"]),
            "geometry": Geometry.from_dict(value["geometry"]), "original": Geometry.from_dict(value["original"]),
            "classes": None if value["classes"] is None else tuple(value["classes"]),
            "findings": None if value["findings"] is None else tuple(
                Finding(**{**one, "centre_mm": tuple(one["centre_mm"])}) for one in value["findings"]),
            "unknown": tuple(value["unknown"]), "remarks": tuple(value["remarks"]),
            "bytes": tuple((name, size) for name, size in value["bytes"])})


def write_arrays(folder: Path, image: np.ndarray, mask: np.ndarray | None, geometry: Geometry) -> None:
    """Write image and mask arrays with their OME-Zarr metadata into a new folder."""
    dims = image.ndim - 1
    scale = list(geometry.spacing_zyx[-dims:])
    origin = list(geometry.origin[::-1][-dims:])
    zarr.create_group(str(folder), zarr_format=3, attributes={"ome": {
        "version": "0.5", "multiscales": [_multiscale("image", dims, scale, origin, channel=True)]}})
    _write_array(folder / IMAGE, image)
    if mask is not None:
        zarr.create_group(str(folder / "labels"), zarr_format=3,
                          attributes={"ome": {"version": "0.5", "labels": ["mask"]}})
        zarr.create_group(str(folder / "labels/mask"), zarr_format=3, attributes={"ome": {
            "version": "0.5", "image-label": {"source": {"image": "../../"}},
            "multiscales": [_multiscale("mask", dims, scale, origin, channel=False)]}})
        _write_array(folder / MASK, mask)


def shard_files(folder: Path) -> list[Path]:
    """The shard files of a case, in a fixed order."""
    return sorted(path for path in folder.rglob("c/**/*") if path.is_file())


def chunk_shape(shape: tuple[int, ...], dims: int) -> tuple[int, ...]:
    """Shape of the inner chunks of an array: an image `(C, *S)` or a mask `S`, with `dims` spatial axes."""
    edges = (MASK_CHUNK,) * 3 if len(shape) == dims == 3 else CHUNKS[dims]
    return (*[1] * (len(shape) - dims), *map(min, edges, shape[-dims:]))


def _multiscale(name: str, dims: int, scale: list[float], origin: list[float], channel: bool) -> dict[str, Any]:
    space = [{"name": axis, "type": "space", "unit": "millimeter"} for axis in "zyx"[-dims:]]
    lead = [1.0] if channel else []
    return {"name": name, "axes": [{"name": "c", "type": "channel"}, *space] if channel else space,
            "datasets": [{"path": "0", "coordinateTransformations": [
                {"type": "scale", "scale": lead + scale},
                {"type": "translation", "translation": [0.0] * len(lead) + origin}]}]}


def _write_array(path: Path, array: np.ndarray) -> None:
    masked = path.as_posix().endswith(MASK)
    dims = array.ndim if masked else array.ndim - 1
    chunks = chunk_shape(array.shape, dims)
    shards = tuple(-(-n // c) * c for n, c in zip(array.shape, chunks, strict=True))
    target = zarr.create_array(
        str(path), shape=array.shape, chunks=chunks, shards=shards, dtype=array.dtype, fill_value=0,
        compressors=[_compression(array, chunks, dims), Crc32cCodec()],
        dimension_names=list("zyx"[-dims:]) if masked else ["c", *"zyx"[-dims:]],
        config={"write_empty_chunks": True})
    target[...] = array


def _compression(array: np.ndarray, chunk: tuple[int, ...], dims: int) -> BloscCodec:
    """LZ4HC; level 0, which stores voxels as they are, for pictures of which it would not save half.

    Radiographs are such: decoding them would take longer than reading twice the bytes, and they are small.
    """
    shuffle: Literal["noshuffle", "shuffle"]  # undoing it on bytes moves nothing, slowly
    shuffle = "noshuffle" if array.dtype.itemsize == 1 else "shuffle"
    middle = array[tuple(slice((n - c) // 2, (n - c) // 2 + c) for n, c in zip(array.shape, chunk, strict=True))]
    packed = Blosc("lz4hc", 5, Blosc.SHUFFLE if shuffle == "shuffle" else Blosc.NOSHUFFLE).encode(middle.copy())
    worth = dims == 3 or len(packed) <= middle.nbytes / 2
    return BloscCodec(cname="lz4hc", clevel=5 if worth else 0, shuffle=shuffle)

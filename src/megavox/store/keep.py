"""Which cases packed before may stay: their record is whole, and so, as far as few looks tell, are their files.

A case costs its record, the index at the end of each shard, and a look at the sizes of the other files.
The voxels are not read: chunks have checksums of their own, which the reader compares.
"""

from __future__ import annotations

import json
import os
from math import prod
from pathlib import Path
from typing import Any

import google_crc32c

from megavox.core.files import plain, write_json
from megavox.store.layout import IMAGE, MASK, POSITIONS, RECORD, Record, chunk_shape
from megavox.store.shard import DamagedShard, read_index

CHECKSUM = "crc32c"  # key in record.json, of all its other keys


def write_record(folder: Path, record: Record) -> None:
    """Write a case's record with its checksum into the case's folder."""
    value = plain(record.to_dict())
    write_json(folder / RECORD, {**value, CHECKSUM: _record_checksum(value)})


def kept_record(folder: Path, source: str) -> Record | None:
    """The record of a case packed before; None when the case must be packed again.

    Args:
        folder: of the case in the store.
        source: fingerprint of the files and the target that it would be packed from now.
    """
    try:
        value = json.loads((folder / RECORD).read_bytes())
        if value.pop(CHECKSUM) != _record_checksum(value) or value["source"] != source:
            return None
        record = Record.from_dict(value)
        return record if _files_sound(folder, record) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):  # gone, or not such a record
        return None


def _record_checksum(value: dict[str, Any]) -> int:
    return google_crc32c.value(json.dumps(value, sort_keys=True).encode())


def _files_sound(folder: Path, record: Record) -> bool:
    """Whether each file of voxels has its size, each shard a sound index, and each array its metadata."""
    sizes = dict(record.bytes)
    arrays = {IMAGE: record.shape, **({MASK: record.shape[1:]} if record.voxels else {})}
    for name, shape in arrays.items():
        shard = "/".join([name, "c", *"0" * len(shape)])
        if (folder / name / "zarr.json").stat().st_size == 0 or shard not in sizes:
            return False
        if not _shard_ends_well(folder / shard, sizes.pop(shard), shape, record.spatial_dims):
            return False
    if record.voxels and POSITIONS not in sizes:
        return False
    return all((folder / name).stat().st_size == size for name, size in sizes.items())


def _shard_ends_well(path: Path, size: int, shape: tuple[int, ...], dims: int) -> bool:
    """Whether a shard has its size, and the index at its end its checksum."""
    chunks = prod(-(-n // c) for n, c in zip(shape, chunk_shape(shape, dims), strict=True))
    handle = os.open(path, os.O_RDONLY)
    try:
        if os.fstat(handle).st_size != size:
            return False
        read_index(handle, size, chunks)
    except DamagedShard:
        return False
    finally:
        os.close(handle)
    return True

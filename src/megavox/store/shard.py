"""Boxes of voxels out of one packed array, by compiled code: few system calls, every chunk's checksum compared.

Only arrays exactly as `layout` writes them are read here; anything else is left to zarr. Files stay open
in a pool of bounded size, so that a cohort of any number of cases needs few descriptors.
"""

from __future__ import annotations

import json
import os
import struct
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import google_crc32c
import numpy as np

from megavox.store import native

MOST_OPEN = 128
REQUEST = 256 << 10  # bytes that are read at once, at the most, unless one chunk has more
EVERYTHING = np.empty((0, 4))  # no slab that chunks could lie outside of
TYPES = ("uint8", "int8", "int16", "uint16", "int32", "uint32", "float32")


class DamagedShard(ValueError):
    """The file is not as it was written; the text says what is wrong."""


@dataclass(frozen=True)
class Layout:
    """How an array's voxels lie in its shard; axes are four, those that an array has not are 1.

    Attributes:
        shape: `(C, Z, Y, X)` of the array.
        chunk: voxels of an inner chunk along z, y, x; one channel.
        dtype: of the voxels.
    """

    shape: tuple[int, ...]
    chunk: tuple[int, ...]
    dtype: np.dtype

    @property
    def grid(self) -> tuple[int, ...]:
        """Chunks along z, y, x."""
        return tuple(-(-n // c) for n, c in zip(self.shape[1:], self.chunk, strict=True))


def read_layout(metadata: Path) -> Layout | None:
    """The layout that a `zarr.json` describes; None where it is not as `store.layout` writes it.

    Raises:
        OSError, ValueError, KeyError, TypeError: the file is not there or damaged.
    """
    told = json.loads(metadata.read_bytes())
    [sharding] = told["codecs"]
    inner = sharding["configuration"]
    chunk, shape = inner["chunk_shape"], told["shape"]
    lead = 4 - len(shape)
    shard = [-(-n // c) * c for n, c in zip(shape, chunk, strict=True)]
    usual = (told["data_type"] in TYPES and lead >= 0 and (lead > 0 or chunk[0] == 1)
             and told["chunk_grid"]["configuration"]["chunk_shape"] == shard
             and [(codec["name"], codec.get("configuration", {}).get("endian", "little")) for codec in inner["codecs"]]
             == [("bytes", "little"), ("blosc", "little"), ("crc32c", "little")]
             and [codec["name"] for codec in inner["index_codecs"]] == ["bytes", "crc32c"]
             and inner["index_location"] == "end" and sharding["name"] == "sharding_indexed")
    if not usual:
        return None
    return Layout((*[1] * lead, *shape), (*[1] * lead, *chunk)[1:], np.dtype(told["data_type"]))


def read_index(file: int, size: int, chunks: int) -> np.ndarray:
    """The index at the end of a shard, `(chunks, 2)`: place and length of each chunk, followed by their CRC32C.

    Args:
        file: descriptor of the shard's file.
        size: of the file, in bytes.
        chunks: how many the shard holds.

    Raises:
        DamagedShard: the index does not have its checksum.

    Source: https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/index.html
    """
    end = os.pread(file, 16 * chunks + 4, max(size - 16 * chunks - 4, 0))
    if len(end) != 16 * chunks + 4 or google_crc32c.value(end[:-4]) != struct.unpack("<I", end[-4:])[0]:
        raise DamagedShard("the index at the end of the shard is damaged")
    return np.frombuffer(end[:-4], "<u8").reshape(-1, 2)


class Shard:
    """One array's only shard, open.

    Args:
        path: the shard's file.
        layout: of its array.

    Raises:
        DamagedShard: the index does not have its checksum.
        OSError: the file cannot be opened.
    """

    def __init__(self, path: str, layout: Layout) -> None:
        self.shape, self.chunk, self.grid, self.dtype = layout.shape, layout.chunk, layout.grid, layout.dtype
        self.file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self.size = os.fstat(self.file).st_size
            os.posix_fadvise(self.file, 0, 0, os.POSIX_FADV_RANDOM)  # patches lie anywhere: read no more than asked
            self.index = read_index(self.file, self.size, self.shape[0] * prod(self.grid))
        except BaseException:
            self.close()
            raise
        self._most = int(self.index[:, 1][self.index[:, 1] < self.size].max(initial=4))

    def box(self, start: tuple[int, ...], stop: tuple[int, ...], wanted: np.ndarray = EVERYTHING) -> np.ndarray:
        """Voxels `[start, stop)`, `(C, Z, Y, X)`; those outside `wanted` (see `kernel.read_box`) may be anything.

        Raises:
            IndexError: the box does not lie in the array.
            DamagedShard: a chunk is missing or damaged; it is named by its place in the grid of chunks.
        """
        from megavox.store import kernel

        out = np.empty([b - a for a, b in zip(start, stop, strict=True)], self.dtype)
        if out.size == 0:
            return out
        if not all(0 <= a < b <= n for a, b, n in zip(start, stop, self.shape, strict=True)):
            raise IndexError(f"the box from {start} to {stop} does not lie in an array of {self.shape}")
        with _LOCK:
            chunk = _scratch("chunk", prod(self.chunk) * self.dtype.itemsize)
            fault, number = kernel.read_box(
                self.file, self.size, self.index, self.grid, self.chunk, start, wanted, out, native.decompressor(),
                _scratch("packed", max(self._most, REQUEST)), chunk, chunk.view(self.dtype))
        if fault != kernel.OK:
            place = np.unravel_index(number, (self.shape[0], *self.grid))
            raise DamagedShard(f"chunk {'/'.join(map(str, place))} {_WORDS[fault - 1]}")
        return out

    def close(self) -> None:
        """Close the file."""
        os.close(self.file)


_WORDS = ("is missing", "is said to lie outside the file", "cannot be read to its end", "does not have its checksum",
          "cannot be decompressed")


_LOCK = threading.Lock()  # of the decompressor and of the memory below, of which a process has one
_MEMORY: dict[str, np.ndarray] = {}


def _scratch(purpose: str, size: int) -> np.ndarray:
    """Memory for one chunk, used again by the next; each purpose has its own."""
    if purpose not in _MEMORY or _MEMORY[purpose].size < size:
        _MEMORY[purpose] = np.empty(size, np.uint8)
    return _MEMORY[purpose][:size]


class OpenShards:
    """The shards used last, at most `most` of them open; safe between threads."""

    def __init__(self, most: int = MOST_OPEN) -> None:
        self._most, self._lock = most, threading.Lock()
        self._open: OrderedDict[tuple[str, int, int], Shard] = OrderedDict()

    def box(self, path: str, state: os.stat_result, start: Sequence[int], stop: Sequence[int],
            describe: Callable[[], Layout | None], wanted: np.ndarray = EVERYTHING) -> np.ndarray | None:
        """A box of the array whose only shard is the file `path`; None where compiled code cannot read it.

        Args:
            path: the file.
            state: of the file now; a file that was replaced is opened again.
            start, stop: first voxel and the one past the last, along each of the array's axes.
            describe: asked for the array's layout when the file is opened.
            wanted: `(N, 4)`, see `kernel.read_box`; voxels outside may be anything.

        Raises:
            DamagedShard, OSError: the shard cannot be read.
        """
        entry = (path, state.st_ino, state.st_mtime_ns)
        with self._lock:
            shard = self._open.get(entry)
            if shard is None:
                layout = describe()
                if layout is None:
                    return None
                shard = self._open[entry] = Shard(path, layout)
                while len(self._open) > self._most:
                    self._open.popitem(last=False)[1].close()
            self._open.move_to_end(entry)
            lead = 4 - len(start)
            found = shard.box(((0,) * lead + tuple(start)), ((1,) * lead + tuple(stop)), wanted)
        return found.reshape(found.shape[lead:])

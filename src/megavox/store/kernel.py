"""The compiled loop of the fast reader: chunks of a shard that a box touches, read, checked, decoded, copied.

Shards are as `layout` writes them: inner chunks of Blosc followed by their CRC32C, the index at the end
(https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/index.html).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from megavox.core.compiled import njit

OK, MISSING, OUTSIDE, SHORT, CHECKSUM, CODEC = range(6)
_NOT_THERE = np.uint64(2**64 - 1)  # offset in the index of a chunk that was not written

_bytes = types.CPointer(types.uint8)
_pread: Any = types.ExternalFunction("pread", types.intp(types.int32, _bytes, types.uintp, types.int64))
_crc32c: Any = types.ExternalFunction("crc32c_value", types.uint32(_bytes, types.uintp))
_decompress: Any = types.ExternalFunction(
    "blosc2_decompress_ctx", types.int32(types.uintp, _bytes, types.int32, _bytes, types.int32))


@njit(cache=True, nogil=True)
def _load(file: int, offset: Any, size: Any, compressed: np.ndarray, context: int, chunk: np.ndarray) -> int:
    """One chunk of the file, decoded into `chunk` (bytes)."""
    done = 0
    while done < size:
        got = _pread(file, compressed[done:].ctypes, size - done, offset + done)
        if got <= 0:
            return SHORT
        done += got
    body = size - 4
    if body < 0:
        return CHECKSUM
    told = np.uint32(0)
    for k in range(4):
        told |= np.uint32(compressed[body + k]) << np.uint32(8 * k)
    if _crc32c(compressed.ctypes, body) != told:
        return CHECKSUM
    if _decompress(context, compressed.ctypes, body, chunk.ctypes, chunk.size) != chunk.size:
        return CODEC
    return OK


@njit(cache=True, nogil=True, inline="always")
def _copy(values: np.ndarray, source: Any, flat: np.ndarray, target: Any, count: Any) -> None:
    """A row; unsigned places, which need no check for being negative, let the compiler use wide registers."""
    for n in range(count):
        flat[target + n] = values[source + n]


@njit(cache=True, nogil=True, inline="always")
def _beyond(wanted: np.ndarray, edge: Any, i: int, j: int, k: int) -> bool:
    """Whether a chunk lies outside one of the slabs."""
    for n in range(wanted.shape[0]):
        distance, reach = wanted[n, 3], 0.0
        for axis in range(3):
            half = (edge[axis] - 1) / 2
            distance += wanted[n, axis] * ((i, j, k)[axis] * edge[axis] + half)
            reach += abs(wanted[n, axis]) * half
        if abs(distance) - reach > 1:
            return True
    return False


@njit(cache=True, nogil=True)
def read_box(file: int, file_size: int, index: np.ndarray, grid: Any, edge: Any, start: Any, wanted: np.ndarray,
             out: np.ndarray, context: int, compressed: np.ndarray, chunk: np.ndarray,
             values: np.ndarray) -> tuple[int, int]:
    """Fill `out` with the voxels of a box.

    Args:
        file, file_size: descriptor and size in bytes.
        index: `(chunks, 2)` uint64, offset and length of each chunk.
        grid: chunks along z, y, x of one channel.
        edge: voxels of a chunk along z, y, x.
        start: first voxel of the box, (channel, z, y, x).
        wanted: `(N, 4)`, slabs: chunks without a voxel (z, y, x) with `abs(row @ (z, y, x, 1)) <= 1` for every
            row are not read.
        out: `(C, Z, Y, X)`, the box.
        context: of the decompressor.
        compressed: bytes, as large as the largest chunk of the file.
        chunk, values: the same memory for one decoded chunk, as bytes and as voxels.

    Returns:
        What went wrong (`OK` if nothing) and with which chunk.
    """
    channels, depth, height, width = out.shape
    flat = out.reshape(-1)
    first_c, first_z, first_y, first_x = start
    edge_z, edge_y, edge_x = edge
    for c in range(channels):
        for i in range(first_z // edge_z, (first_z + depth - 1) // edge_z + 1):
            for j in range(first_y // edge_y, (first_y + height - 1) // edge_y + 1):
                for k in range(first_x // edge_x, (first_x + width - 1) // edge_x + 1):
                    if _beyond(wanted, edge, i, j, k):
                        continue
                    number = (((first_c + c) * grid[0] + i) * grid[1] + j) * grid[2] + k
                    offset, size = index[number, 0], index[number, 1]
                    if offset == _NOT_THERE:
                        return MISSING, number
                    if size > compressed.size or offset > file_size or offset + size > file_size:
                        return OUTSIDE, number
                    fault = _load(file, np.int64(offset), np.int64(size), compressed, context, chunk)
                    if fault != OK:
                        return fault, number
                    low, high = max(first_x, k * edge_x), min(first_x + width, (k + 1) * edge_x)
                    for z in range(max(first_z, i * edge_z), min(first_z + depth, (i + 1) * edge_z)):
                        for y in range(max(first_y, j * edge_y), min(first_y + height, (j + 1) * edge_y)):
                            source = ((z - i * edge_z) * edge_y + (y - j * edge_y)) * edge_x + low - k * edge_x
                            target = ((c * depth + z - first_z) * height + y - first_y) * width + low - first_x
                            _copy(values, np.uintp(source), flat, np.uintp(target), np.uintp(high - low))
    return OK, 0

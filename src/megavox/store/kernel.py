"""The compiled loop of the fast reader: chunks of a shard that a box touches, read, checked, decoded, copied.

Chunks that lie beside each other in the file are read by one request, since a request costs as much as copying
10 kB out of the page cache, and far more on a file system across a network.

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
_GAP = 4096  # bytes between two chunks that are read rather than skipped: a disk gives whole pages in any case

_bytes = types.CPointer(types.uint8)
_pread: Any = types.ExternalFunction("pread", types.intp(types.int32, _bytes, types.uintp, types.int64))
_crc32c: Any = types.ExternalFunction("crc32c_value", types.uint32(_bytes, types.uintp))
_decompress: Any = types.ExternalFunction(
    "blosc2_decompress_ctx", types.int32(types.uintp, _bytes, types.int32, _bytes, types.int32))


@njit(cache=True, nogil=True)
def _fetch(file: int, begin: Any, size: Any, packed: np.ndarray) -> bool:
    """Bytes of the file into the first of `packed`; whether all of them came."""
    done = 0
    while done < size:
        got = _pread(file, packed[done:].ctypes, size - done, begin + done)
        if got <= 0:
            return False
        done += got
    return True


@njit(cache=True, nogil=True)
def _decode(packed: np.ndarray, context: int, chunk: np.ndarray) -> int:
    """One chunk, followed by its checksum, into `chunk` (bytes)."""
    body = packed.size - 4
    if body < 0:
        return CHECKSUM
    told = np.uint32(0)
    for k in range(4):
        told |= np.uint32(packed[body + k]) << np.uint32(8 * k)
    if _crc32c(packed.ctypes, body) != told:
        return CHECKSUM
    if _decompress(context, packed.ctypes, body, chunk.ctypes, chunk.size) != chunk.size:
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
def _touched(grid: Any, edge: Any, start: Any, size: Any, wanted: np.ndarray) -> np.ndarray:
    """Numbers of the chunks that a box touches, but for those that lie outside one of the slabs."""
    lows = [start[axis + 1] // edge[axis] for axis in range(3)]
    highs = [(start[axis + 1] + size[axis + 1] - 1) // edge[axis] + 1 for axis in range(3)]
    numbers = np.empty(size[0] * (highs[0] - lows[0]) * (highs[1] - lows[1]) * (highs[2] - lows[2]), np.int64)
    count = 0
    for c in range(start[0], start[0] + size[0]):
        for i in range(lows[0], highs[0]):
            for j in range(lows[1], highs[1]):
                for k in range(lows[2], highs[2]):
                    if not _beyond(wanted, edge, i, j, k):
                        numbers[count] = ((c * grid[0] + i) * grid[1] + j) * grid[2] + k
                        count += 1
    return numbers[:count]


@njit(cache=True, nogil=True)
def _place(values: np.ndarray, number: int, grid: Any, edge: Any, start: Any, out: np.ndarray) -> None:
    """Copy those voxels of a decoded chunk that lie in the box."""
    rest, k = divmod(number, grid[2])
    rest, j = divmod(rest, grid[1])
    c, i = divmod(rest, grid[0])
    _, depth, height, width = out.shape
    first_c, first_z, first_y, first_x = start
    edge_z, edge_y, edge_x = edge
    flat = out.reshape(-1)
    low, high = max(first_x, k * edge_x), min(first_x + width, (k + 1) * edge_x)
    for z in range(max(first_z, i * edge_z), min(first_z + depth, (i + 1) * edge_z)):
        for y in range(max(first_y, j * edge_y), min(first_y + height, (j + 1) * edge_y)):
            source = ((z - i * edge_z) * edge_y + (y - j * edge_y)) * edge_x + low - k * edge_x
            target = (((c - first_c) * depth + z - first_z) * height + y - first_y) * width + low - first_x
            _copy(values, np.uintp(source), flat, np.uintp(target), np.uintp(high - low))


@njit(cache=True, nogil=True)
def read_box(file: int, file_size: int, index: np.ndarray, grid: Any, edge: Any, start: Any, wanted: np.ndarray,
             out: np.ndarray, context: int, packed: np.ndarray, chunk: np.ndarray,
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
        packed: bytes, at least as large as the largest chunk of the file; no request is for more.
        chunk, values: the same memory for one decoded chunk, as bytes and as voxels.

    Returns:
        What went wrong (`OK` if nothing) and with which chunk.
    """
    numbers = _touched(grid, edge, start, out.shape, wanted)
    for number in numbers:
        offset, size = index[number]
        if offset == _NOT_THERE:
            return MISSING, number
        if size > packed.size or offset > file_size or offset + size > file_size:
            return OUTSIDE, number
    numbers = numbers[np.argsort(index[numbers, 0])]
    done = 0
    while done < numbers.size:
        begin, size = np.int64(index[numbers[done], 0]), np.int64(0)
        following = done
        while following < numbers.size:
            offset, length = np.int64(index[numbers[following], 0]), np.int64(index[numbers[following], 1])
            if offset > begin + size + _GAP or offset + length - begin > packed.size:
                break
            size = max(size, offset + length - begin)
            following += 1
        if not _fetch(file, begin, size, packed):
            return SHORT, numbers[done]
        for number in numbers[done:following]:
            at = np.int64(index[number, 0]) - begin
            fault = _decode(packed[at:at + np.int64(index[number, 1])], context, chunk)
            if fault != OK:
                return fault, number
            _place(values, number, grid, edge, start, out)
        done = following
    return OK, 0

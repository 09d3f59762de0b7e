"""Reading packed cases: the index, and boxes of voxels.

A missing, truncated or damaged shard is a `StoreError` that names the case, never zeros.
"""

from __future__ import annotations

import errno
import os
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import cached_property
from math import prod
from pathlib import Path

import numpy as np
import zarr

from megavox.core.errors import StoreError, WorkspaceError
from megavox.core.files import read_array, read_json
from megavox.store import native
from megavox.store.layout import IMAGE, MASK, POSITIONS, Record
from megavox.store.shard import EVERYTHING, Layout, OpenShards, read_layout

INDEX = "index.json"
CACHE_BYTES = 128 << 20  # whole arrays kept decoded by one reader; small cohorts are decoded once


class Store:
    """All packed cases; opening reads one file.

    Args:
        folder: the store.

    Raises:
        WorkspaceError: nothing was packed there.
        StoreError: the index is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if not (folder / INDEX).exists():
            raise WorkspaceError("nothing is packed here: the index is not there", where=folder / INDEX,
                                 fix="Run `megavox pack`")
        try:
            self.records = {row["key"]: Record.from_dict(row) for row in read_json(folder / INDEX)["records"]}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise StoreError(f"the index is damaged ({type(error).__name__}: {error})", where=folder / INDEX,
                             fix="Run `megavox pack` again, which writes it") from None

    def reader(self, key: str, name: str) -> CaseReader:
        """A reader of one case; `name` is what errors call it.

        Raises:
            StoreError: the index does not know the case.
        """
        if key not in self.records:
            raise StoreError(f"there is no packed case {key} in the index", where=f"{name} ({self.folder / INDEX})",
                             fix="Run `megavox pack` again")
        return CaseReader(self.folder / key, self.records[key], name)


_SHARDS = OpenShards()  # of this process


class CaseReader:
    """Reads boxes of one case, by compiled code where it can. Opens nothing until asked.

    Args:
        folder: the case's folder in the store.
        record: its record.
        name: the case's name in messages.
    """

    def __init__(self, folder: Path, record: Record, name: str) -> None:
        self.folder, self.record, self.name = folder, record, name

    def image(self, start: Sequence[int], stop: Sequence[int], wanted: np.ndarray = EVERYTHING) -> np.ndarray:
        """Voxels `[start, stop)` of all channels, `(C, ...)`, in stored units.

        Args:
            start, stop: first voxel and the one past the last, (z, y, x) or (y, x).
            wanted: `(N, 4)`: only voxels with `abs(row @ (z, y, x, 1)) <= 1` for every row are needed; others may
                be anything, which saves reading what a turned patch does not look at.
        """
        shape = self.record.shape
        return self._read(IMAGE, shape, (0, *start), (shape[0], *stop), wanted)

    def mask(self, start: Sequence[int], stop: Sequence[int], wanted: np.ndarray = EVERYTHING) -> np.ndarray:
        """Class numbers `[start, stop)`, uint8; args are those of `image`."""
        return self._read(MASK, self.record.shape[1:], start, stop, wanted)

    @property
    def positions(self) -> np.ndarray:
        """Up to 10,000 voxels of each class: `(N, 1 + dims)`, class first; read anew each time."""
        try:
            return read_array(self.folder / POSITIONS)
        except Exception as error:  # NumPy's parser of a damaged header raises almost anything
            raise self._damaged(f"{POSITIONS} cannot be read ({error})") from None

    @cached_property
    def _image(self) -> zarr.Array:
        return self._open(IMAGE, self.record.shape)

    @cached_property
    def _mask(self) -> zarr.Array:
        return self._open(MASK, self.record.shape[1:])

    def _open(self, name: str, shape: tuple[int, ...]) -> zarr.Array:
        try:
            array = zarr.open_array(str(self.folder / name), mode="r", zarr_format=3)
            shard = f"{name}/{array.metadata.encode_chunk_key((0,) * array.ndim)}"
        except Exception as error:  # zarr has no common base class for what it raises on damage
            raise self._damaged(f"{name}: {error}") from None
        if array.shape != shape or shard not in dict(self.record.bytes):
            raise self._damaged(f"{name}: shape {array.shape} with its voxels in {shard} is not what was packed")
        return array

    def _read(self, name: str, shape: tuple[int, ...], start: Sequence[int], stop: Sequence[int],
              wanted: np.ndarray) -> np.ndarray:
        file, size = self._shards[name]
        state = self._check_file(file, size)  # each time: for a file that is gone zarr would give zeros
        if native.available():
            try:
                found = _SHARDS.box(f"{self.folder}/{file}", state, start, stop, lambda: self._layout(name, shape),
                                    wanted)
            except (ValueError, KeyError, TypeError) as error:  # of the shard, or of its metadata
                raise self._damaged(f"{name}: {error}") from error
            except OSError as error:
                if error.errno in (errno.ENOMEM, errno.EMFILE, errno.ENFILE):  # not the file's fault
                    raise
                raise self._damaged(f"{name}: {error}") from error
            if found is not None:
                return found
        array = self._image if name == IMAGE else self._mask
        try:
            return np.asarray(array[tuple(map(slice, start, stop))])
        except MemoryError:
            raise
        except Exception as error:  # checksum, codec and index errors of several libraries
            raise self._damaged(f"{name}: {type(error).__name__}: {error}") from error

    def _layout(self, name: str, shape: tuple[int, ...]) -> Layout | None:
        found = read_layout(self.folder / name / "zarr.json")
        if found is not None and found.shape[4 - len(shape):] != shape:
            raise self._damaged(f"{name}: shape {found.shape} is not what was packed")
        return found

    @cached_property
    def _shards(self) -> dict[str, tuple[str, int]]:
        """For the image and the mask, the file of its shard and its size."""
        return {name: next((one for one in self.record.bytes if one[0].startswith(f"{name}/")), (f"{name}/c", -1))
                for name in (IMAGE, MASK)}

    def _check_file(self, file: str, size: int) -> os.stat_result:
        try:
            state = os.stat(f"{self.folder}/{file}")  # noqa: PTH116 (once a patch: a Path costs more than the call)
        except OSError:
            raise self._damaged(f"{file} is missing") from None
        if state.st_size != size:
            raise self._damaged(f"{file} has {state.st_size} bytes and should have {size}")
        return state

    def _damaged(self, what: str) -> StoreError:
        return StoreError(f"the packed case is damaged: {what}", where=f"{self.name} ({self.folder})",
                          fix="Remove that folder and run `megavox pack` again")


class CachedArrays:
    """Decoded whole arrays, and voxels to sample, of the cases used last, bounded in bytes.

    Args:
        most: bytes to keep.
    """

    def __init__(self, most: int = CACHE_BYTES) -> None:
        self._most, self._bytes = most, 0
        self._arrays: OrderedDict[tuple[str, str], np.ndarray] = OrderedDict()

    def box(self, reader: CaseReader, kind: str, start: Sequence[int], stop: Sequence[int],
            wanted: np.ndarray = EVERYTHING) -> np.ndarray:
        """`reader.image` or `reader.mask` (by `kind`) of a box, through the cache when the case is small."""
        spatial = reader.record.shape[1:]
        voxels = prod(reader.record.shape if kind == "image" else spatial)
        read = reader.image if kind == "image" else reader.mask
        if voxels * 4 > self._most // 8:
            return read(start, stop, wanted)
        whole = self._kept((reader.record.key, kind), lambda: read((0,) * len(spatial), spatial))
        lead = (slice(None),) if kind == "image" else ()
        return whole[(*lead, *map(slice, start, stop))]

    def positions(self, reader: CaseReader) -> np.ndarray:
        """`reader.positions`, through the cache."""
        return self._kept((reader.record.key, POSITIONS), lambda: reader.positions)

    def _kept(self, entry: tuple[str, str], load: Callable[[], np.ndarray]) -> np.ndarray:
        found = self._arrays.get(entry)
        if found is None:
            found = self._arrays[entry] = load()
            self._bytes += found.nbytes
            while self._bytes > self._most and len(self._arrays) > 1:
                self._bytes -= self._arrays.popitem(last=False)[1].nbytes
        self._arrays.move_to_end(entry)
        return found

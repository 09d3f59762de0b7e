"""The compiled reader gives what zarr gives, or says which chunk of which case is damaged."""

from __future__ import annotations

import resource
import tempfile
from math import prod
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import zarr
from hypothesis import example, given, settings
from hypothesis import strategies as st
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec

from megavox.core.errors import StoreError
from megavox.store import native
from megavox.store.layout import IMAGE, write_arrays
from megavox.store.shard import REQUEST, TYPES, DamagedShard, OpenShards, Shard, read_layout
from packed_arrays import packed

pytestmark = pytest.mark.skipif(not native.available(), reason="not Linux, or blosc2 or google-crc32c is not here")


def write(folder: Path, array: np.ndarray, chunk: tuple[int, ...]) -> tuple[Path, Path]:
    """A sharded array as `store.layout` writes them, with other chunks: its zarr.json and its only shard."""
    shards = tuple(-(-n // c) * c for n, c in zip(array.shape, chunk, strict=True))
    target = zarr.create_array(
        str(folder), shape=array.shape, chunks=chunk, shards=shards, dtype=array.dtype, fill_value=0,
        compressors=[BloscCodec(cname="lz4hc", clevel=5, shuffle="shuffle"), Crc32cCodec()],
        config={"write_empty_chunks": True})
    target[...] = array
    return folder / "zarr.json", folder / target.metadata.encode_chunk_key((0,) * array.ndim)


@st.composite
def boxes(draw: Any) -> tuple[np.ndarray, tuple[int, ...], list[tuple[int, int]]]:
    """An array of any type and shape, its chunks, and a box in it."""
    dims = draw(st.integers(2, 4))
    shape = tuple(draw(st.integers(1, 3 if dims == 4 and axis == 0 else 37)) for axis in range(dims))
    chunk = tuple(1 if dims == 4 and axis == 0 else draw(st.integers(1, min(n, 20))) for axis, n in enumerate(shape))
    dtype = np.dtype(draw(st.sampled_from(TYPES)))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    array = rng.integers(0, 200, shape).astype(dtype) if dtype.kind != "f" else rng.normal(size=shape).astype(dtype)
    return array, chunk, [draw(st.tuples(st.integers(0, n - 1), st.integers(1, n)).map(
        lambda two: (min(two[0], two[1] - 1), max(two[0] + 1, two[1])))) for n in shape]


@settings(max_examples=80)
@given(boxes(), st.sampled_from((1, 700, REQUEST)))
@example((np.zeros((5, 6), np.uint8), (2, 3), [(0, 5), (0, 6)]), REQUEST)
def test_any_box_of_any_array_equals_zarrs(drawn: tuple[np.ndarray, tuple[int, ...], list[tuple[int, int]]],
                                           request_bytes: int) -> None:
    array, chunk, box = drawn
    with tempfile.TemporaryDirectory() as folder, mock.patch("megavox.store.shard.REQUEST", request_bytes):
        metadata, shard = write(Path(folder) / "a", array, chunk)
        start, stop = zip(*box, strict=True)
        found = OpenShards().box(str(shard), shard.stat(), start, stop, lambda: read_layout(metadata))
        assert found is not None
        wanted = zarr.open_array(metadata.parent, mode="r")[tuple(map(slice, start, stop))]
        assert found.dtype == wanted.dtype and found.flags.c_contiguous
        np.testing.assert_array_equal(found, wanted)


@pytest.fixture
def volume(tmp_path: Path) -> tuple[Path, Path, np.ndarray]:
    array = np.random.default_rng(0).integers(0, 900, (2, 20, 37, 50)).astype(np.int16)
    return *write(tmp_path / "a", array, (1, 8, 16, 16)), array


@settings(max_examples=80)
@given(seed=st.integers(0, 10**6), thickness=st.floats(0.5, 30))
def test_what_lies_between_the_slabs_is_read_and_what_lies_far_out_is_not(tmp_path_factory: Any, seed: int,
                                                                          thickness: float) -> None:
    rng = np.random.default_rng(seed)
    array = rng.integers(1, 900, (1, 40, 37, 50)).astype(np.int16)
    metadata, path = write(tmp_path_factory.mktemp("slabs") / "a", array, (1, 8, 8, 8))
    layout = read_layout(metadata)
    assert layout is not None
    rows = rng.normal(size=(3, 3))
    rows /= np.linalg.norm(rows, axis=1)[:, None] * thickness
    wanted = np.column_stack([rows, -rows @ rng.uniform(0, 40, 3)])
    shard = Shard(str(path), layout)
    chunks = np.stack(np.meshgrid(*map(np.arange, (40, 37, 50)), indexing="ij"), axis=-1)
    needed = (np.abs(chunks @ wanted[:, :3].T + wanted[:, 3]) <= 1).all(axis=-1)
    shard.index = shard.index.copy()
    for number, place in enumerate(np.ndindex(*layout.grid)):
        box = tuple(slice(8 * k, 8 * k + 8) for k in place)
        if not needed[box].any() and rng.random() < 0.5:  # far out: a chunk that is read is found missing
            centre = np.array([8 * k + 3.5 for k in place])
            if (np.abs(wanted[:, :3] @ centre + wanted[:, 3]) - 3.5 * np.abs(wanted[:, :3]).sum(axis=1) > 1).any():
                shard.index[number] = 2**64 - 1
    found = shard.box((0, 0, 0, 0), array.shape, wanted)
    np.testing.assert_array_equal(found[0][needed], array[0][needed])


@settings(max_examples=60)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_is_found_and_its_chunk_named(tmp_path_factory: Any, place: float, bit: int) -> None:
    folder = tmp_path_factory.mktemp("flipped")
    array = np.random.default_rng(0).integers(0, 900, (1, 20, 37, 50)).astype(np.int16)
    metadata, path = write(folder / "a", array, (1, 8, 16, 16))
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] ^= 1 << bit
    path.write_bytes(data)
    layout = read_layout(metadata)
    assert layout is not None
    with pytest.raises(DamagedShard, match=r"chunk 0/\d/\d/\d does not have its checksum|index at the end"):
        Shard(str(path), layout).box((0, 0, 0, 0), array.shape)


def test_a_chunk_that_was_not_written_is_an_error_and_never_the_fill_value(tmp_path: Path) -> None:
    array = np.ones((1, 16, 16, 32), np.int16)
    array[:, :, :, 16:] = 0
    target = zarr.create_array(str(tmp_path / "a"), shape=array.shape, chunks=(1, 16, 16, 16), shards=(1, 16, 16, 32),
                               dtype=array.dtype, fill_value=0, compressors=[
                                   BloscCodec(cname="lz4hc", clevel=5, shuffle="shuffle"), Crc32cCodec()])
    target[...] = array  # a chunk of zeros is left out, as zarr does by default
    layout = read_layout(tmp_path / "a" / "zarr.json")
    assert layout is not None
    shard = Shard(str(tmp_path / "a" / "c" / "0" / "0" / "0" / "0"), layout)
    np.testing.assert_array_equal(shard.box((0, 0, 0, 0), (1, 16, 16, 16)), array[..., :16])
    with pytest.raises(DamagedShard, match="chunk 0/0/0/1 is missing"):
        shard.box((0, 0, 0, 0), (1, 16, 16, 17))


def test_an_index_that_points_outside_the_file_is_found(volume: tuple[Path, Path, np.ndarray]) -> None:
    metadata, path, _ = volume
    layout = read_layout(metadata)
    assert layout is not None
    shard = Shard(str(path), layout)
    for offset, size in ((shard.size, 10), (2**63, 10), (0, 2**62), (shard.size - 5, 10), (2**64 - 2, 2**64 - 2)):
        shard.index = shard.index.copy()
        shard.index[0] = offset, size
        with pytest.raises(DamagedShard, match=r"chunk 0/0/0/0 (is said to lie outside|does not have)"):
            shard.box((0, 0, 0, 0), (1, 4, 4, 4))


@pytest.mark.parametrize("change", [
    {"compressors": [BloscCodec(cname="lz4hc", shuffle="shuffle")]}, {"compressors": None}, {"shards": None},
    {"serializer": BytesCodec(endian="big")}, {"dtype": "float64"}, {"shards": (16, 16)}])
def test_other_arrays_are_left_to_zarr(tmp_path: Path, change: dict[str, Any]) -> None:
    usual: dict[str, Any] = {"shape": (20, 20), "chunks": (8, 8), "shards": (24, 24), "dtype": "int16",
                             "compressors": [BloscCodec(cname="lz4hc", shuffle="shuffle"), Crc32cCodec()]}
    zarr.create_array(str(tmp_path / "a"), **usual)
    assert read_layout(tmp_path / "a" / "zarr.json") is not None
    zarr.create_array(str(tmp_path / "b"), **{**usual, **change})
    try:
        assert read_layout(tmp_path / "b" / "zarr.json") is None
    except (KeyError, ValueError):
        assert change == {"shards": None}  # no sharding codec to look into


def test_a_box_outside_the_array_is_refused(volume: tuple[Path, Path, np.ndarray]) -> None:
    metadata, path, array = volume
    layout = read_layout(metadata)
    assert layout is not None
    shard = Shard(str(path), layout)
    for start, stop in (((0, -1, 0, 0), (1, 1, 1, 1)), ((0, 0, 0, 0), (1, 21, 1, 1)), ((0, 9, 9, 9), (3, 10, 10, 10))):
        with pytest.raises(IndexError, match="does not lie in"):
            shard.box(start, stop)
    np.testing.assert_array_equal(shard.box((0, 0, 0, 0), array.shape), array)


def _requests() -> int:
    """Reads that this process asked the system for, with those of asking."""
    return int(Path("/proc/self/io").read_text().split("syscr:")[1].split()[0])


@pytest.mark.parametrize("chunk", [(1, 8, 8, 16), (1, 16, 16, 32)])
def test_chunks_that_lie_beside_each_other_are_read_together(tmp_path: Path, chunk: tuple[int, ...]) -> None:
    array = np.random.default_rng(0).integers(0, 9000, (1, 80, 80, 80)).astype(np.int16)
    metadata, path = write(tmp_path / "a", array, chunk)
    layout = read_layout(metadata)
    assert layout is not None
    shard = Shard(str(path), layout)
    shard.box((0, 0, 0, 0), (1, 1, 1, 1))  # compiles
    asking = -(_requests() - _requests())
    for first in (0, 5, 16):
        before = _requests()
        shard.box((0, first, first, first), (1, first + 64, first + 64, first + 64))
        touched = prod((first + 63) // edge - first // edge + 1 for edge in chunk[1:])
        assert _requests() - before - asking <= 0.6 * touched


def test_chunks_as_large_compressed_as_decoded_are_read_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then both need as much memory for one chunk, and must not share it."""
    monkeypatch.setattr("megavox.store.shard.REQUEST", 8**3)
    for seed in range(20):
        array = np.random.default_rng(seed).integers(0, 256, (1, 8, 8, 8)).astype(np.uint8)  # does not compress
        metadata, path = write(tmp_path / str(seed), array, (1, 8, 8, 8))
        layout = read_layout(metadata)
        assert layout is not None
        shard = Shard(str(path), layout)
        np.testing.assert_array_equal(shard.box((0, 0, 0, 0), array.shape), array)


def test_many_cases_need_few_open_files(tmp_path: Path) -> None:
    image, mask = np.arange(6 * 7 * 8, dtype=np.int16).reshape(1, 6, 7, 8), np.ones((6, 7, 8), np.uint8)
    reader = packed(tmp_path / "case", image, mask)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    shard = tmp_path / "case" / IMAGE / "c" / "0" / "0" / "0" / "0"
    pool = OpenShards(most=5)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(list(Path("/proc/self/fd").iterdir())) + 10, before[1]))
    try:
        for number in range(60):
            other = tmp_path / f"{number}"
            other.hardlink_to(shard)
            found = pool.box(str(other), other.stat(), (0, 1, 2, 3), (1, 2, 3, 4),
                             lambda: read_layout(tmp_path / "case" / IMAGE / "zarr.json"))
            assert found is not None and found.item() == image[0, 1, 2, 3]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert reader.mask((0, 0, 0), (6, 7, 8)).all()


def test_a_shard_that_was_packed_again_is_read_anew(tmp_path: Path) -> None:
    first, second = (np.full((1, 9, 9, 9), value, np.int16) for value in (3, 4))
    reader = packed(tmp_path / "case", first)
    assert (reader.image((0, 0, 0), (9, 9, 9)) == 3).all()
    write_arrays(tmp_path / "new", second, None, reader.record.geometry)
    name = reader.record.bytes[0][0]
    (tmp_path / "new" / name).replace(tmp_path / "case" / name)
    assert (reader.image((0, 0, 0), (9, 9, 9)) == 4).all()


def test_reading_through_a_case_names_case_and_chunk(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 900, (1, 40, 40, 40)).astype(np.int16)
    reader = packed(tmp_path / "case", image, np.ones((40, 40, 40), np.uint8))
    path = tmp_path / "case" / reader.record.bytes[0][0]
    layout = read_layout(tmp_path / "case" / IMAGE / "zarr.json")
    assert layout is not None
    offset, size = (int(v) for v in Shard(str(path), layout).index[-1])
    data = bytearray(path.read_bytes())
    data[offset + size // 2] ^= 4
    path.write_bytes(data)
    np.testing.assert_array_equal(reader.image((0, 0, 0), (16, 16, 32)), image[:, :16, :16, :32])
    with pytest.raises(StoreError, match=r"case case .*chunk 0/2/2/1 does not have its checksum"):
        reader.image((39, 39, 39), (40, 40, 40))
    assert reader.mask((0, 0, 0), (1, 1, 1)) == 1

"""Cases packed before: kept when they are whole, packed again when they are not, and looked at in no time."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from megavox.cohort.case import Case
from megavox.core.files import write_json
from megavox.store.build import build_store
from megavox.store.keep import kept_record
from megavox.store.layout import IMAGE, MASK, POSITIONS, RECORD, Record
from megavox.store.pack import case_key, pack_case, source_fingerprint
from packing_faults import SEED
from small_cohort import ORGAN_TASK, PICTURE_TASK, VOLUME, tiny_case, voxel_case

Kept = tuple[Case, Path, Record, dict[str, bytes]]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    """A packed case with several inner chunks: case, its folder, record, files."""
    folder = tmp_path_factory.mktemp("sound")
    case = tiny_case(folder, "a", (20, 40, 70))
    record = pack_case(folder / "key", case, VOLUME, ORGAN_TASK, SEED)
    return case, folder / "key", record, files_of(folder / "key")


@pytest.fixture
def copied(sound: Kept, tmp_path: Path) -> Kept:
    """A copy of it to damage."""
    shutil.copytree(sound[1], tmp_path / "key")
    return sound[0], tmp_path / "key", *sound[2:]


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def packed_again(kept: Kept) -> bool:
    """Pack over what is there; whether that made the case anew. It must be whole after it."""
    case, folder, record, files = kept
    before = folder.stat().st_ino
    assert pack_case(folder, case, VOLUME, ORGAN_TASK, SEED) == record
    again = folder.stat().st_ino != before
    if again:
        assert files_of(folder) == files
    return again


def test_a_sound_case_is_kept(copied: Kept) -> None:
    assert not packed_again(copied)


@pytest.mark.parametrize("damage", [
    b"", b"{", b"[]", b"null", b"3", b'"text"', b"{}", b"\xff\xfe\x00", b"[" * 100_000, b'{"crc32c": 0}'])
def test_a_record_that_is_none_is_packed_again(copied: Kept, damage: bytes) -> None:
    (copied[1] / RECORD).write_bytes(damage)
    assert packed_again(copied)


def test_a_record_that_is_cut_off_anywhere_is_packed_again(copied: Kept) -> None:
    text = copied[3][RECORD]
    for size in {*range(0, len(text) - 2, len(text) // 15), len(text) - 3}:  # all but the line's end
        (copied[1] / RECORD).write_bytes(text[:size])
        assert packed_again(copied), size


def test_a_record_with_other_keys_or_values_is_packed_again(copied: Kept) -> None:
    whole: dict[str, Any] = json.loads(copied[3][RECORD])
    odd: list[dict[str, Any]] = [{**whole, "unheard": 1}]
    for key in whole:
        odd += [{name: value for name, value in whole.items() if name != key}, {**whole, key: None},
                {**whole, key: {"a": [1]}}]
    for value in odd:
        if value == whole:
            continue  # `classes` is null to segment
        write_json(copied[1] / RECORD, value)
        assert packed_again(copied), value


def test_a_flipped_bit_of_the_record_is_packed_again_or_changes_nothing(copied: Kept) -> None:
    text = copied[3][RECORD]
    rng = np.random.default_rng(0)
    again = 0
    for place in rng.integers(0, len(text), 60).tolist():
        (copied[1] / RECORD).write_bytes(text[:place] + bytes([text[place] ^ 1 << int(rng.integers(8))])
                                         + text[place + 1:])
        again += packed_again(copied)  # which compares what comes back with the sound record
    assert again > 20  # white space is most of the file


@pytest.mark.parametrize("damage", [
    Path.unlink, lambda path: path.write_bytes(b""), lambda path: path.write_bytes(path.read_bytes()[:-1]),
    lambda path: path.write_bytes(path.read_bytes() + b"x")], ids=["gone", "empty", "cut", "longer"])
@pytest.mark.parametrize("name", [f"{IMAGE}/c/0/0/0/0", f"{MASK}/c/0/0/0", POSITIONS])
def test_a_file_that_is_gone_or_of_another_size_is_packed_again(copied: Kept, name: str,
                                                                damage: Callable[[Path], Any]) -> None:
    damage(copied[1] / name)
    assert packed_again(copied)


@pytest.mark.parametrize("name", [f"{IMAGE}/zarr.json", f"{MASK}/zarr.json"])
@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"")], ids=["gone", "empty"])
def test_an_array_without_its_metadata_is_packed_again(copied: Kept, name: str, damage: Callable[[Path], Any]) -> None:
    damage(copied[1] / name)
    assert packed_again(copied)


def test_a_folder_without_its_array_is_packed_again(copied: Kept) -> None:
    shutil.rmtree(copied[1] / IMAGE)
    assert packed_again(copied)


@pytest.mark.parametrize(("name", "chunks"), [(f"{IMAGE}/c/0/0/0/0", 1 * 2 * 3), (f"{MASK}/c/0/0/0", 1 * 2 * 3)])
def test_every_byte_of_a_shards_index_is_checked(copied: Kept, name: str, chunks: int) -> None:
    case, folder, record, files = copied
    data = files[name]
    source = source_fingerprint(case)
    for place in range(len(data) - 16 * chunks - 4, len(data)):
        (folder / name).write_bytes(data[:place] + bytes([data[place] ^ 4]) + data[place + 1:])
        assert kept_record(folder, source) is None, place
    assert packed_again(copied)
    (folder / name).write_bytes(data[:40] + bytes([data[40] ^ 4]) + data[41:])
    assert kept_record(folder, source) == record, "the voxels are the reader's to check"


def test_cases_without_masks_are_kept_and_mended_too(tmp_path: Path) -> None:
    case = voxel_case(tmp_path, (np.arange(40 * 50 * 60) % 900).astype(np.int16).reshape(40, 50, 60))
    record = pack_case(tmp_path / "key", case, VOLUME, PICTURE_TASK, SEED)
    before = (tmp_path / "key").stat().st_ino
    assert pack_case(tmp_path / "key", case, VOLUME, PICTURE_TASK, SEED) == record
    assert (tmp_path / "key").stat().st_ino == before
    shard = tmp_path / "key" / IMAGE / "c/0/0/0/0"
    data = shard.read_bytes()
    shard.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert pack_case(tmp_path / "key", case, VOLUME, PICTURE_TASK, SEED) == record
    assert shard.read_bytes() == data


def test_a_build_mends_the_damaged_and_leaves_the_others(tmp_path: Path) -> None:
    cases = [tiny_case(tmp_path, name) for name in "abcd"]
    store = tmp_path / "store"

    def build() -> dict[str, Record]:
        records, rejected = build_store(store, cases, VOLUME, ORGAN_TASK, seed=SEED, workers=2, one_mask_a_class=False)
        assert not rejected
        return records

    first = build()
    folders = {case.name: store / case_key(case.name, SEED) for case in cases}
    inodes = {name: folder.stat().st_ino for name, folder in folders.items()}
    (folders["b"] / RECORD).write_text("{")
    shard = folders["c"] / IMAGE / "c/0/0/0/0"
    shard.write_bytes(shard.read_bytes()[:-5])
    assert build() == first
    assert {name for name, folder in folders.items() if folder.stat().st_ino != inodes[name]} == {"b", "c"}


def test_looking_at_a_kept_case_opens_its_record_and_its_shards_only(sound: Kept) -> None:
    case, folder, record, _ = sound
    source = source_fingerprint(case)
    opened: list[str] = []
    listening = True
    sys.addaudithook(lambda event, arguments: opened.append(str(arguments[0]))
                     if event == "open" and listening else None)
    assert kept_record(folder, source) == record
    listening = False
    assert sorted(opened) == sorted(str(folder / name) for name in (RECORD, f"{IMAGE}/c/0/0/0/0", f"{MASK}/c/0/0/0"))

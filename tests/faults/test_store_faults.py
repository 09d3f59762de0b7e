"""The store under attack: kills, full disks, damaged files. Typed errors, and never zeros for voxels."""

from __future__ import annotations

import os
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from apart import kill_at_each_write, run_apart, run_on_tiny_disk
from megavox.core.errors import StoreError, WorkspaceError
from megavox.core.files import TEMPORARY, read_json, write_json
from megavox.phantoms import organ
from megavox.store.build import build_store, write_index
from megavox.store.layout import IMAGE, MASK, POSITIONS, RECORD, Record, write_arrays
from megavox.store.pack import case_key, pack_case
from megavox.store.read import INDEX, CaseReader, Store
from megavox.store.too_large import short_of_memory
from packing_faults import (
    SEED,
    pack_beyond_memory,
    pack_hungry,
    pack_one,
    pack_until_full,
    pack_with_deadly_files,
    same_case,
)
from small_cohort import ORGAN_TASK, VOLUME, tiny_case

NAME = "patient 7"


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A packed case with several inner chunks."""
    folder = tmp_path_factory.mktemp("sound")
    case = tiny_case(folder, "a", (20, 40, 70))
    return folder / "key", pack_case(folder / "key", case, VOLUME, ORGAN_TASK, SEED)


@pytest.fixture
def copied(sound, tmp_path):
    """A copy of it to damage."""
    shutil.copytree(sound[0], tmp_path / "key")
    return tmp_path / "key", sound[1]


def read_all(folder: Path, record: Record) -> tuple[np.ndarray, ...]:
    reader = CaseReader(folder, record, NAME)
    start, stop = (0,) * 3, record.shape[1:]
    return reader.image(start, stop), reader.mask(start, stop), reader.positions


def when_opened(folder: Path, name: str, do: str) -> dict[str, str]:
    """Environment of Python processes that `do` something before they read a file with `name` in its path."""
    (folder / "path").mkdir()
    (folder / "path" / "sitecustomize.py").write_text(
        "import os, sys\n"
        "def hook(event, arguments):\n"
        f"    if event == 'open' and {name!r} in str(arguments[0]) and str(arguments[1])[0] == 'r':\n"
        f"        {do}\n"
        "sys.addaudithook(hook)\n")
    return {"PYTHONPATH": f"{folder / 'path'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_killed_at_any_write_the_next_build_equals_a_clean_one(tmp_path):
    store = tmp_path / "store"
    kills = kill_at_each_write(pack_one, store)
    assert kills > 40
    cases = [same_case(tmp_path, number) for number in range(1, kills + 2)]
    clean = pack_case(tmp_path / "clean" / "key", cases[0], VOLUME, ORGAN_TASK, SEED)
    whole = [case for case in cases if (store / case_key(case.name, SEED)).exists()]
    assert whole[-1] is cases[-1] and len(whole) < 5, "a case appears under its key when it is complete"
    assert any(path.name.startswith(TEMPORARY) for path in store.iterdir())
    again = [*whole, *cases[::8]]
    records, rejected = build_store(store, again, VOLUME, ORGAN_TASK, seed=SEED, workers=1, one_mask_a_class=False)
    assert not rejected and {path.name for path in store.iterdir()} == {case_key(case.name, SEED) for case in again}
    for case in again:
        folder = store / case_key(case.name, SEED)
        found, expected = files_of(folder), files_of(tmp_path / "clean" / "key")
        assert found.keys() == expected.keys() and replace(records[case.name], key="key") == clean
        assert all(found[name] == expected[name] for name in expected if name != RECORD), case.name


def test_a_half_written_folder_of_an_older_version_is_packed_again(tmp_path):
    case = same_case(tmp_path, 1)
    folder = tmp_path / "store" / case_key(case.name, SEED)
    pack_case(tmp_path / "clean" / folder.name, case, VOLUME, ORGAN_TASK, SEED)
    shutil.copytree(tmp_path / "clean" / folder.name, folder)
    (folder / RECORD).unlink()
    (folder / "0" / "zarr.json").write_text("{")
    build_store(tmp_path / "store", [case], VOLUME, ORGAN_TASK, seed=SEED, workers=1, one_mask_a_class=False)
    assert files_of(folder) == files_of(tmp_path / "clean" / folder.name)


def test_a_full_disk_ends_packing_with_a_machine_error_and_keeps_what_is_done(tmp_path):
    run_on_tiny_disk(pack_until_full, tmp_path / "disk", "400k")


def test_a_case_that_memory_does_not_hold_is_set_aside_and_the_others_are_packed(tmp_path):
    run_apart(pack_beyond_memory, tmp_path)
    outcome = read_json(tmp_path / "outcome.json")
    assert outcome["packed"] == ["case0", "case2", "case4"]
    told = {one["case"]: one for one in outcome["rejected"]}
    assert [one["reason"] for one in told.values()] == ["memory", "memory"]
    assert all(one["file"] == str(tmp_path / f"{case}.nii") for case, one in told.items())
    for case, size in (("case1", "8 x 9 x 7 voxels of 1000 x 1500 x 2000 mm, which become 8000 x 13500 x 14000 "
                                 "voxels of 1 x 1 x 1 mm (6048 GB)"),
                       ("case3", "1550 x 1550 x 1550 voxels of 1 x 1.5 x 2 mm")):
        assert size in told[case]["message"] and "export the case again" in told[case]["message"]


def test_a_case_for_which_memory_was_short_among_others_is_packed_alone(tmp_path):
    run_apart(pack_hungry, tmp_path, when_opened(
        tmp_path, "hungry.nii", f"path = {str(tmp_path / 'once')!r}; first = not os.path.exists(path); "
        "open(path, 'w').close()\n        if first: raise MemoryError"))
    assert (tmp_path / "once").exists()
    assert read_json(tmp_path / "outcome.json") == {"packed": ["a", "b", "hungry"], "rejected": []}


def test_a_thread_that_finds_no_memory_is_want_of_memory():
    before = threading.stack_size(1 << 46)
    try:
        with pytest.raises(RuntimeError) as caught:
            threading.Thread(target=print).start()
    finally:
        threading.stack_size(before)
    assert short_of_memory(caught.value) and not short_of_memory(RuntimeError("a bug"))


def test_a_case_that_kills_its_reader_is_set_aside_and_the_others_are_packed(tmp_path):
    run_apart(pack_with_deadly_files, tmp_path, when_opened(tmp_path, "deadly", "os.kill(os.getpid(), 9)"))
    outcome = read_json(tmp_path / "outcome.json")
    assert outcome["packed"] == [f"case{n}" for n in (0, 3, 4, 5)]
    assert {one["case"]: one["reason"] for one in outcome["rejected"]} == {
        "case1": "killed its reader", "case2": "truncated", "case6": "killed its reader"}
    assert all(one["file"] and one["message"] for one in outcome["rejected"])


@pytest.mark.parametrize("name", [IMAGE, MASK])
def test_a_flipped_bit_of_a_shard_is_an_error_or_changes_nothing(copied, name):
    folder, record = copied
    truth = read_all(folder, record)
    shard = next(folder / file for file, _ in record.bytes if file.startswith(f"{name}/"))
    data = shard.read_bytes()
    rng = np.random.default_rng(0)
    places = {0, 1, len(data) // 2, *range(len(data) - 8, len(data)), *rng.integers(0, len(data), 60).tolist()}
    caught = 0
    for place in sorted(places):
        shard.write_bytes(data[:place] + bytes([data[place] ^ 1 << int(rng.integers(8))]) + data[place + 1:])
        try:
            found = read_all(folder, record)
        except StoreError as error:
            assert NAME in str(error) and str(folder) in str(error) and "megavox pack" in error.fix
            caught += 1
        else:
            for one, other in zip(found, truth, strict=True):
                np.testing.assert_array_equal(one, other)
    assert caught > 0.9 * len(places)


def test_a_flipped_bit_of_the_metadata_is_an_error_or_changes_nothing(copied):
    folder, record = copied
    truth = read_all(folder, record)
    path = folder / IMAGE / "zarr.json"
    data = path.read_bytes()
    rng = np.random.default_rng(1)
    places = {(int(place), int(rng.integers(8))) for place in rng.integers(0, len(data), 80)}
    separator = data.index(b'"separator": "/"') + len(b'"separator": "')
    places.add((separator, 0))  # "/" becomes ".": zarr would look for another file, and find none
    places.add((data.index(b"70"), 2))  # the shape's 70 becomes 30
    for place, bit in places:
        path.write_bytes(data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1:])
        try:
            found = read_all(folder, record)
        except StoreError as error:
            assert NAME in str(error)
        else:
            np.testing.assert_array_equal(found[0], truth[0])


def test_a_flipped_bit_of_the_positions_header_is_a_store_error_or_harmless(copied):
    folder, record = copied
    path = folder / POSITIONS
    data = path.read_bytes()
    rng = np.random.default_rng(2)
    for place in range(128):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1 << int(rng.integers(8))]) + data[place + 1:])
        try:
            assert CaseReader(folder, record, NAME).positions.shape[1:] == (4,)
        except StoreError as error:
            assert NAME in str(error)


@pytest.mark.parametrize("name", [IMAGE, MASK])
@pytest.mark.parametrize("keep", [0, 1, 0.5, -1])
def test_a_truncated_shard_is_a_store_error(copied, name, keep):
    folder, record = copied
    shard = next(folder / file for file, _ in record.bytes if file.startswith(f"{name}/"))
    data = shard.read_bytes()
    shard.write_bytes(data[:keep if isinstance(keep, int) else int(len(data) * keep)])
    with pytest.raises(StoreError, match=rf"{NAME}.*bytes and should have {len(data)}"):
        read_all(folder, record)


@pytest.mark.parametrize("gone", ["shard", "metadata", "array", "folder", POSITIONS])
def test_what_is_missing_is_a_store_error(copied, gone):
    folder, record = copied
    shard = folder / record.bytes[0][0]
    if gone in ("array", "folder"):
        shutil.rmtree({"array": folder / IMAGE, "folder": folder}[gone])
    else:
        {"shard": shard, "metadata": folder / IMAGE / "zarr.json", POSITIONS: folder / POSITIONS}[gone].unlink()
    with pytest.raises(StoreError, match=NAME):
        read_all(folder, record)


@pytest.mark.parametrize("harm", [Path.unlink, lambda path: path.write_bytes(b""),
                                  lambda path: path.write_bytes(path.read_bytes()[:-3])])
def test_a_shard_that_is_lost_while_in_use_is_a_store_error(copied, harm):
    folder, record = copied
    reader = CaseReader(folder, record, NAME)
    first = reader.image((0, 0, 0), (4, 4, 4))
    assert first.any()
    harm(folder / record.bytes[0][0])
    with pytest.raises(StoreError, match=NAME):
        reader.image((0, 0, 0), (4, 4, 4))


def test_a_sound_shard_of_another_case_is_not_taken(copied, tmp_path):
    folder, record = copied
    phantom = organ(0, 1)
    shutil.rmtree(folder)
    write_arrays(folder, phantom.image[None], phantom.mask, phantom.geometry)
    with pytest.raises(StoreError, match=NAME):
        read_all(folder, record)


def test_a_damaged_index_is_a_typed_error(copied):
    folder, record = copied
    store = folder.parent
    write_index(store, [record])
    assert Store(store).records == {record.key: record}
    whole = read_json(store / INDEX)
    for damage in ({}, [], {"records": [{}]}, {"records": [{**whole["records"][0], "shape": 3}]},
                   {"records": [{**whole["records"][0], "unheard": 1}]}, {"records": None}):
        write_json(store / INDEX, damage)
        with pytest.raises(StoreError, match="index is damaged"):
            Store(store)
    (store / INDEX).write_text('{"records": [')
    with pytest.raises(WorkspaceError, match="damaged"):
        Store(store)

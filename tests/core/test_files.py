"""File safety: killed at any write, on a full disk, and with damaged files."""

from __future__ import annotations

import json
import math
from collections.abc import Generator
from pathlib import Path

import numpy as np
import pytest

from apart import kill_at_each_write, run_on_tiny_disk
from megavox.core.errors import MachineError, WorkspaceError
from megavox.core.files import (
    TEMPORARY,
    file_hash,
    read_array,
    read_csv,
    read_json,
    remove_unfinished,
    text_hash,
    whole_file,
    whole_folder,
    write_array,
    write_bytes,
    write_csv,
    write_json,
    write_text,
)

OLD, NEW = "old " * 5000, "new " * 7000


def _tree(folder: Path) -> dict[str, str] | None:
    if not folder.exists():
        return None
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def _fill(folder: Path, text: str) -> None:
    for name in ("a.txt", "b/c.txt", "b/d.txt"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)


def replace_file(root: Path, number: int) -> Generator[None, None, None]:
    path = root / str(number) / "a.txt"
    write_text(path, OLD)
    yield
    write_text(path, NEW)


def new_folder(root: Path, number: int) -> Generator[None, None, None]:
    yield
    with whole_folder(root / str(number) / "folder") as temporary:
        _fill(temporary, NEW)


def replace_folder(root: Path, number: int) -> Generator[None, None, None]:
    path = root / str(number) / "folder"
    with whole_folder(path) as temporary:
        _fill(temporary, OLD)
    yield
    with whole_folder(path) as temporary:
        _fill(temporary, NEW)


def test_a_file_killed_at_any_write_is_old_or_new(tmp_path):
    kills = kill_at_each_write(replace_file, tmp_path)
    found = [(tmp_path / str(n) / "a.txt").read_text() for n in range(1, kills + 2)]
    assert kills >= 5 and set(found) == {OLD, NEW}
    assert found == sorted(found, reverse=True), "once new, always new"
    for number in range(1, kills + 2):
        remove_unfinished(tmp_path / str(number))
        assert [path.name for path in (tmp_path / str(number)).iterdir()] == ["a.txt"]


@pytest.mark.parametrize("work", [new_folder, replace_folder])
def test_a_folder_killed_at_any_write_is_whole_or_not_there(tmp_path, work):
    kills = kill_at_each_write(work, tmp_path)
    whole = [{name: text for name in ("a.txt", "b/c.txt", "b/d.txt")} for text in (OLD, NEW)]
    found = [_tree(tmp_path / str(n) / "folder") for n in range(1, kills + 2)]
    assert kills >= 10 and found[-1] == whole[1]
    assert all(tree is None or tree in whole for tree in found)
    if work is replace_folder:
        assert found[0] == whole[0] and found.count(None) <= 1, "only between two renames may it be missing"
    for number in range(1, kills + 2):
        folder = tmp_path / str(number)
        remove_unfinished(folder)
        assert {path.name for path in folder.iterdir()} <= {"folder"} if folder.exists() else number == 1


def fill_the_disk(root: Path) -> None:
    write_text(root / "kept.txt", OLD)
    big = bytes(2 << 20)

    def folder(path: Path) -> None:
        with whole_folder(path) as temporary:
            (temporary / "small").write_bytes(b"1")
            (temporary / "big").write_bytes(big)

    writers = {"bytes": lambda path: write_bytes(path, big), "folder": folder,
               "kept.txt": lambda path: write_bytes(path, big),
               "array": lambda path: write_array(path, np.zeros(1 << 18)),
               "json": lambda path: write_json(path, "x" * len(big)),
               "csv": lambda path: write_csv(path, ["a"], [{"a": "x" * len(big)}])}
    for name, write in writers.items():
        with pytest.raises(MachineError, match="No space left on device") as caught:
            write(root / name)
        assert str(root / name) in str(caught.value) and "again" in caught.value.fix
        assert sorted(path.name for path in root.iterdir()) == ["kept.txt"], name
    assert (root / "kept.txt").read_text() == OLD
    with pytest.raises(OSError, match="No space"):
        for number in range(1000):
            (root / f"filler{number}").touch()
    with pytest.raises(MachineError):  # not even a folder
        write_text(root / "deep" / "text", NEW)


def test_a_full_disk_is_named_and_leaves_nothing(tmp_path):
    run_on_tiny_disk(fill_the_disk, tmp_path / "disk", "256k,nr_inodes=40")


def test_an_error_leaves_neither_file_nor_folder(tmp_path):
    write_text(tmp_path / "kept", OLD)
    with pytest.raises(KeyError), whole_file(tmp_path / "kept") as temporary:
        temporary.write_text(NEW)
        raise KeyError
    with pytest.raises(KeyError), whole_folder(tmp_path / "folder") as temporary:
        _fill(temporary, NEW)
        raise KeyError
    assert _tree(tmp_path) == {"kept": OLD}


def test_other_os_errors_are_not_taken_for_a_full_disk(tmp_path):
    (tmp_path / "a").write_text("a file, not a folder")
    with pytest.raises(FileExistsError):
        write_text(tmp_path / "a" / "b", NEW)


def test_files_are_readable_by_others_and_temporary_names_are_beside(tmp_path):
    with whole_file(tmp_path / "a.nii.gz", suffix=".nii.gz") as temporary:
        assert temporary.parent == tmp_path
        assert temporary.name.startswith(TEMPORARY) and temporary.name.endswith(".nii.gz")
    assert (tmp_path / "a.nii.gz").stat().st_mode & 0o777 == 0o644
    with whole_folder(tmp_path / "folder"):
        pass
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o755


def test_json_holds_numpy_and_turns_what_is_not_finite_to_null(tmp_path):
    write_json(tmp_path / "a.json", {
        "nan": math.nan, "inf": [math.inf, -math.inf], 3: np.float32(0.5), "array": np.array([[1.0, np.nan]]),
        "int": np.int16(-7), "bool": np.bool_(True), "path": Path("a/b"), "tuple": (1, None, "ü")})
    text = (tmp_path / "a.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail) == read_json(tmp_path / "a.json") == {
        "nan": None, "inf": [None, None], "3": 0.5, "array": [[1.0, None]], "int": -7, "bool": True,
        "path": "a/b", "tuple": [1, None, "ü"]}


@pytest.mark.parametrize("content", [b"", b'{"a": 1', b"{'a': 1}", b'{"a": "\xff\xfe"}', b'{"a": 1} x'])
def test_damaged_json_is_a_workspace_error_that_names_the_file(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(WorkspaceError, match="damaged") as caught:
        read_json(path)
    assert str(path) in str(caught.value)


def test_damaged_csv_is_a_workspace_error(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"a,b\n1,\xff\xfe\n")
    with pytest.raises(WorkspaceError, match="damaged"):
        read_csv(tmp_path / "a.csv")


@pytest.mark.parametrize("read", [read_json, read_csv])
def test_what_is_not_there_is_a_workspace_error(tmp_path, read):
    with pytest.raises(WorkspaceError, match=r"none\.x: this file is not there\. Run the stage"):
        read(tmp_path / "none.x")


def test_csv_round_trip_with_awkward_text(tmp_path):
    rows = [{"a": 'x,"y"\n z', "b": "ü;|", "c": "left out"}, {"a": "", "b": " 1 "}]
    write_csv(tmp_path / "a.csv", ["b", "a"], rows)
    assert read_csv(tmp_path / "a.csv") == [{"b": row["b"], "a": row["a"]} for row in rows]
    (tmp_path / "excel.csv").write_bytes("\ufeffa,b\r\n1,2\r\n".encode())
    assert read_csv(tmp_path / "excel.csv") == [{"a": "1", "b": "2"}]


@pytest.mark.parametrize("array", [np.arange(24).reshape(2, 3, 4), np.array(1.5), np.zeros((0, 4), np.uint16),
                                   np.asfortranarray(np.arange(6.0).reshape(2, 3))])
def test_arrays_come_back_and_are_never_unpickled(tmp_path, array):
    write_array(tmp_path / "a.npy", array)
    read = read_array(tmp_path / "a.npy")
    assert read.dtype == array.dtype
    np.testing.assert_array_equal(read, array)
    with pytest.raises(ValueError, match="allow_pickle"):
        write_array(tmp_path / "b.npy", np.array([{}], dtype=object))
    np.save(tmp_path / "c.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="allow_pickle"):
        read_array(tmp_path / "c.npy")
    assert not (tmp_path / "b.npy").exists()


def test_hashes_are_sha256(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, B.1
    assert file_hash(tmp_path / "abc") == text_hash("abc") == known

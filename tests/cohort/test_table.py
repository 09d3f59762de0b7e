"""cohort.csv: what is written is read again, for any names."""

from __future__ import annotations

import csv
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megavox.cohort.case import Case, Finding
from megavox.cohort.table import COLUMNS, Entry, read_cohort, write_cohort
from megavox.core.errors import WorkspaceError

text = st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), min_size=1, max_size=12)
paths = st.lists(text.map(lambda t: t.replace("/", "")).filter(lambda t: t not in ("", ".", "..")), min_size=1,
                 max_size=3).map(lambda parts: Path("/", *parts))
files = st.lists(paths, min_size=1, max_size=3).map(tuple)
names = st.one_of(st.sampled_from(["-", "--", "%2D", "", ";", "%", "\r", "\0", " "]), st.text(max_size=12))
classes = st.lists(names, max_size=3).map(tuple)
series = st.lists(files, min_size=1, max_size=3).map(tuple)
numbers = st.floats(allow_nan=False)
findings = st.builds(Finding, st.tuples(numbers, numbers, numbers), numbers, st.booleans())
cases = st.builds(Case, text, text, st.one_of(st.just(""), text), images=series,
                  masks=st.lists(paths, max_size=3).map(tuple), labels=st.one_of(st.none(), classes), unknown=classes,
                  findings=st.one_of(st.none(), st.lists(findings, max_size=3).map(tuple)))
entries = st.lists(st.builds(Entry, cases, text, st.sampled_from(["train", "test"]), text, text, text), max_size=4)


@given(entries)
def test_what_is_written_is_read_again(rows):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cohort.csv"
        write_cohort(path, rows)
        assert read_cohort(path) == rows


def test_separators_in_file_names_are_kept(tmp_path):
    odd = Path("/data/a;b|c%3B.nii")
    case = Case("c", "s", "", ((odd, Path("/x")), (Path("/y"),)), (odd,), ("p;q", "r"))
    write_cohort(tmp_path / "cohort.csv", [Entry(case, "k", "train")])
    assert read_cohort(tmp_path / "cohort.csv")[0].case == case


def test_a_class_called_minus_is_not_an_unknown_target(tmp_path):
    case = Case("c", "s", "", ((Path("/x"),),), labels=("-",))
    unknown = Case("d", "s", "", ((Path("/y"),),), labels=None)
    write_cohort(tmp_path / "cohort.csv", [Entry(case, "k", "train"), Entry(unknown, "k", "train")])
    assert [entry.case for entry in read_cohort(tmp_path / "cohort.csv")] == [case, unknown]


def test_no_finding_is_not_an_unknown_target_and_findings_are_legible(tmp_path):
    found = (Finding((-56.08, -67.85, 311.5), 4.25), Finding((1.0, 2.0, 3.0), -1.0, counts=False))
    cases = [Case(name, "s", "", ((Path("/x"),),), findings=value) for name, value in zip("abc", (None, (), found),
                                                                                          strict=True)]
    write_cohort(tmp_path / "cohort.csv", [Entry(case, "k", "train") for case in cases])
    assert [entry.case.findings for entry in read_cohort(tmp_path / "cohort.csv")] == [None, (), found]
    with (tmp_path / "cohort.csv").open(newline="") as stream:
        assert [row["findings"] for row in csv.DictReader(stream)] == [
            "-", "", "-56.08 -67.85 311.5 4.25;1.0 2.0 3.0 -1.0 excluded"]


def test_plain_names_stay_as_they_are(tmp_path):
    case = Case("c1", "s1", "v1", ((Path("/a b/1.dcm"), Path("/a b/2.dcm")), (Path("/é.nii"),)), labels=("x-1", "y"))
    write_cohort(tmp_path / "cohort.csv", [Entry(case, "k", "test", "4 x 5", "1 x 2", "odd")])
    with (tmp_path / "cohort.csv").open(newline="") as stream:
        header, row = csv.reader(stream)
    assert tuple(header) == COLUMNS
    assert row == ["c1", "s1", "v1", "test", "k", "x-1;y", "", "-", "4 x 5", "1 x 2", "odd",
                   "/a b/1.dcm;/a b/2.dcm|/é.nii", ""]


def test_a_series_of_thousands_of_files_fits(tmp_path):
    series = tuple(Path(f"/a/long/folder/name/of/a/hospital/archive/{n:06d}.dcm") for n in range(4000))
    write_cohort(tmp_path / "cohort.csv", [Entry(Case("c", "s", "", (series,)), "k", "train")])
    assert read_cohort(tmp_path / "cohort.csv")[0].case.images == (series,)


def test_a_missing_or_damaged_table_is_a_workspace_error(tmp_path):
    path = tmp_path / "cohort.csv"
    with pytest.raises(WorkspaceError, match="not there"):
        read_cohort(path)
    write_cohort(path, [Entry(Case(name, "s", "", ((Path("/x"),),)), "k", "train") for name in "ab"])
    whole = path.read_text()
    path.write_text(whole[: whole.rindex(",") - 8])
    with pytest.raises(WorkspaceError, match=r"line 3 .*masks"):
        read_cohort(path)
    path.write_text(whole.replace("-,", "1.0 2.0 x 3,"))
    with pytest.raises(WorkspaceError, match=r"a finding is '1\.0 2\.0 x 3'"):
        read_cohort(path)
    path.write_text(whole.replace("part", "Part", 1))
    with pytest.raises(WorkspaceError, match=r"line 2 .*part"):
        read_cohort(path)

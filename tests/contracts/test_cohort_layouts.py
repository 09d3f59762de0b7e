"""What every layout must do: know its own folders only, name cases safely, and say what is missing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from layout_folders import MAKERS, as_study

from megavox import cli
from megavox.cohort.layouts import LAYOUTS, recognise_folder
from megavox.core.errors import CohortError

NAMES = list(LAYOUTS)


def test_every_layout_is_held_to_this_contract() -> None:
    assert list(MAKERS) == NAMES
    assert all(name == layout.name for name, layout in LAYOUTS.items())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("of", NAMES)
def test_recognises_its_own_folder_and_no_other(name: str, of: str, tmp_path: Path) -> None:
    guess = LAYOUTS[name].recognise(MAKERS[of](tmp_path / "x"))
    assert (guess is not None) == (name == of)


@pytest.mark.parametrize("name", NAMES)
def test_the_guess_is_a_study_and_its_comments_name_keys(name: str, tmp_path: Path) -> None:
    found, guess = recognise_folder(MAKERS[name](tmp_path / "x"))
    study = as_study(guess)
    assert found == name == study.cohort.layout
    for key in guess.comments:
        section, _, field = key.partition(".")
        assert field in type(getattr(study, section)).model_fields, key


@pytest.mark.parametrize("name", NAMES)
def test_cases_have_unique_safe_names_and_files_that_are_there(name: str, tmp_path: Path) -> None:
    study = as_study(recognise_folder(MAKERS[name](tmp_path / "x"))[1])
    catalogue = LAYOUTS[name].catalogue(study.cohort, study.task).checked()
    assert catalogue.cases and not catalogue.rejected
    names = [case.name.lower() for case in catalogue.cases]
    assert len(set(names)) == len(names)
    for case in catalogue.cases:
        assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", case.name)
        assert case.subject
        assert all(path.is_file() for files in case.images for path in files)
        assert all(path.is_file() for path in case.masks)
        if study.task.kind == "classify":
            assert case.labels and set(case.labels) <= set(study.task.classes)
        elif study.task.kind == "detect":
            assert case.findings is not None
        else:
            assert case.masks or name == "dicom"


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_folder_is_said_with_its_name_and_the_nearest(name: str, tmp_path: Path) -> None:
    folder = MAKERS[name](tmp_path / "cohort_a")
    study = as_study(recognise_folder(folder)[1])
    section = study.cohort.model_copy(update={"folder": tmp_path / "cohort_b"})
    with pytest.raises(CohortError, match=r"cohort_b.*cohort_a"):
        LAYOUTS[name].catalogue(section, study.task)


@pytest.mark.parametrize("name", NAMES)
def test_new_names_the_next_step_or_says_that_there_is_nothing_to_learn_from(
        name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = MAKERS[name](tmp_path / "x")
    assert cli.main(["new", str(folder), "--output", str(tmp_path / "study.yaml")]) == 0
    told = " ".join(capsys.readouterr().err.split())
    learns = name != "dicom"  # the series of which have neither masks nor a table
    assert ("next: megavox run" in told) == learns
    assert ("no masks and no table" in told and f"predict STUDY --input {folder}" in told) != learns


@pytest.mark.parametrize("name", NAMES)
def test_hidden_files_and_apple_doubles_are_no_images(name: str, tmp_path: Path) -> None:
    folder = MAKERS[name](tmp_path / "x")
    study = as_study(recognise_folder(folder)[1])
    before = LAYOUTS[name].catalogue(study.cohort, study.task)
    for path in [p for p in folder.rglob("*") if p.is_file()]:
        path.with_name("._" + path.name).write_bytes(b"\0\5\26\7 resource fork")
        (path.parent / ".DS_Store").write_bytes(b"")
    assert as_study(recognise_folder(folder)[1]) == study
    assert LAYOUTS[name].catalogue(study.cohort, study.task) == before


@pytest.mark.parametrize(("name", "change"), [
    ("table", {"table": "label.csv"}), ("table", {"images": "image"}), ("table", {"image_column": "images"}),
    ("table", {"subject_column": "patients"}), ("table", {"session_column": "visit"}),
    ("table", {"class_columns": ["labels"]}), ("table", {"class_columns": ["label", "patient"]}),
    ("bids", {"image_suffixes": ["SEN"]}), ("bids", {"masks": ["seg-axon", "seg-myelin-manual"]}),
    ("bids", {"masks": ["seg-axon-manual"] * 3}),
    ("luna16", {"annotations": "annotation.csv"}), ("luna16", {"subject_pattern": "LIDC"}),
    ("folders", {"subject_pattern": "person("}), ("folders", {"subject_pattern": "person"}),
    ("dicom", {"masks": Path("nowhere")})])
def test_a_wrong_key_of_the_study_is_a_cohort_error(name: str, change: dict[str, object], tmp_path: Path) -> None:
    study = as_study(recognise_folder(MAKERS[name](tmp_path / "x"))[1])
    with pytest.raises(CohortError):
        LAYOUTS[name].catalogue(study.cohort.model_copy(update=change), study.task)


def test_a_folder_that_nothing_recognises_says_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "a.docx").write_bytes(b"x")
    with pytest.raises(CohortError) as caught:
        recognise_folder(tmp_path)
    assert "1 .docx" in str(caught.value) and "megavox predict STUDY --input" in str(caught.value)
    assert all(f"{name}:" in str(caught.value) for name in NAMES)


def test_a_folder_one_too_high_up_points_to_the_cohort_in_it(tmp_path: Path) -> None:
    MAKERS["decathlon"](tmp_path / "export" / "Task04")
    with pytest.raises(CohortError, match="Task04 is laid out as decathlon"):
        recognise_folder(tmp_path / "export")

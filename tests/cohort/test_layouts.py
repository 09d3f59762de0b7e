"""Each layout on folders made for the purpose, dirty ones included, and on real cohorts."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from megavox.cohort.case import Catalogue
from megavox.cohort.drawn import drawn, one_mask_a_class
from megavox.cohort.layouts import LAYOUTS, recognise_folder
from megavox.cohort.layouts.guess import Guess
from megavox.cohort.layouts.listing import safe_name, stem, unique_names
from megavox.cohort.layouts.samples import evenly
from megavox.core.errors import CohortError
from megavox.images.geometry import Geometry
from megavox.images.nifti import write_nifti
from megavox.images.raster import write_raster
from megavox.study.sections import Study


def volume(path: Path, values: tuple[int, ...] = (0, 1)) -> Path:
    array = np.resize(np.array(values, np.uint8), (1, 3, 5, 4))
    write_nifti(path, array, Geometry((4, 5, 3)))
    return path


def picture(path: Path, colour: bool = False) -> Path:
    array = np.full((3 if colour else 1, 6, 8), 120, np.uint8)
    if colour:
        array[0] = 200
    write_raster(path, array)
    return path


def study_of(guess: Guess, **changes: Any) -> Study:
    family = "unet" if guess.task["kind"] == "segment" else "resnet"
    return Study.model_validate({"name": "x", "cohort": {**guess.cohort, **changes}, "task": guess.task,
                                 "images": guess.images, "model": {"family": family}})


def catalogued(folder: Path, layout: str, **changes: Any) -> tuple[Guess, Catalogue]:
    name, guess = recognise_folder(folder)
    assert name == layout
    study = study_of(guess, **changes)
    return guess, LAYOUTS[layout].catalogue(study.cohort, study.task).checked()


def reasons(catalogue: Catalogue) -> dict[str, str]:
    return {item.case: item.reason for item in catalogue.rejected}


# ------------------------------------------------------------------ decathlon


def decathlon(folder: Path, images: list[str], masks: list[str], said: dict[str, Any] | None) -> Path:
    for name in images:
        volume(folder / "imagesTr" / name)
    for name in masks:
        volume(folder / "labelsTr" / name, (0, 1, 2))
    if said is not None:
        (folder / "dataset.json").write_text(json.dumps(said))
    return folder


MSD = {"labels": {"0": "background", "1": "Anterior", "2": "Posterior"}, "modality": {"0": "MRI"}}


def test_decathlon_lists_the_folders_and_not_only_dataset_json(tmp_path: Path) -> None:
    said = {**MSD, "training": [{"image": f"./imagesTr/{n}.nii.gz", "label": f"./labelsTr/{n}.nii.gz"}
                                for n in ("a", "b", "gone")]}
    folder = decathlon(tmp_path, ["a.nii.gz", "b.nii.gz", "extra.nii.gz", "nomask.nii.gz", "a.nii"],
                       ["a.nii.gz", "b.nii.gz", "extra.nii.gz", "noimage.nii.gz"], said)
    (folder / "imagesTr" / "notes.txt").write_text("x")
    volume(folder / "imagesTs" / "c.nii.gz")
    guess, found = catalogued(folder, "decathlon")
    assert guess.task["classes"] == {"Anterior": 1, "Posterior": 2}
    assert guess.images["channels"] == ["MRI"]
    assert [case.name for case in found.cases] == ["a", "b", "extra"]
    rejected = Counter((item.case, item.reason) for item in found.rejected)
    assert rejected == Counter({("nomask", "missing target"): 1, ("noimage", "missing image"): 1,
                                ("gone", "missing image"): 1, ("a", "duplicate"): 1})
    assert any("notes.txt" in remark for remark in found.remarks)


def test_nnunet_channels_make_one_case_and_a_missing_one_is_said(tmp_path: Path) -> None:
    said = {"channel_names": {"0": "T1", "1": "FLAIR"}, "labels": {"background": 0, "lesion": 1, "ignore": 2},
            "file_ending": ".nii.gz"}
    folder = decathlon(tmp_path, ["a_0000.nii.gz", "a_0001.nii.gz", "b_0000.nii.gz"], ["a.nii.gz", "b.nii.gz"],
                       said)
    guess, found = catalogued(folder, "decathlon")
    assert guess.task["classes"] == {"lesion": 1} and guess.task["ignore"] == [2]
    assert "task.ignore" in guess.comments and guess.images["channels"] == ["T1", "FLAIR"]
    assert [[path.name for files in case.images for path in files] for case in found.cases] == \
        [["a_0000.nii.gz", "a_0001.nii.gz"]]
    assert reasons(found) == {"b": "missing image"}


def test_numbered_decathlon_cases_are_not_taken_for_channels(tmp_path: Path) -> None:
    names = ["la_0000.nii.gz", "la_0001.nii.gz"]
    found = catalogued(decathlon(tmp_path, names, names, MSD), "decathlon")[1]
    assert [case.name for case in found.cases] == ["la_0000", "la_0001"]


def test_without_dataset_json_classes_are_read_from_the_masks(tmp_path: Path) -> None:
    guess, found = catalogued(decathlon(tmp_path, ["a_0000.nii.gz"], ["a.nii.gz"], None), "decathlon")
    assert guess.task["classes"] == {"class 1": 1, "class 2": 2}
    assert "masks" in guess.comments["task.classes"]
    assert [case.name for case in found.cases] == ["a"]


def test_regions_that_overlap_are_taken_apart_and_said(tmp_path: Path) -> None:
    said = {"labels": {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "active": 3}}
    guess, _ = catalogued(decathlon(tmp_path, ["a.nii.gz"], ["a.nii.gz"], said), "decathlon")
    assert guess.task["classes"] == {"whole rest": 1, "core rest": 2, "active": 3}
    assert "overlap" in guess.comments["task.classes"]


def test_regions_that_do_not_overlap_are_plain_classes(tmp_path: Path) -> None:
    said = {"labels": {"background": 0, "kidneys": [1, 2], "liver": 3}}
    guess, _ = catalogued(decathlon(tmp_path, ["a.nii.gz"], ["a.nii.gz"], said), "decathlon")
    assert guess.task["classes"] == {"kidneys": [1, 2], "liver": 3}


@pytest.mark.parametrize(("name", "subject", "session"), [
    ("knee7_visit2", "knee7", "visit2"), ("p3_ses-M12", "p3", "ses-M12"), ("p3_V1", "p3", "V1"),
    ("p3-tp02", "p3", "tp02"), ("hippocampus_001", "hippocampus_001", ""), ("p3_v", "p3_v", "")])
def test_visits_at_the_end_of_a_name_keep_a_subject_together(name: str, subject: str, session: str,
                                                             tmp_path: Path) -> None:
    guess, found = catalogued(decathlon(tmp_path, [f"{name}.nii.gz"], [f"{name}.nii.gz"], MSD), "decathlon")
    assert (found.cases[0].subject, found.cases[0].session) == (subject, session)
    assert ("cohort.layout" in guess.comments) == bool(session) == bool(found.remarks)


@pytest.mark.parametrize("text", ["{", "[1]", '{"labels": 3}', '{"labels": {"background": 0}}'])
def test_a_damaged_dataset_json_is_a_cohort_error(text: str, tmp_path: Path) -> None:
    decathlon(tmp_path, ["a.nii.gz"], ["a.nii.gz"], None)
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(CohortError, match="dataset"):
        recognise_folder(tmp_path)


def test_hippocampus_with_files_dropped_in_by_hand(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "hippocampus_msd"
    guess, found = catalogued(source, "decathlon")
    assert guess.task["classes"] == {"Anterior": 1, "Posterior": 2}
    assert len(found.cases) == 200 and not found.rejected
    for part in ("imagesTr", "labelsTr"):
        (tmp_path / part).mkdir()
        for path in sorted((source / part).iterdir())[:5]:
            shutil.copy(path, tmp_path / part)
    shutil.copy(source / "dirty/image_without_label/hippocampus_118.nii.gz", tmp_path / "imagesTr")
    for path in (source / "dirty/label_without_image").iterdir():
        shutil.copy(path, tmp_path / "labelsTr")
    _, found = catalogued(tmp_path, "decathlon")
    assert len(found.cases) == 5
    assert reasons(found) == {"hippocampus_118": "missing target", "hippocampus_010": "missing image",
                              "hippocampus_281": "missing image"}


# ------------------------------------------------------------------ bids


def bids_image(folder: Path, name: str, masks: tuple[str, ...], values: tuple[int, ...] = (0, 1)) -> None:
    entities = name.rpartition("_")[0].split("_")
    place = Path(*[part for part in entities if part.startswith(("sub-", "ses-"))], "anat")
    volume(folder / place / f"{name}.nii.gz")
    for mask in masks:
        volume(folder / "derivatives/labels" / place / f"{name}_{mask}.nii.gz", values)


def test_bids_sessions_channels_and_what_is_missing(tmp_path: Path) -> None:
    for name in ("sub-1_ses-a", "sub-1_ses-b", "sub-2_ses-a"):
        bids_image(tmp_path, f"{name}_T1w", ())
        bids_image(tmp_path, f"{name}_T2w", ("seg-manual",))
    bids_image(tmp_path, "sub-3_T2w", ())
    bids_image(tmp_path, "sub-4_T2w", ("seg-manual",))
    volume(tmp_path / "derivatives/labels/sub-5/anat/sub-5_T2w_seg-manual.nii.gz")
    guess, found = catalogued(tmp_path, "bids", image_suffixes=["T2w", "T1w"])
    assert guess.cohort["image_suffixes"] == ["T2w"] and guess.cohort["masks"] == ["seg-manual"]
    assert [(case.subject, case.session, len(case.images)) for case in found.cases] == \
        [("sub-1", "ses-a", 2), ("sub-1", "ses-b", 2), ("sub-2", "ses-a", 2)]
    assert reasons(found) == {"sub-3_T2w": "missing image", "sub-4_T2w": "missing image",
                              "sub-5_T2w_seg-manual": "missing image"}
    _, found = catalogued(tmp_path, "bids")
    assert reasons(found) == {"sub-3_T2w": "missing target", "sub-5_T2w_seg-manual": "missing image"}


def test_bids_files_that_differ_in_the_ending_alone_are_said(tmp_path: Path) -> None:
    for name in ("sub-1_T1w", "sub-2_T1w", "sub-3_T1w"):
        bids_image(tmp_path, name, ("seg-manual",))
    image, mask = "sub-1/anat/sub-1_T1w", "derivatives/labels/sub-2/anat/sub-2_T1w_seg-manual"
    volume(tmp_path / f"{image}.nii")
    volume(tmp_path / f"{mask}.nii")
    (tmp_path / "sub-3/anat/sub-3_T1w.bmp").write_bytes(b"BM")  # stands first by name
    for ending in (".nii", ".nii.gz"):
        volume(tmp_path / f"sub-1/anat/sub-1_scout{ending}")  # which the study does not use
    _, found = catalogued(tmp_path, "bids")
    assert [case.images[0][0].name for case in found.cases] == ["sub-1_T1w.nii", "sub-2_T1w.nii.gz", "sub-3_T1w.nii.gz"]
    assert found.cases[1].masks[0].name == "sub-2_T1w_seg-manual.nii"
    assert {Path(item.file).relative_to(tmp_path).as_posix(): item.reason for item in found.rejected} == {
        f"{image}.nii.gz": "duplicate", f"{mask}.nii.gz": "duplicate", "sub-3/anat/sub-3_T1w.bmp": "duplicate"}


def test_one_bids_mask_with_several_values_is_several_classes(tmp_path: Path) -> None:
    bids_image(tmp_path, "sub-1_T2w", ("label-discs",), values=(0, 3, 4))
    guess, found = catalogued(tmp_path, "bids")
    assert guess.task["classes"] == {"class 3": 3, "class 4": 4}
    study = study_of(guess)
    assert study.task.kind == "segment" and not one_mask_a_class(study.cohort, study.task)
    assert len(found.cases) == 1


def test_axon_masks_are_classes_and_their_union_is_left_out(shared_data: Path) -> None:
    guess, found = catalogued(shared_data / "microscopy_axon_sem", "bids")
    assert guess.task["classes"] == {"axon": 1, "myelin": 2}
    assert "axonmyelin" in guess.comments["cohort.masks"]
    assert len(found.cases) == 8 and len({case.subject for case in found.cases}) == 6
    assert all("_seg-axon-" in case.masks[0].name and "_seg-myelin-" in case.masks[1].name
               for case in found.cases)
    study = study_of(guess)
    assert study.task.kind == "segment" and one_mask_a_class(study.cohort, study.task)


def test_spine_generic_in_bids_places(shared_data: Path, tmp_path: Path) -> None:
    for path in (shared_data / "spinal_cord_mri/spine_generic_sub-unf01").glob("*.nii.gz"):
        top = tmp_path / "derivatives/labels" if "seg" in path.name else tmp_path
        (top / "sub-unf01/anat").mkdir(parents=True, exist_ok=True)
        shutil.copy(path, top / "sub-unf01/anat")
    guess, found = catalogued(tmp_path, "bids")
    assert guess.cohort["masks"] == ["seg-manual"] and guess.task["classes"] == {"structure": 1}
    assert "cohort.image_suffixes" in guess.comments
    assert len(found.cases) == 1


@given(st.integers(1, 255), st.lists(st.booleans(), min_size=1, max_size=20))
def test_half_of_the_maximum_means_the_same_for_every_full_value(full: int, cells: list[bool]) -> None:
    mask = np.array(cells)
    assert np.array_equal(drawn(mask * full), mask)
    assert np.array_equal(drawn(mask.astype(np.float32) / full), mask)


def test_grey_edges_count_from_the_half_on() -> None:
    assert drawn(np.array([0, 100, 127, 128, 255], np.uint8)).tolist() == [False, False, False, True, True]


# ------------------------------------------------------------------ table


def table(folder: Path, text: str, images: int = 4, name: str = "labels.csv", colour: bool = False) -> Path:
    for number in range(images):
        picture(folder / "images" / f"x{number}.png", colour)
    (folder / name).write_text(text)
    return folder


def test_table_rows_that_cannot_be_used_are_set_aside_with_the_reason(tmp_path: Path) -> None:
    text = ("file;Patient ID;visit;diagnosis\nx0;7;1;healthy\nx1;7;2;\nx2;8;1;ill\ngone;8;2;ill\nx3;9;1;helthy\n"
            ";9;2;ill\nx4;;1;ill\nx5;10;1;ill\nx5;10;1;ill\nx6;10;1;ill\nx6;11;1;ill\n")
    guess = recognise_folder(table(tmp_path, text, 9))[1]
    assert guess.cohort["subject_column"] == "Patient ID" and guess.cohort["session_column"] == "visit"
    guess.task["classes"] = ["healthy", "ill"]
    study = study_of(guess)
    found = LAYOUTS["table"].catalogue(study.cohort, study.task)
    assert [(case.name, case.subject, case.session, case.labels) for case in found.cases] == [
        ("x0", "7", "1", ("healthy",)), ("x2", "8", "1", ("ill",)), ("x5", "10", "1", ("ill",))]
    assert Counter(item.reason for item in found.rejected) == Counter(
        {"missing target": 1, "missing image": 2, "label": 1, "missing subject": 1, "duplicate": 2})
    typo = next(item for item in found.rejected if item.reason == "label")
    assert "healthy" in typo.message
    assert any("2 images stand in no row" in remark for remark in found.remarks)


@pytest.mark.parametrize(("ending", "rows"), [(".png", 9), ("", 9), (".png", 5000)])
def test_a_table_of_far_more_images_than_are_there_is_recognised(ending: str, rows: int, tmp_path: Path) -> None:
    lines = [f"x{number}{ending},{number % 90},{'ill' if number % 2 else 'healthy'}" for number in range(rows)]
    guess, found = catalogued(table(tmp_path, "\n".join(["image,age,label", *lines])), "table")
    assert guess.cohort["image_column"] == "image" and guess.cohort["images"] == "images"
    assert [case.name for case in found.cases] == ["x0", "x1", "x2", "x3"]
    assert guess.remarks == [f"{rows - 4} of {rows} rows of labels.csv name a file that is not there"]
    assert [item.reason for item in found.rejected] == ["missing image"] * (rows - 4)


def test_ages_are_not_taken_for_the_names_of_images(tmp_path: Path) -> None:
    for number in range(20, 24):
        picture(tmp_path / "images" / f"{number}.png")
    rows = [f"{20 + number % 60},{'ill' if number % 2 else 'healthy'}" for number in range(200)]
    (tmp_path / "labels.csv").write_text("\n".join(["age,label", *rows]))
    with pytest.raises(CohortError, match="no known layout"):
        recognise_folder(tmp_path)


@pytest.mark.parametrize("name", ["../x0.png", "/etc/x0.png", "..\\x0.png", "a/../../x0.png", "C:\\x0.png"])
def test_a_path_out_of_the_folder_is_refused(name: str, tmp_path: Path) -> None:
    folder = table(tmp_path, f"image,label\nx0.png,a\nx1.png,b\n{name},a\n")
    guess = recognise_folder(folder)[1]
    study = study_of(guess)
    with pytest.raises(CohortError, match="leads out"):
        LAYOUTS["table"].catalogue(study.cohort, study.task)


def test_multilabel_columns_with_unknown_cells(tmp_path: Path) -> None:
    text = ("image,subject_id,age,sex,mass,edema,hernia\nx0.png,1,50,0,1,0,0\nx1.png,1,51,0,0.0,1.0,0\n"
            "x2.png,2,60,1,-1,1,0\nx3.png,3,70,1,,nan,0\n")
    guess, found = catalogued(table(tmp_path, text), "table")
    assert guess.cohort["class_columns"] == ["mass", "edema"] and guess.task["multilabel"]
    assert "hernia" in guess.comments["cohort.class_columns"]
    assert [(case.labels, case.unknown) for case in found.cases] == [
        (("mass",), ()), (("edema",), ()), (("edema",), ("mass",))]
    assert reasons(found) == {"x3": "missing target"}


def test_multilabel_cells_other_than_0_and_1_are_set_aside(tmp_path: Path) -> None:
    text = "image,mass,edema\nx0.png,1,0\nx1.png,0,1\nx2.png,2,1\nx3.png,0,0\n"
    folder = table(tmp_path, text)
    study = Study.model_validate({
        "name": "x", "model": {"family": "resnet"},
        "cohort": {"layout": "table", "folder": str(folder), "class_columns": ["edema", "mass"]},
        "task": {"kind": "classify", "classes": ["mass", "edema"], "multilabel": True}})
    found = LAYOUTS["table"].catalogue(study.cohort, study.task)
    assert [case.labels for case in found.cases] == [("mass",), ("edema",), ()]  # by name, not by place
    assert reasons(found) == {"x2": "label"}


def test_equal_names_in_two_folders_get_longer_case_names(tmp_path: Path) -> None:
    for part in ("a", "b"):
        picture(tmp_path / "images" / part / "x.png")
    (tmp_path / "labels.csv").write_text("image,label\na/x.png,ill\nb/x.png,normal\n")
    guess, found = catalogued(tmp_path, "table")
    assert [case.name for case in found.cases] == ["a-x", "b-x"]
    assert guess.task["classes"] == ["normal", "ill"]  # the positive class last


def test_a_table_without_a_target_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(CohortError, match="no column of the table looks like a target"):
        recognise_folder(table(tmp_path, "image,age\nx0.png,50\nx1.png,51\n"))


@pytest.mark.parametrize(("content", "message"), [
    (b"", "no rows"), (b"image,label\n", "no rows"), (b"image,image\nx0.png,a\n", "twice"),
    (b"image,label\nx0.png,Kr\xfcppel\n", "UTF-8")])
def test_a_table_that_cannot_be_read_is_a_cohort_error(content: bytes, message: str, tmp_path: Path) -> None:
    table(tmp_path, "")
    (tmp_path / "labels.csv").write_bytes(content)
    with pytest.raises(CohortError, match=message):
        recognise_folder(tmp_path)


def test_pneumonia_takes_the_yes_no_column_and_tells_the_other(shared_data: Path) -> None:
    guess, found = catalogued(shared_data / "cxr_pneumonia_224px", "table")
    assert guess.cohort["class_columns"] == ["pneumonia"] and guess.cohort["subject_column"] == "patient"
    assert guess.task["classes"] == ["normal", "pneumonia"]
    assert "'label' (3 classes)" in guess.comments["cohort.class_columns"]
    assert Counter(case.labels for case in found.cases) == {("normal",): 480, ("pneumonia",): 960}
    assert len({case.subject for case in found.cases}) == 1051
    assert "grey" not in guess.images  # grey pictures stored as RGB


def test_nih_is_multilabel_with_subjects_and_visits(shared_data: Path) -> None:
    guess, found = catalogued(shared_data / "cxr_nih14_64px", "table")
    assert guess.cohort["subject_column"] == "patient_id" and guess.cohort["session_column"] == "follow_up"
    assert len(guess.task["classes"]) == 13 and guess.task["multilabel"]
    assert not {"sex", "age", "view", "Hernia"} & set(guess.task["classes"])
    assert len(found.cases) == 718 and sum("Effusion" in (case.labels or ()) for case in found.cases) == 109


def test_hannover_has_no_named_target_and_the_comment_asks(shared_data: Path) -> None:
    guess, found = catalogued(shared_data / "cxr_covid_hannover", "table")
    assert guess.cohort["table"] == "data.csv" and guess.cohort["suffix"] == ".png"
    assert guess.cohort["subject_column"] == "patient_id"
    assert guess.cohort["class_columns"] == ["projection"]
    assert guess.comments["cohort.class_columns"].startswith("PLEASE CHECK")
    assert len(found.cases) == 150 and len({case.subject for case in found.cases}) == 48


@pytest.mark.parametrize(("name", "classes", "cases"), [("histology_crc_tiles", 7, 49),
                                                        ("histology_lung_colon_tiles", 5, 70)])
def test_histology_tiles_are_coloured_and_have_no_subject(name: str, classes: int, cases: int,
                                                         shared_data: Path) -> None:
    guess, found = catalogued(shared_data / name, "table")
    assert guess.images["grey"] is False and len(guess.task["classes"]) == classes
    assert len(found.cases) == cases and "subject_column" not in guess.cohort
    assert "leaks" in guess.comments["cohort.subject_column"]


# ------------------------------------------------------------------ folders


def test_folder_per_class_with_subjects_from_the_names(tmp_path: Path) -> None:
    for name in ("person1_virus_6", "person1_bacteria_2", "person22_virus_1"):
        picture(tmp_path / "PNEUMONIA" / f"{name}.png")
    for name in ("IM-0115-0001", "NORMAL2-IM-0115-0001", "IM-0115-0002"):
        picture(tmp_path / "NORMAL" / "deep" / f"{name}.png")
        picture(tmp_path / "NORMAL" / f"{name}-0001.png")
    (tmp_path / "empty").mkdir()
    guess, found = catalogued(tmp_path, "folders")
    assert guess.task["classes"] == ["NORMAL", "PNEUMONIA"]
    assert "must not stand on two sides" in guess.comments["cohort.subject_pattern"]
    assert {case.subject for case in found.cases} == {"person1", "person22", "IM-0115", "NORMAL2-IM-0115"}
    assert Counter(case.labels for case in found.cases) == {("NORMAL",): 6, ("PNEUMONIA",): 3}


def test_equal_names_in_two_classes_stay_apart(tmp_path: Path) -> None:
    for place in ("benign", "Malignant"):
        picture(tmp_path / place / "1.png", colour=True)
    guess, found = catalogued(tmp_path, "folders")
    assert sorted(case.name for case in found.cases) == ["Malignant-1", "benign-1"]
    assert guess.images["grey"] is False and guess.task["classes"] == ["benign", "Malignant"]
    assert "subject_pattern" not in guess.cohort and "cohort.subject_pattern" in guess.comments


def test_files_that_the_subject_pattern_does_not_fit_are_set_aside(tmp_path: Path) -> None:
    for name in ("patient1_a", "patient2_a", "other"):
        picture(tmp_path / "a" / f"{name}.png")
        picture(tmp_path / "b" / f"{name}_2.png")
    _, found = catalogued(tmp_path, "folders", subject_pattern=r"(patient\d+)_")
    assert {case.subject for case in found.cases} == {"patient1", "patient2"}
    assert set(reasons(found).values()) == {"missing subject"} and len(found.rejected) == 2


def test_train_and_test_folders_are_not_classes(tmp_path: Path) -> None:
    for part in ("train", "test"):
        for name in ("NORMAL", "PNEUMONIA"):
            picture(tmp_path / part / name / "1.png")
    with pytest.raises(CohortError, match="parts of a split"):
        recognise_folder(tmp_path)


def test_a_folder_per_patient_is_not_a_folder_per_class(tmp_path: Path) -> None:
    for name in ("patient01", "patient02"):
        picture(tmp_path / name / "1.png")
    assert LAYOUTS["folders"].recognise(tmp_path) is None


def test_a_class_without_a_folder_names_the_nearest(tmp_path: Path) -> None:
    for name in ("ADI", "TUM"):
        picture(tmp_path / name / "1.png")
    study = study_of(recognise_folder(tmp_path)[1])
    task = study.task.model_copy(update={"classes": ["ADI", "TUMM"]})
    with pytest.raises(CohortError, match="Did you mean 'TUM'"):
        LAYOUTS["folders"].catalogue(study.cohort, task)


# ------------------------------------------------------------------ dicom


def test_ct_series_without_target_asks_for_one(shared_data: Path) -> None:
    guess, found = catalogued(shared_data / "ct_abdomen_totalseg/ct_dicom", "dicom")
    assert guess.comments["cohort.masks"].startswith("PLEASE FILL IN")
    assert len(found.cases) == 1 and len(found.cases[0].images[0]) == 20
    assert any("predicted" in remark for remark in found.remarks)
    _, found = catalogued(shared_data / "ct_abdomen_totalseg", "dicom")
    assert any("7 images that are not DICOM" in remark for remark in found.remarks)


def hippocampus_series(shared_data: Path, folder: Path) -> Path:
    for name in ("dicom_crop_Study1", "dicom_crop_Study2"):
        shutil.copytree(shared_data / "hippocampus_msd" / name, folder / name)
    return folder


def test_dicom_with_masks(shared_data: Path, tmp_path: Path) -> None:
    folder = hippocampus_series(shared_data, tmp_path)
    volume(folder / "masks/dicom_crop_Study1.nii.gz", (0, 1, 2))
    volume(folder / "masks/nobody.nii.gz")
    guess, found = catalogued(folder, "dicom")
    assert guess.task["classes"] == {"class 1": 1, "class 2": 2}
    assert [(case.name, case.masks[0].name) for case in found.cases] == \
        [("dicom_crop_Study1", "dicom_crop_Study1.nii.gz")]
    assert reasons(found) == {"dicom_crop_Study2": "missing target", "nobody": "missing image"}
    assert not found.remarks


def test_dicom_with_a_table(shared_data: Path, tmp_path: Path) -> None:
    folder = hippocampus_series(shared_data, tmp_path)
    (folder / "classes.csv").write_text("series,diagnosis\ndicom_crop_Study1,normal\nelsewhere,ill\n")
    guess, found = catalogued(folder, "dicom")
    assert guess.cohort["class_columns"] == ["diagnosis"] and guess.task["classes"] == ["normal", "ill"]
    assert [(case.name, case.labels) for case in found.cases] == [("dicom_crop_Study1", ("normal",))]
    assert reasons(found) == {"dicom_crop_Study2": "missing target", "elsewhere": "missing image"}
    (folder / "classes.csv").write_text("subject,diagnosis\nx,normal\nx,ill\n")
    study = study_of(guess)
    with pytest.raises(CohortError, match="two rows"):
        LAYOUTS["dicom"].catalogue(study.cohort, study.task)


def test_crop_study_has_the_patient_of_its_files(shared_data: Path) -> None:
    _, found = catalogued(shared_data / "hippocampus_msd/dicom_crop_Study1", "dicom")
    assert [(case.name, case.subject) for case in found.cases] == [("dicom_crop_Study1", "PGBM-002")]


# ------------------------------------------------------------------ names


@given(st.lists(st.text(max_size=12), max_size=8))
def test_names_are_unique_and_safe_whatever_the_files_are_called(stems: list[str]) -> None:
    names = unique_names(stems, [f"folder/{name}" for name in stems])
    assert len({name.lower() for name in names}) == len(stems)
    assert all(safe_name(name) == name for name in names)


def test_long_names_stay_apart() -> None:
    names = [safe_name("very_" * 40 + str(number)) for number in range(3)]
    assert len(set(names)) == 3 and {len(name) for name in names} == {120}
    assert safe_name("x" * 120) == "x" * 120


@given(st.integers(1, 300), st.integers(2, 50))
def test_an_even_choice_has_both_ends_and_no_repeats(count: int, most: int) -> None:
    chosen = evenly(range(count), most)
    assert len(chosen) == len(set(chosen)) == min(count, most)
    assert chosen[0] == 0 and chosen[-1] == count - 1


def test_stems_keep_inner_dots() -> None:
    assert [stem(name) for name in ("a.b.nii.gz", "a.NII", "x.PNG", "x.txt")] == ["a.b", "a", "x", "x.txt"]

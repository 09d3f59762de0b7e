"""LUNA16's layout: what becomes a case, what is set aside and why, and findings checked against their image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from megavox.cohort.case import Case, Catalogue, Finding
from megavox.cohort.checks import duplicates
from megavox.cohort.layouts import LAYOUTS, recognise_folder
from megavox.cohort.survey import survey
from megavox.core.errors import CohortError, GeometryError
from megavox.images.geometry import Geometry
from megavox.images.nifti import write_nifti
from megavox.images.prepare import Preparation
from megavox.store.pack import pack_case, source_fingerprint
from megavox.study.cohort import Luna16Cohort
from megavox.study.sections import DetectTask

HEAD = "seriesuid,coordX,coordY,coordZ,diameter_mm\n"
GRID = Geometry((8, 9, 10), (1.0, 1.0, 2.0), (-100.0, -50.0, -200.0))
TASK = DetectTask(kind="detect")
VOXELS = np.arange(720, dtype=np.int16).reshape(10, 9, 8)


def image(path: Path) -> Path:
    """The volume of `GRID` as MetaImage or NIfTI, or as a folder of DICOM slices."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.name.endswith(".nii.gz"):
        write_nifti(path, VOXELS[None], GRID)
        return path
    volume = sitk.GetImageFromArray(VOXELS)
    volume.SetSpacing(GRID.spacing)
    volume.SetOrigin(GRID.origin)
    if path.suffix == ".mhd":
        sitk.WriteImage(volume, str(path))
        return path
    path.mkdir()
    for z in range(10):
        place = path / f"{z}.dcm"
        sitk.WriteImage(volume[:, :, z], str(place))
        slice_ = pydicom.dcmread(place)
        slice_.PatientID, slice_.SeriesInstanceUID, slice_.Modality = "P1", "1.2.3", "CT"
        slice_.ImagePositionPatient, slice_.ImageOrientationPatient = [-100, -50, -200 + 2 * z], [1, 0, 0, 0, 1, 0]
        slice_.save_as(place)
    return path


def tables(folder: Path, rows: str = "", excluded: str | None = "") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "annotations.csv").write_text(HEAD + rows)
    if excluded is not None:
        (folder / "annotations_excluded.csv").write_text(HEAD + excluded)
    return folder


def catalogued(folder: Path, **keys: Any) -> Catalogue:
    section = Luna16Cohort(layout="luna16", folder=folder, **keys)
    return LAYOUTS["luna16"].catalogue(section, TASK).checked()


def test_findings_go_to_the_image_of_their_name_whatever_its_format(tmp_path: Path) -> None:
    tables(tmp_path, "1.5.a,-97.5,-45,-190,6.25\n1.5.b,-97,-44,-188,4\n1.5.a,-96,-44,-186,30\n1.5.c,-96,-44,-186,3\n",
           "1.5.a,-95,-43,-184,-1\n1.5.d,-95,-43,-184,2.5\n")
    for path in ("subset0/1.5.a.mhd", "subset9/deep/1.5.b.nii.gz", "subset1/1.5.c", "1.5.d.nii.gz", "1.5.e.mhd"):
        image(tmp_path / path)
    found = catalogued(tmp_path)
    assert not found.rejected and not found.remarks
    cases = {case.name: case for case in found.cases}
    assert {name: case.findings for name, case in cases.items()} == {
        "1.5.a": (Finding((-97.5, -45.0, -190.0), 6.25), Finding((-96.0, -44.0, -186.0), 30.0),
                  Finding((-95.0, -43.0, -184.0), -1.0, counts=False)),
        "1.5.b": (Finding((-97.0, -44.0, -188.0), 4.0),), "1.5.c": (Finding((-96.0, -44.0, -186.0), 3.0),),
        "1.5.d": (Finding((-95.0, -43.0, -184.0), 2.5, counts=False),), "1.5.e": ()}
    assert {name: case.subject for name, case in cases.items()} == {
        "1.5.a": "1.5.a", "1.5.b": "1.5.b", "1.5.c": "P1", "1.5.d": "1.5.d", "1.5.e": "1.5.e"}
    assert len(cases["1.5.c"].images[0]) == 10
    looked = survey(found, Luna16Cohort(layout="luna16", folder=tmp_path), TASK).fingerprint
    assert looked.n_read == 5 and (looked.classes["nodule"].cases, looked.classes["nodule"].of) == (3, 5)


@pytest.mark.parametrize(("row", "words"), [
    ("a,1,x,3,4", "coordY is 'x'"), ("a,1,2,nan,4", "coordZ is 'nan'"), ("a,inf,2,3,4", "coordX is 'inf'"),
    ("a,1,2,3,", "diameter_mm is ''"), ("a,1,2", "coordZ is ''"), ("a,1,2,3,0", "diameter_mm is 0")])
@pytest.mark.parametrize("name", ["annotations.csv", "annotations_excluded.csv"])
def test_a_row_that_is_no_numbers_sets_its_case_aside(tmp_path: Path, row: str, words: str, name: str) -> None:
    tables(tmp_path, "b,-97,-44,-188,4\n")
    (tmp_path / name).write_text(f"{HEAD}b,-97,-44,-188,4\n\n{row}\n")
    for series in "ab":
        image(tmp_path / f"{series}.mhd")
    found = catalogued(tmp_path)
    assert [case.name for case in found.cases] == ["b"]
    (rejected,) = found.rejected
    assert rejected.case == "a" and rejected.file.endswith("a.mhd")
    assert words in rejected.message and f"{name}, line 4" in rejected.message


def test_some_subsets_only_and_no_excluded_table_are_remarked_on(tmp_path: Path) -> None:
    tables(tmp_path, "a,-97,-44,-188,4\nb,1,2,3,4\nb,1,2,3,5\nc,1,2,3,4\n", excluded=None)
    image(tmp_path / "subset0/a.mhd")
    found = catalogued(tmp_path)
    assert [case.name for case in found.cases] == ["a"] and not found.rejected
    remarks = " ".join(found.remarks)
    assert "3 rows of annotations.csv name 2 series whose images are not there" in remarks
    assert "no annotations_excluded.csv" in remarks
    assert not any("excluded" in remark for remark in catalogued(tmp_path, excluded=None).remarks)


def test_lung_masks_are_no_images_and_twins_are_set_aside(tmp_path: Path) -> None:
    tables(tmp_path, "a,-97,-44,-188,4\n")
    for path in ("subset0/a.mhd", "seg-lungs-LUNA16/a.mhd", "subset0/b.mhd", "subset1/b.nii.gz", "subset0/b.nii.gz"):
        image(tmp_path / path)
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((3, 4), np.uint8)), str(tmp_path / "figure.png"))
    found = catalogued(tmp_path)
    assert [case.name for case in found.cases] == ["a"]
    assert [(one.case, one.reason) for one in found.rejected] == [("b", "duplicate")]
    remarks = " ".join(found.remarks)
    assert "1 lung masks are left out" in remarks and "figure.png" in remarks


def test_subjects_by_a_pattern(tmp_path: Path) -> None:
    tables(tmp_path)
    for name in ("p1_a", "p1_b", "p2_a", "odd"):
        image(tmp_path / f"{name}.mhd")
    found = catalogued(tmp_path, subject_pattern=r"^(p\d)_")
    assert [case.subject for case in found.cases] == ["p1", "p1", "p2"]
    assert [(one.case, one.reason) for one in found.rejected] == [("odd", "missing subject")]


def test_nothing_to_work_on_is_an_error(tmp_path: Path) -> None:
    tables(tmp_path, "a,1,2,3,4\n")
    with pytest.raises(CohortError, match="no volume"):
        catalogued(tmp_path)
    image(tmp_path / "scan1.mhd")
    with pytest.raises(CohortError, match=r"names none of the 1 images.*a\.mhd.*scan1"):
        catalogued(tmp_path)
    (tmp_path / "annotations.csv").write_text("seriesuid,coordX,coordY,coordZ\na,1,2,3\n")
    for attempt in (catalogued, recognise_folder):
        with pytest.raises(CohortError, match=r"cohort\.annotations: there is no column 'diameter_mm'"):
            attempt(tmp_path)
    (tmp_path / "annotations.csv").write_text("")
    with pytest.raises(CohortError, match="there is no column 'seriesuid'"):
        recognise_folder(tmp_path)
    (tmp_path / "annotations.csv").write_text("file,label\n")
    with pytest.raises(CohortError, match="no known layout"):
        recognise_folder(tmp_path)


def test_a_missing_excluded_table_is_written_out_by_the_guess(tmp_path: Path) -> None:
    tables(tmp_path, excluded=None)
    image(tmp_path / "a.mhd")
    name, guess = recognise_folder(tmp_path)
    assert name == "luna16" and guess.cohort["excluded"] is None and guess.task == {"kind": "detect"}


def test_a_finding_in_ras_coordinates_is_refused_when_its_image_is_packed(tmp_path: Path) -> None:
    files = ((image(tmp_path / "a.mhd"),),)
    marked = (Finding((-97.0, -45.0, -190.0), 5.0), Finding((97.0, 45.0, -190.0), 5.0))
    case = Case("a", "a", "", files, findings=marked)
    with pytest.raises(GeometryError, match=r"finding at \(97, 45, -190\) mm lies 208 mm outside.*RAS") as error:
        pack_case(tmp_path / "store", case, Preparation(spatial_dims=3, channels=1), TASK, 0)
    assert error.value.reason == "finding outside" and error.value.where == "a"


def test_a_changed_finding_or_changed_voxels_are_another_case(tmp_path: Path) -> None:
    files = ((image(tmp_path / "a.mhd"),),)
    case = Case("a", "a", "", files, findings=())
    before = source_fingerprint(case)
    assert source_fingerprint(Case("a", "a", "", files, findings=(Finding((1.0, 2.0, 3.0), 4.0),))) != before
    (tmp_path / "a.raw").write_bytes(VOXELS.tobytes() + b"more")
    assert source_fingerprint(case) != before


def test_copies_with_other_findings_contradict_each_other() -> None:
    one, two = Finding((1.0, 2.0, 3.0), 4.0), Finding((2.0, 2.0, 3.0), 4.0)
    cases = [Case(name, name, "", ((Path(name),),), findings=found)
             for name, found in zip("abc", ((one, two), (two, one), (one,)), strict=True)]
    assert [one.case for one in duplicates(cases[:2], ["h"] * 2, [""] * 2)] == ["b"]
    assert [one.case for one in duplicates(cases, ["h"] * 3, [""] * 3)] == ["a", "b", "c"]

"""`megavox new`: which masks it reads for the classes, and what it says of a path that is no folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from megavox.cohort.layouts import samples
from megavox.core.errors import CohortError
from megavox.images.geometry import Geometry
from megavox.images.nifti import write_nifti
from megavox.images.raster import write_raster
from megavox.pipeline.new import Draft, new

CASES = 24
RARE = 6  # a case that an evenly spaced choice of ten passes over


def volume(path: Path, values: tuple[int, ...]) -> None:
    write_nifti(path, np.resize(np.array(values, np.uint8), (1, 4, 6, 8)), Geometry((8, 6, 4)))


def nnunet(folder: Path) -> Path:
    for number in range(CASES):
        volume(folder / f"imagesTr/case_{number:03d}_0000.nii.gz", tuple(range(number, number + 50)))
        volume(folder / f"labelsTr/case_{number:03d}.nii.gz", (0, 1, 4) if number == RARE else (0, 1))
    return folder


def bids(folder: Path) -> Path:
    for number in range(CASES):
        name = f"sub-{number:02d}"
        volume(folder / name / "anat" / f"{name}_T1w.nii.gz", tuple(range(number, number + 50)))
        volume(folder / "derivatives/labels" / name / "anat" / f"{name}_T1w_dseg.nii.gz",
               (0, 1, 2, 4) if number == RARE else (0, 1, 2))
    return folder


def comments(draft: Draft) -> str:
    lines = [line.strip().removeprefix("# ") for line in draft.text.splitlines() if line.strip().startswith("#")]
    return " ".join(lines)


def test_a_class_of_a_single_mask_is_found(tmp_path: Path) -> None:
    draft = new(nnunet(tmp_path))
    assert draft.study.task.classes == {"class 1": 1, "class 4": 4}  # type: ignore[union-attr]
    assert f"all {CASES} masks" in comments(draft)
    assert f"1 in {CASES}, 4 in 1" in comments(draft)
    assert not any("masks were read" in remark for remark in draft.catalogue.remarks)


def test_in_bids_too(tmp_path: Path) -> None:
    draft = new(bids(tmp_path))
    assert draft.study.task.classes == {"class 1": 1, "class 2": 2, "class 4": 4}  # type: ignore[union-attr]
    assert f"all {CASES} masks" in comments(draft)


@pytest.mark.parametrize("layout", [nnunet, bids])
def test_of_very_many_masks_a_stated_number_is_read(layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "MOST_MASKS", 10)
    draft = new(layout(tmp_path))
    assert "class 4" not in draft.study.task.names
    assert f"10 of {CASES} masks, evenly spread" in comments(draft)
    remark, = (remark for remark in draft.catalogue.remarks if "masks were read" in remark)
    assert f"only 10 of {CASES} masks were read" in remark and "task.classes" in remark


def test_masks_that_cannot_be_read_are_counted(tmp_path: Path) -> None:
    folder = nnunet(tmp_path)
    (folder / "labelsTr/case_002.nii.gz").write_bytes(b"")
    assert f"all {CASES} masks (1 could not be read)" in comments(new(folder))


def test_pictures_given_as_masks_are_refused(tmp_path: Path) -> None:
    for number in range(3):
        for place in ("imagesTr", "labelsTr"):
            values = np.arange(400, dtype=np.uint16).reshape(1, 20, 20) + number
            write_raster(tmp_path / place / f"x{number}.png", values)
    with pytest.raises(CohortError, match=r"401 different values.* at most 250"):
        new(tmp_path)


def test_a_missing_folder_is_said_as_such(tmp_path: Path) -> None:
    (tmp_path / "knees").mkdir()
    for path in (tmp_path / "kness", tmp_path / "kness" / "deeper" / "still"):
        with pytest.raises(CohortError) as caught:
            new(path)
        text = str(caught.value)
        assert "no such folder" in text and str(path) in text and "Did you mean 'knees'" in text
        assert "cohort.folder" not in text and "study file" not in text
    with pytest.raises(CohortError, match="Check the path"):
        new(tmp_path / "something else")


@pytest.mark.parametrize("name", ["scan.nii.gz", "dataset.json"])
def test_a_file_is_said_to_be_a_file(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(CohortError) as caught:
        new(tmp_path / name)
    text = str(caught.value)
    assert "this is a file" in text and f"the folder that holds it: {tmp_path}" in text
    assert "cohort.folder" not in text and "no such" not in text


def test_masks_among_images_to_classify_are_remarked_on(tmp_path: Path) -> None:
    for number in range(4):
        for place in ("t1", "t2"):
            for name in (f"case{number}.png", f"case{number}_seg-manual.png", f"segment{number}.png"):
                values = np.arange(400, dtype=np.uint16).reshape(1, 20, 20) + number
                write_raster(tmp_path / place / name, values)
    draft = new(tmp_path)
    [remark] = [text for text in draft.catalogue.remarks if "look like masks" in text]
    assert remark.startswith("8 of 24 files") and "_seg-manual.png" in remark

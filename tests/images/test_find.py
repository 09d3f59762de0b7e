"""Finding images: one name in two formats is two images, never two channels of one case."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from dicom_writer import file_of, save
from PIL import Image as Pillow

from megavox.images.find import find_images
from megavox.images.geometry import Geometry
from megavox.images.nifti import write_nifti


def picture(path: Path, value: int = 100) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Pillow.fromarray(np.full((6, 8), value, np.uint8)).save(path)
    return path


def named(folder: Path) -> dict[str, str]:
    images, unusable = find_images(folder)
    assert not unusable
    assert len({image.name.lower() for image in images}) == len(images)
    return {image.paths[0].name: image.name for image in images}


def test_one_name_in_two_formats_gets_the_endings(tmp_path: Path) -> None:
    for name in ("x.png", "x.jpg", "y.png"):
        picture(tmp_path / name)
    assert named(tmp_path) == {"x.jpg": "x-jpg", "x.png": "x-png", "y.png": "y"}


def test_a_compressed_twin_and_an_upper_case_ending(tmp_path: Path) -> None:
    for name in ("v.nii", "v.nii.gz"):
        write_nifti(tmp_path / name, np.zeros((1, 2, 3, 4), np.uint8), Geometry((4, 3, 2)))
    assert named(tmp_path) == {"v.nii": "v-nii", "v.nii.gz": "v-nii-gz"}
    picture(tmp_path / "P.png")
    picture(tmp_path / "p.PNG")  # another file on Linux, and one name on other systems
    assert {named(tmp_path)[name] for name in ("P.png", "p.PNG")} == {"P-png", "p-PNG-2"}


def test_a_name_that_is_taken_already_gets_a_number(tmp_path: Path) -> None:
    for name in ("x.png", "x.jpg", "x-png.png"):
        picture(tmp_path / name)
    assert named(tmp_path) == {"x-png.png": "x-png", "x.jpg": "x-jpg", "x.png": "x-png-2"}


def test_a_dicom_file_keeps_its_name_as_masks_go_by_it(tmp_path: Path) -> None:
    save(tmp_path / "x.dcm", file_of(np.zeros((4, 5), np.int16)))
    picture(tmp_path / "x.png")
    assert named(tmp_path) == {"x.dcm": "x", "x.png": "x-png"}


def test_one_name_in_two_folders_stays(tmp_path: Path) -> None:
    picture(tmp_path / "a/x.png")
    picture(tmp_path / "b/x.jpg")
    assert [image.name for image in find_images(tmp_path).images] == ["x", "x"]


def test_cases_to_predict_have_distinct_names_whatever_their_folders_are_called(tmp_path: Path) -> None:
    from megavox.inference.cohort import cases_in

    for name in ("a_b/x.png", "a/b/x.png", "a_b_x.png", "x.png", "C/y.png", "c/y.png", "a/z_0000.png", "a/z_0001.png"):
        picture(tmp_path / name)
    for channels in (1, 2):
        cases, rejected = cases_in(tmp_path, channels)
        names = {case.name.lower() for case in cases}
        assert not rejected and len(names) == len(cases) == (8 if channels == 1 else 7)
        assert {"a_b_x", "a_b_x-2", "a_b_x-3", "x", "c_y", "c_y-2"} < names


def test_they_are_predicted_as_two_cases(tmp_path: Path) -> None:
    from megavox.inference.cohort import cases_in

    for name in ("x.png", "x.jpg"):
        picture(tmp_path / name)
    for channels in (1, 2):
        cases, rejected = cases_in(tmp_path, channels)
        assert [(case.name, len(case.images)) for case in cases] == [("x-jpg", 1), ("x-png", 1)]
        assert not rejected

"""Real files of many scanners and programs, where they are at hand."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from megavox.core.errors import ImageError
from megavox.images import (
    check_image,
    check_mask_on_grid,
    describe_image,
    find_images,
    read_image,
    resample_to_grid,
    to_lps,
)


def by_itk(folder: Path) -> sitk.Image:
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return reader.Execute()


def test_every_file_of_the_dicom_suite(shared_data):
    """Where pydicom and its plugins decode the pixels we must; everything else is a typed error."""
    folder = shared_data / "dicom_suite"
    with (folder / "manifest.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    decoded = 0
    for row in rows:
        path = folder / row["file"]
        try:
            image = read_image(path)
        except ImageError as error:
            assert row["pixels"] != "ok", error
            assert error.reason and str(path) in str(error)
            continue
        decoded += 1
        described = describe_image(path)
        assert described.shape == image.array.shape and described.geometry == image.geometry, path
        assert described.dtype == image.array.dtype.name, path
    assert decoded >= 240


def test_search_of_the_dicom_suite(shared_data):
    images, unusable = find_images(shared_data / "dicom_suite")
    names = [f.name for f in images if f.kind == "dicom"]
    assert len(names) == len(set(names)) > 100 and len(unusable) > 80
    listed = [p for f in images for p in f.paths] + [p for p, _ in unusable]
    assert len(listed) == len(set(listed))
    mosaic = next(f for f in images if "mr_siemens_mosaic" in f.name)
    assert read_image(mosaic.paths).array.shape == (2, 5, 72, 72)


# nibabel warns when this part of it is first imported, in whichever test that is.
@pytest.mark.filterwarnings("ignore:The DICOM readers are highly experimental:UserWarning")
def test_a_mosaic_agrees_with_nibabel(shared_data):
    from nibabel.nicom.dicomwrappers import wrapper_from_file

    path = shared_data / "dicom_suite" / "mr_siemens_mosaic" / "epi_pe_ap-00001.dcm"
    image, theirs = read_image(path), wrapper_from_file(path)
    data = np.asarray(theirs.get_data())  # (column index, row index, slice) along its affine
    affine = theirs.affine
    ours = np.linalg.inv(image.geometry.affine())
    index = np.stack([g.ravel() for g in np.indices(data.shape)]).T
    at = np.c_[index, np.ones(len(index))] @ (ours @ affine).T
    x, y, z = np.rint(at[:, :3]).astype(int).T
    assert np.abs(at[:, :3] - np.rint(at[:, :3])).max() < 1e-3
    np.testing.assert_array_equal(image.array[0, z, y, x], data.ravel())


def test_nine_transfer_syntaxes_of_one_image_are_equal(shared_data):
    paths = sorted((shared_data / "dicom_suite" / "mr_same_image_9_transfer_syntaxes").glob("*.dcm"))
    first = read_image(paths[0]).array
    for path in paths[1:]:
        np.testing.assert_array_equal(read_image(path).array, first)


def test_eight_echoes_become_channels(shared_data):
    folder = shared_data / "knee_mese_t2" / "dicom"
    image = read_image(folder)
    assert image.array.shape == (8, 6, 256, 256) and image.array.dtype == np.int16
    assert image.channel_names[0] == "echo time 6.312 ms"
    means = image.array.reshape(8, -1).mean(axis=1)
    assert (np.diff(means[1:]) < 0).all()  # T2 decay; the first echo of a CPMG train may be lower
    (found,) = find_images(folder).images
    assert len(found.paths) == 48 and describe_image(found.paths).shape == image.array.shape


@pytest.mark.parametrize("name", ["ct_abdomen_totalseg/ct_dicom", "hippocampus_msd/dicom_crop_Study1",
                                  "dicom_suite/mr_t1_series_HFS"])
def test_series_agree_with_simpleitk(shared_data, name):
    image, itk = read_image(shared_data / name), by_itk(shared_data / name)
    np.testing.assert_array_equal(image.array[0], sitk.GetArrayFromImage(itk))
    np.testing.assert_allclose(image.geometry.origin, itk.GetOrigin(), atol=1e-4)
    np.testing.assert_allclose(image.geometry.spacing, itk.GetSpacing(), rtol=1e-6)
    np.testing.assert_allclose(image.geometry.direction, itk.GetDirection(), atol=1e-6)


def test_ct_mask_lies_on_its_dicom(shared_data):
    folder = shared_data / "ct_abdomen_totalseg"
    image, mask = to_lps(read_image(folder / "ct_dicom")), to_lps(read_image(folder / "example_seg_dicom.nii.gz"))
    check_image(image, folder)
    check_mask_on_grid(mask.geometry, image.geometry)


def test_spines_agree_with_simpleitk_and_turn_exactly(shared_data):
    codes = set()
    for path in sorted((shared_data / "spinal_cord_mri").rglob("*.nii.gz")):
        image, itk = read_image(path), sitk.ReadImage(str(path))
        np.testing.assert_array_equal(image.array[0], sitk.GetArrayFromImage(itk).astype(image.array.dtype))
        np.testing.assert_allclose(image.geometry.origin, itk.GetOrigin(), atol=1e-3)
        np.testing.assert_allclose(image.geometry.direction, itk.GetDirection(), atol=1e-4)
        turned = to_lps(image)
        assert turned.geometry.axis_codes() == "LPS"
        back = resample_to_grid(turned.array, turned.geometry, image.geometry, order=0)
        np.testing.assert_array_equal(back, image.array)
        linear = resample_to_grid(turned.array, turned.geometry, image.geometry, order=1)
        np.testing.assert_array_equal(linear, image.array.astype(np.float32))
        codes.add(image.geometry.axis_codes())
    assert len(codes) >= 3

"""DICOM series: geometry against SimpleITK, and every way in which a series can be odd."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from dicom_writer import enhanced, file_of, save, write_series
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import UltrasoundMultiFrameImageStorage, generate_uid
from scipy.spatial.transform import Rotation

from megavox.core.errors import GeometryError, ImageError, UnreadableImage, UnsupportedImage
from megavox.images import describe_image, find_images, read_image


def volume(z: int = 5, y: int = 6, x: int = 7, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-1000, 2000, (z, y, x)).astype(np.int16)


def by_itk(folder: Path) -> sitk.Image:
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return reader.Execute()


@settings(max_examples=25)
@given(st.tuples(*[st.floats(-1, 1)] * 4).filter(lambda q: np.linalg.norm(q) > 0.1),
       st.tuples(*[st.floats(-300, 300)] * 3), st.tuples(*[st.floats(0.3, 5)] * 3))
def test_any_orientation_agrees_with_simpleitk(quaternion, origin, spacing):
    direction = Rotation.from_quat(quaternion).as_matrix()
    spacing = tuple(float(f"{v:.4g}") for v in spacing)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = volume()
        write_series(folder, data, direction, origin, spacing)
        image, itk = read_image(folder), by_itk(folder)
        np.testing.assert_array_equal(image.array[0], sitk.GetArrayFromImage(itk))
        np.testing.assert_array_equal(image.array[0], data)
        np.testing.assert_allclose(image.geometry.origin, itk.GetOrigin(), atol=1e-6)
        np.testing.assert_allclose(image.geometry.spacing, itk.GetSpacing(), rtol=1e-6)
        np.testing.assert_allclose(image.geometry.direction, itk.GetDirection(), atol=1e-6)
        described = describe_image(folder)
        assert described.shape == image.array.shape and described.geometry == image.geometry


def test_slices_are_sorted_by_position_and_values_become_hu(tmp_path):
    data = np.arange(4 * 3 * 2, dtype=np.uint16).reshape(4, 3, 2)
    write_series(tmp_path, data, RescaleSlope="1", RescaleIntercept="-1024")
    image = read_image(tmp_path)
    assert image.array.dtype == np.int16 and image.meta["modality"] == "CT"
    np.testing.assert_array_equal(image.array[0], data.astype(int) - 1024)
    assert image.geometry.spacing == pytest.approx((0.5, 0.75, 2.0))


def test_fractional_slope_gives_float32(tmp_path):
    data = volume(3)
    write_series(tmp_path, data, RescaleSlope=["0.5", "0.25", "2"], RescaleIntercept="0")
    image = read_image(tmp_path)
    assert image.array.dtype == np.float32
    np.testing.assert_allclose(image.array[0], data * np.array([0.5, 0.25, 2])[:, None, None])


def test_a_missing_slice_is_named_with_its_gap(tmp_path):
    paths = write_series(tmp_path, volume(6))
    paths[2].unlink()
    with pytest.raises(GeometryError, match=r"gap of 4\.000 mm between the slices at 2\.000 and 6\.000") as e:
        read_image(tmp_path)
    assert e.value.reason == "missing slices"
    with pytest.raises(GeometryError):
        describe_image(tmp_path)


@pytest.mark.parametrize(("shift", "fits"), [(0.015, True), (0.3, False)])
def test_uneven_gaps_within_one_percent_are_accepted(tmp_path, shift, fits):
    positions = [[0, 0, 2.0 * k + (shift if k == 2 else 0)] for k in range(5)]
    write_series(tmp_path, volume(5), ImagePositionPatient=positions)
    if fits:
        assert read_image(tmp_path).geometry.spacing[2] == pytest.approx(2.0)
    else:
        with pytest.raises(GeometryError) as e:
            read_image(tmp_path)
        assert e.value.reason == "uneven slices"


@pytest.mark.parametrize(("degrees", "fits"), [(0.3, True), (0.7, False), (15.0, False)])
def test_gantry_tilt_is_refused(tmp_path, degrees, fits):
    step = np.array([0, np.tan(np.radians(degrees)), 1.0]) * 2
    write_series(tmp_path, volume(5), step=step)
    if fits:
        assert read_image(tmp_path).geometry.direction == pytest.approx(np.eye(3).ravel())
    else:
        with pytest.raises(GeometryError, match=rf"{degrees:.2f} degrees") as e:
            read_image(tmp_path)
        assert e.value.reason == "gantry tilt" and "dcm2niix" in str(e.value)


def echoes(folder: Path, times=(30.0, 10.0, 20.0)) -> dict[float, np.ndarray]:
    data = {t: volume(4, seed=int(t)) for t in times}
    for t, values in data.items():
        write_series(folder, values, prefix=f"e{int(99 - t)}-", EchoTime=str(t), Modality="MR")
    return data


def test_echoes_become_channels_ordered_by_echo_time(tmp_path):
    data = echoes(tmp_path)
    image = read_image(tmp_path)
    assert image.channel_names == ["echo time 10 ms", "echo time 20 ms", "echo time 30 ms"]
    np.testing.assert_array_equal(image.array, np.stack([data[t] for t in (10.0, 20.0, 30.0)]))


def test_an_incomplete_echo_is_named(tmp_path):
    echoes(tmp_path)
    next(iter(sorted(tmp_path.glob("e79-003.dcm")))).unlink()  # echo time 20, first slice
    with pytest.raises(GeometryError, match=r"0\.00 mm lacks echo time 20 ms") as e:
        read_image(tmp_path)
    assert e.value.reason == "incomplete echoes"


def test_trigger_times_that_vary_by_slice_are_ranked(tmp_path):
    early, late = volume(3, seed=1), volume(3, seed=2)
    write_series(tmp_path, late, prefix="a", TriggerTime=["501", "507", "503"])
    write_series(tmp_path, early, prefix="b", TriggerTime=["11", "17", "13"])
    image = read_image(tmp_path)
    np.testing.assert_array_equal(image.array, np.stack([early, late]))
    assert "trigger time" in image.meta["notes"]


def test_b_values_and_echoes_form_a_grid(tmp_path):
    data = {}
    for k, (b, t) in enumerate([(1000, 5), (0, 9), (0, 5), (1000, 9)]):
        data[t, b] = volume(2, seed=k)
        write_series(tmp_path, data[t, b], prefix=f"p{k}", EchoTime=str(t), DiffusionBValue=float(b))
    image = read_image(tmp_path)
    np.testing.assert_array_equal(image.array, np.stack([data[k] for k in sorted(data)]))
    assert image.channel_names[1] == "echo time 5 ms b-value 1000 s/mm2"


def test_copies_are_dropped_and_noted(tmp_path):
    data = volume(4)
    paths = write_series(tmp_path, data)
    (tmp_path / "copy.dcm").write_bytes(paths[1].read_bytes())
    assert "1 frames with a repeated SOPInstanceUID" in read_image(tmp_path).meta["notes"]
    write_series(tmp_path, data, prefix="again")  # equal pixels under new UIDs
    image = read_image(tmp_path)
    np.testing.assert_array_equal(image.array, data[None])
    assert "equal pixels" in image.meta["notes"]


def test_empty_slices_of_two_time_points_are_no_copies(tmp_path):
    data = [volume(3, seed=1), volume(3, seed=2)]
    for k, values in enumerate(data):
        values[0] = 0
        write_series(tmp_path, values, prefix=f"t{k}", InstanceNumber=[3 * k + z for z in range(3)])
    np.testing.assert_array_equal(read_image(tmp_path).array, np.stack(data))


def test_different_pictures_at_one_position_without_a_reason_are_refused(tmp_path):
    write_series(tmp_path, volume(4))
    write_series(tmp_path, volume(1, seed=5), prefix="odd")
    with pytest.raises(GeometryError, match="has 1 of 2 images"):
        read_image(tmp_path)


def test_mixed_series_orientations_and_sizes_are_refused(tmp_path):
    write_series(tmp_path / "a", volume(2))
    write_series(tmp_path / "a", volume(2), np.eye(3)[:, [1, 2, 0]], prefix="sagittal")
    with pytest.raises(GeometryError, match="different orientation"):
        read_image(tmp_path / "a")
    write_series(tmp_path / "b", volume(2))
    write_series(tmp_path / "b", volume(2, 4), prefix="small")
    with pytest.raises(GeometryError, match="mixes pictures"):
        read_image(tmp_path / "b")
    write_series(tmp_path / "c", volume(2))
    write_series(tmp_path / "c", volume(2), prefix="o", SeriesInstanceUID="1.2.3")
    with pytest.raises(GeometryError, match="belong to 2 series"):
        read_image(tmp_path / "c")
    assert [len(f.paths) for f in find_images(tmp_path / "a").images] == [2, 2]
    assert [len(f.paths) for f in find_images(tmp_path / "c").images] == [2, 2]


def test_enhanced_multi_frame_with_two_echoes(tmp_path):
    data = volume(6)
    at = [(10.0, 20.0, 8.0 - 4 * (k // 2)) for k in range(6)]  # stored from the head downwards
    path = save(tmp_path / "e.dcm", enhanced(data, at, [20.0, 10.0] * 3))
    image = read_image(path)
    assert image.array.shape == (2, 3, 6, 7) and image.geometry.spacing == (1.0, 2.0, 4.0)
    assert image.geometry.origin == (10.0, 20.0, 0.0)
    np.testing.assert_array_equal(image.array[0], data[[5, 3, 1]])
    np.testing.assert_array_equal(image.array[1], data[[4, 2, 0]])
    assert describe_image(path).channels == ("echo time 10 ms", "echo time 20 ms")


def test_a_cine_without_positions_is_an_uncalibrated_stack(tmp_path):
    data = volume(3).astype(np.uint16)
    path = save(tmp_path / "us", file_of(data, SOPClassUID=UltrasoundMultiFrameImageStorage, Modality="US",
                                         NumberOfFrames=3))
    image = read_image(path)
    np.testing.assert_array_equal(image.array[0], data)
    assert not image.geometry.calibrated and "without positions" in image.meta["notes"]


def test_single_files_are_2d(tmp_path):
    pixels = volume(1)[0]
    plain = save(tmp_path / "plain.dcm", file_of(pixels))
    image = read_image(plain)
    assert image.spatial_dims == 2 and not image.geometry.calibrated
    (placed,) = write_series(tmp_path / "one", pixels[None], origin=(1.0, 2.0, 3.0))
    image = read_image(placed)
    assert image.spatial_dims == 2 and image.geometry.origin == (1.0, 2.0, 3.0)
    assert image.geometry.spacing == (0.5, 0.75, 2.0)


def test_monochrome1_is_inverted_except_for_quantities(tmp_path):
    pixels = np.arange(12, dtype=np.uint16).reshape(3, 4)
    of = {"PhotometricInterpretation": "MONOCHROME1", "BitsStored": 12, "HighBit": 11}
    film = save(tmp_path / "cr.dcm", file_of(pixels, Modality="CR", **of))
    np.testing.assert_array_equal(read_image(film).array[0], 4095 - pixels)
    pet = save(tmp_path / "pt.dcm", file_of(pixels, Modality="PT", **of))
    np.testing.assert_array_equal(read_image(pet).array[0], pixels)


def test_colour_and_palette(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (4, 5, 3)).astype(np.uint8)
    image = read_image(save(tmp_path / "rgb.dcm", file_of(pixels, Modality="US")))
    np.testing.assert_array_equal(image.array, np.moveaxis(pixels, -1, 0))
    assert image.channel_names == ["red", "green", "blue"]
    table = np.arange(256, dtype=np.uint8)
    index = pixels[..., 0].copy()
    named = {f"{c}PaletteColorLookupTableDescriptor": [256, 0, 8] for c in ("Red", "Green", "Blue")}
    data = {"RedPaletteColorLookupTableData": table.tobytes(),
            "GreenPaletteColorLookupTableData": table[::-1].tobytes(),
            "BluePaletteColorLookupTableData": bytes(256)}
    path = save(tmp_path / "p.dcm", file_of(index, PhotometricInterpretation="PALETTE COLOR", **named, **data))
    np.testing.assert_array_equal(read_image(path).array, np.stack([index, 255 - index, index * 0]))


def test_absurd_sizes_and_truncation_are_refused_before_decoding(tmp_path):
    huge = save(tmp_path / "huge.dcm", file_of(volume(1)[0], Rows=65535, Columns=65535, NumberOfFrames=99))
    with pytest.raises(UnsupportedImage) as e:
        read_image(huge)
    assert e.value.reason == "too large"
    short = save(tmp_path / "short.dcm", file_of(volume(1)[0], Rows=60))
    with pytest.raises(UnreadableImage):
        describe_image(short)


def test_a_report_is_named(tmp_path):
    dataset = file_of(volume(1)[0], SOPClassUID="1.2.840.10008.5.1.4.1.1.88.11", Rows=None, Columns=None)
    with pytest.raises(UnsupportedImage, match="Basic Text SR"):
        read_image(save(tmp_path / "sr.dcm", dataset))


def test_find_sorts_a_messy_folder(tmp_path):
    study = tmp_path / "Jane Doe" / "t1 run"
    write_series(study, volume(3))
    write_series(study, volume(3, seed=2), prefix="x", SeriesInstanceUID="1.2.4", SeriesNumber=5)
    save(study / "IM0001", file_of(volume(1)[0], SeriesInstanceUID="1.2.5", SOPInstanceUID=generate_uid()))
    write_series(tmp_path / "DOE", volume(2), SeriesInstanceUID="1.2.6")
    for name in ("notes.txt", ".hidden.dcm", "DICOMDIR", "labels.csv"):
        (tmp_path / name).write_text("x")
    (tmp_path / "scan.nii.gz").write_text("not nifti " * 60)
    (tmp_path / "odd.xyz").write_text("?")
    (tmp_path / "broken.dcm").write_bytes(b"")
    images, unusable = find_images(tmp_path)
    assert sorted((f.name, len(f.paths)) for f in images) == [
        ("IM0001", 1), ("series_s4", 2), ("t1-run_s4", 3), ("t1-run_s5", 3)]
    assert {f.subject for f in images} == {"P1"} and {f.session for f in images} == {"20200102"}
    assert {p.name: e.reason for p, e in unusable} == {
        "scan.nii.gz": "not nifti", "odd.xyz": "unknown format", "broken.dcm": "empty file"}
    assert all(isinstance(e, ImageError) for _, e in unusable)

"""MetaImage files against SimpleITK, and headers that must be refused."""

from __future__ import annotations

import tempfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from megavox.core.errors import GeometryError, ImageError, UnreadableImage, UnsupportedImage
from megavox.images import describe_image, find_images, read_image
from megavox.images.formats import all_files

rng = np.random.default_rng(5)
VALUES = np.arange(60, dtype="<i2").reshape(3, 5, 4)
KEYS = {"ObjectType": "Image", "NDims": "3", "BinaryData": "True", "BinaryDataByteOrderMSB": "False",
        "CompressedData": "False", "TransformMatrix": "1 0 0 0 1 0 0 0 1", "Offset": "0 0 0", "ElementSpacing": "1 1 2",
        "DimSize": "4 5 3", "ElementType": "MET_SHORT"}


def header(path: Path, data: bytes | None = VALUES.tobytes(), **keys: str | None) -> Path:
    """A header of `KEYS` with changes (None: left out), and its voxels where `ElementDataFile` says."""
    last = {"ElementDataFile": keys.pop("ElementDataFile", "v.raw")}
    said = {key: value for key, value in {**KEYS, **keys, **last}.items() if value is not None}
    text = "".join(f"{key} = {value}\n" for key, value in said.items()).encode()
    local = said["ElementDataFile"] == "LOCAL"
    path.write_bytes(text + (data or b"") if local else text)
    if data is not None and not local:
        (path.parent / said["ElementDataFile"]).write_bytes(data)
    return path


@settings(max_examples=25)
@given(st.tuples(*[st.floats(-3, 3)] * 3), st.tuples(*[st.floats(0.05, 9)] * 3), st.tuples(*[st.floats(-999, 999)] * 3),
       st.permutations(range(3)))
def test_any_grid_is_where_itk_has_it(turn, spacing, origin, order):
    rotation = Rotation.from_rotvec(turn).as_matrix()[:, list(order)]  # left-handed for odd permutations
    written = sitk.GetImageFromArray(VALUES)
    written.SetDirection(rotation.ravel().tolist())
    written.SetSpacing(spacing)
    written.SetOrigin(origin)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "v.mhd"
        sitk.WriteImage(written, str(path))
        image, itk = read_image(path), sitk.ReadImage(str(path))
    for index in ((0, 0, 0), (3, 0, 0), (0, 4, 0), (0, 0, 2), (3, 4, 2)):
        ours = (image.geometry.affine() @ [*index, 1])[:3]
        np.testing.assert_allclose(ours, itk.TransformIndexToPhysicalPoint(index), atol=1e-5)


@pytest.mark.parametrize("suffix", [".mhd", ".mha"])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"])
def test_every_type_as_itk_writes_it(tmp_path, dtype, packed, suffix):
    array = rng.integers(0, 120, (3, 5, 4)).astype(dtype)
    sitk.WriteImage(sitk.GetImageFromArray(array), str(tmp_path / f"v{suffix}"), useCompression=packed)
    image = read_image(tmp_path / f"v{suffix}")
    np.testing.assert_array_equal(image.array[0], array)
    kept = np.dtype("float32") if dtype == "f8" else np.dtype(dtype)
    assert image.array.dtype == kept and describe_image(tmp_path / f"v{suffix}").dtype == kept.name
    assert ("exact" in image.meta.get("notes", "")) == (dtype == "f8")


@pytest.mark.parametrize(("kind", "dtype"), [("SHORT", "i2"), ("USHORT", "u2"), ("LONG", "i4"), ("FLOAT", "f4"),
                                             ("DOUBLE", "f8")])
@pytest.mark.parametrize("packed", [False, True])
def test_big_endian(tmp_path, kind, dtype, packed):
    array = rng.integers(0, 999, (3, 5, 4)).astype(">" + dtype)
    data = zlib.compress(array.tobytes()) if packed else array.tobytes()
    path = header(tmp_path / "v.mhd", data, ElementType=f"MET_{kind}", BinaryDataByteOrderMSB="True",
                  CompressedData=str(packed), CompressedDataSize=str(len(data)))
    np.testing.assert_array_equal(read_image(path).array[0], array)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(path))), array)


def test_planes_channels_and_headers_of_data(tmp_path):
    plane = sitk.GetImageFromArray(VALUES[0])
    plane.SetDirection([0.6, -0.8, 0.8, 0.6])
    plane.SetSpacing([0.5, 0.25])
    sitk.WriteImage(plane, str(tmp_path / "plane.mha"))
    image = read_image(tmp_path / "plane.mha")
    np.testing.assert_array_equal(image.array[0], VALUES[0])
    assert image.geometry.spacing == pytest.approx((0.5, 0.25, 1.0))
    assert image.geometry.direction == pytest.approx((0.6, -0.8, 0, 0.8, 0.6, 0, 0, 0, 1))
    for size, data in (("7", b"x" * 7 + VALUES.tobytes()), ("-1", b"any" + VALUES.tobytes())):
        path = header(tmp_path / "v.mhd", data, HeaderSize=size)
        np.testing.assert_array_equal(read_image(path).array[0], VALUES)
        np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(path))), VALUES)
    pairs = rng.integers(0, 9, (3, 5, 4, 2)).astype(np.uint8)
    path = header(tmp_path / "p.mha", pairs.tobytes(), ElementNumberOfChannels="2", ElementType="MET_UCHAR",
                  ElementDataFile="LOCAL", Modality="MET_MOD_CT")
    np.testing.assert_array_equal(read_image(path).array, np.moveaxis(pairs, -1, 0))
    assert describe_image(path).modality == "CT" and read_image(path).meta["modality"] == "CT"


def test_defaults_and_windows_lines(tmp_path):
    path = header(tmp_path / "v.mhd", TransformMatrix=None, ElementSpacing=None, Offset=None)
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    geometry = read_image(path).geometry
    assert geometry.axis_codes() == "LPS" and geometry.origin == (0, 0, 0) and not geometry.calibrated


@pytest.mark.parametrize("target", ["/etc/passwd", "../v.raw", "in/../../v.raw", "..\\v.raw", "C:\\v.raw",
                                    "\\\\host\\v.raw", "C:v.raw", ""])
def test_voxels_outside_the_folder_are_refused_though_they_are_there(tmp_path, target):
    (tmp_path / "v.raw").write_bytes(VALUES.tobytes())
    (tmp_path / "h/in").mkdir(parents=True)
    path = header(tmp_path / "h/v.mhd", None, ElementDataFile=target)
    for reader in (read_image, describe_image):
        with pytest.raises(UnreadableImage) as error:
            reader(path)
        assert error.value.reason == "leads out of the folder" and str(path) in str(error.value)
    assert all_files([path]) == [path]


def test_voxels_in_a_folder_below(tmp_path):
    (tmp_path / "raw").mkdir()
    path = header(tmp_path / "v.mhd", ElementDataFile="raw/v.raw")
    np.testing.assert_array_equal(read_image(path).array[0], VALUES)
    assert all_files([path, tmp_path / "x.nii"]) == [path, tmp_path / "raw/v.raw", tmp_path / "x.nii"]


PACKED = zlib.compress(VALUES.tobytes())


@pytest.mark.parametrize(("keys", "data", "reason"), [
    ({}, None, "missing voxels"), ({}, VALUES.tobytes()[:-1], "truncated"),
    ({"CompressedData": "True"}, PACKED[:-1], "truncated"), ({"CompressedData": "True"}, PACKED[:20], "truncated"),
    ({"CompressedData": "True"}, PACKED[:-1] + b"x", "unreadable"), ({"CompressedData": "True"}, b"", "truncated"),
    ({"CompressedData": "True"}, zlib.compress(bytes(10**7)), "wrong size"),
    ({"CompressedData": "True"}, zlib.compress(VALUES.tobytes()[:-2]), "truncated"),
    ({"ElementDataFile": "x" * 5000}, None, "unreadable"),
    ({"ElementDataFile": "LIST"}, None, "unsupported"), ({"ElementDataFile": "LIST 2D"}, None, "unsupported"),
    ({"ElementDataFile": "s%03d.raw 1 3 1"}, None, "unsupported"), ({"NDims": "4"}, b"", "unsupported"),
    ({"BinaryData": "False"}, b"1 2 3", "unsupported"), ({"ElementType": "MET_STRING"}, b"", "unsupported"),
    ({"DimSize": "4 5 0"}, b"", "empty"), ({"DimSize": "4 5"}, b"", "unreadable"),
    ({"DimSize": None}, b"", "unreadable"), ({"DimSize": "90000 90000 90000"}, b"", "too large"),
    ({"NDims": "x"}, b"", "unreadable"),
    ({"ElementSpacing": "1 1 0"}, b"", "affine"), ({"ElementSpacing": "1 1 nan"}, b"", "affine"),
    ({"Offset": "0 inf 0"}, b"", "affine"), ({"TransformMatrix": "1 0 0 0.1 1 0 0 0 1"}, b"", "shear"),
    ({"TransformMatrix": "1 0 0 1"}, b"", "unreadable")])
def test_what_cannot_be_read_says_why(tmp_path, keys, data, reason):
    path = header(tmp_path / "v.mhd", data, **keys)
    with pytest.raises(ImageError) as error:
        read_image(path)
    assert error.value.reason == reason and str(path) in str(error.value)
    assert isinstance(error.value, GeometryError) == (reason in ("affine", "shear"))
    assert isinstance(error.value, UnsupportedImage) == (reason in ("unsupported", "too large"))
    if "CompressedData" not in keys:
        with pytest.raises(ImageError) as same:
            describe_image(path)
        assert same.value.reason == reason


def test_a_search_takes_the_voxels_for_no_image_and_tells_of_strays(tmp_path):
    header(tmp_path / "v.mhd")
    header(tmp_path / "w.mhd", ElementDataFile="w.zraw", CompressedData="True", data=PACKED)
    (tmp_path / "stray.raw").write_bytes(b"123")
    images, unusable = find_images(tmp_path)
    assert [(image.name, image.kind) for image in images] == [("v", "metaimage"), ("w", "metaimage")]
    assert [path.name for path, _ in unusable] == ["stray.raw"]

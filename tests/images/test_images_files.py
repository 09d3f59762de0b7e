"""What NIfTI, TIFF and picture files may hold besides the plain case."""

from __future__ import annotations

import gzip
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
import tifffile
from PIL import Image as Pillow

from megavox.core.errors import GeometryError, ImageError, UnsupportedImage
from megavox.images import Geometry, describe_image, read_image, write_nifti

rng = np.random.default_rng(3)


def save_nifti(path: Path, data: np.ndarray, affine: np.ndarray | None = None, **fields: float) -> Path:
    image = nibabel.Nifti1Image(data, np.eye(4) if affine is None else affine)
    for key, value in fields.items():
        image.header[key] = value
    nibabel.save(image, path)
    return path


def patch(path: Path, **fields: object) -> Path:
    """Set header fields in the bytes of a .nii file, past all of nibabel's checks."""
    data = bytearray(path.read_bytes())
    header = np.frombuffer(data, nibabel.Nifti1Header.template_dtype, count=1)
    for key, value in fields.items():
        header[key][0] = value
    path.write_bytes(bytes(data))
    return path


def test_import_is_light():
    code = ("import sys, megavox.images; "
            "print([m for m in ('torch','nibabel','pydicom','PIL','tifffile','scipy') if m in sys.modules])")
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                          check=True).stdout.strip() == "[]"


@pytest.mark.parametrize(("shape", "out"), [
    ((4, 5), (1, 5, 4)), ((4, 5, 6), (1, 6, 5, 4)), ((4, 5, 6, 3), (3, 6, 5, 4)),
    ((4, 5, 6, 1, 1), (1, 6, 5, 4)), ((4, 5, 6, 1, 3), (3, 6, 5, 4)), ((4, 5, 1), (1, 5, 4)),
    ((4, 5, 1, 2), (2, 5, 4))])
def test_axes(tmp_path, shape, out):
    data = rng.integers(0, 99, shape).astype(np.int16)
    path = save_nifti(tmp_path / "a.nii.gz", data)
    image = read_image(path)
    assert image.array.shape == out == describe_image(path).shape
    np.testing.assert_array_equal(image.array.ravel(), data.T.ravel())


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", ">i2", ">f4", "float64", "int8"])
def test_types_are_kept(tmp_path, dtype):
    data = rng.integers(0, 99, (3, 4, 5)).astype(dtype)
    image = read_image(save_nifti(tmp_path / "a.nii", data))
    kept = np.dtype("float32") if dtype == "float64" else np.dtype(dtype).newbyteorder("=")
    assert image.array.dtype == kept and ("exact" in image.meta.get("notes", "")) == (dtype == "float64")
    np.testing.assert_array_equal(image.array[0], data.T)


@pytest.mark.parametrize(("slope", "inter", "dtype"), [
    (1, 0, "uint8"), (0, 5, "uint8"), (2, -1024, "int16"), (0.5, 0, "float32"), (1000, 0, "float32"),
    (np.nan, 0, "uint8")])
def test_scaling(tmp_path, slope, inter, dtype):
    data = rng.integers(0, 255, (3, 4, 5)).astype(np.uint8)
    path = patch(save_nifti(tmp_path / "a.nii", data), scl_slope=slope, scl_inter=inter)
    image = read_image(path)
    assert image.array.dtype == dtype
    theirs = np.asarray(nibabel.load(path).dataobj)
    np.testing.assert_allclose(image.array[0], theirs.T, rtol=1e-6)


def test_sform_before_qform_before_spacing(tmp_path):
    path = save_nifti(tmp_path / "a.nii", np.zeros((3, 4, 5), np.int16), np.diag([2.0, 2, 2, 1]))
    s = np.array([[3.0, 0, 0, 1], [0, 3, 0, 2], [0, 0, 3, 4]])
    patch(path, srow_x=s[0], srow_y=s[1], srow_z=s[2], sform_code=1, qform_code=1)
    geometry = read_image(path).geometry
    assert geometry.spacing == (3.0, 3.0, 3.0) and geometry.origin == (-1.0, -2.0, 4.0)
    assert geometry.axis_codes() == "RAS"
    assert read_image(patch(path, sform_code=0)).geometry.spacing == (2.0, 2.0, 2.0)
    image = read_image(patch(path, qform_code=0))
    assert image.geometry.axis_codes() == "LPS" and "unknown" in image.meta["notes"]


def test_micrometres_become_millimetres(tmp_path):
    path = save_nifti(tmp_path / "a.nii", np.zeros((3, 4, 5), np.int16), np.diag([500.0, 500, 500, 1]))
    assert read_image(patch(path, xyzt_units=3)).geometry.spacing == pytest.approx((0.5, 0.5, 0.5))


@pytest.mark.parametrize(("fields", "reason"), [
    ({"srow_x": [np.nan, 0, 0, 0]}, "affine"), ({"srow_x": [0, 0, 0, 0]}, "affine"),
    ({"srow_x": [0, 1, 0, 0]}, "affine"), ({"srow_x": [1, 0.2, 0, 0]}, "shear")])
def test_broken_affines(tmp_path, fields, reason):
    path = patch(save_nifti(tmp_path / "a.nii", np.zeros((3, 4, 5), np.int16)), sform_code=1, **fields)
    for reader in (read_image, describe_image):
        with pytest.raises(GeometryError) as error:
            reader(path)
        assert error.value.reason == reason


def test_absurd_and_empty_shapes(tmp_path):
    path = save_nifti(tmp_path / "a.nii", np.zeros((3, 4, 5), np.int16))
    with pytest.raises(UnsupportedImage) as error:
        read_image(patch(path, dim=[3, 30000, 30000, 30000, 1, 1, 1, 1]))
    assert error.value.reason == "too large"
    with pytest.raises(ImageError) as empty:
        read_image(patch(path, dim=[3, 3, 0, 5, 1, 1, 1, 1]))
    assert empty.value.reason == "empty"
    with pytest.raises(UnsupportedImage, match="complex"):
        read_image(save_nifti(tmp_path / "c.nii", np.zeros((3, 4, 5), np.complex64)))


def test_a_flipped_bit_in_gzip_is_found(tmp_path):
    path = tmp_path / "a.nii.gz"
    write_nifti(path, rng.normal(0, 1, (1, 8, 8, 8)).astype(np.float32), Geometry((8, 8, 8)))
    data = bytearray(path.read_bytes())
    data[-6] ^= 1  # the checksum
    path.write_bytes(bytes(data))
    with pytest.raises(ImageError):
        read_image(path)


def test_writing_is_repeatable_and_narrow(tmp_path):
    mask = rng.integers(0, 4, (5, 6, 7)).astype(np.int64)
    for name in ("a.nii.gz", "b.nii.gz"):
        write_nifti(tmp_path / name, mask, Geometry((7, 6, 5), (1.0, 2.0, 3.0)))
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()
    theirs = nibabel.load(tmp_path / "a.nii.gz")
    assert theirs.get_data_dtype() == np.uint8 and theirs.header.get_xyzt_units()[0] == "mm"
    assert int(theirs.header["sform_code"]) == int(theirs.header["qform_code"]) == 1
    np.testing.assert_allclose(theirs.get_qform(), theirs.get_sform(), atol=1e-6)
    np.testing.assert_array_equal(np.asarray(theirs.dataobj).T, mask)
    assert not [p for p in tmp_path.iterdir() if "unfinished" in p.name]


def test_colour_nifti(tmp_path):
    rgb = np.zeros((4, 5, 6), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    for k, c in enumerate("RGB"):
        rgb[c] = rng.integers(0, 255, (4, 5, 6)) // (k + 1)
    path = save_nifti(tmp_path / "a.nii.gz", rgb)
    image = read_image(path)
    np.testing.assert_array_equal(image.array, np.stack([rgb[c].T for c in "RGB"]))
    assert describe_image(path).shape == image.array.shape
    assert read_image(path, grey=True).array.shape == (1, 6, 5, 4)


@pytest.mark.parametrize(("mode", "channels"), [("1", 1), ("L", 1), ("LA", 1), ("P", 3), ("RGB", 3), ("RGBA", 3)])
def test_picture_modes(tmp_path, mode, channels):
    base = Pillow.fromarray(rng.integers(0, 255, (6, 8, 3)).astype(np.uint8)).convert(mode)
    base.save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert image.array.shape == (channels, 6, 8) == describe_image(tmp_path / "a.png").shape
    if mode == "1":
        np.testing.assert_array_equal(image.array[0], np.asarray(base))
        assert image.array.max() == 1
    elif channels == 3:
        np.testing.assert_array_equal(image.array, np.moveaxis(np.asarray(base.convert("RGB")), -1, 0))
    else:
        np.testing.assert_array_equal(image.array[0], np.asarray(base.getchannel(0)))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_tag_of_jpeg_and_tiff(tmp_path, orientation):
    from PIL import ImageOps

    pixels = np.kron(rng.integers(0, 2, (2, 3)), np.full((8, 8), 200)).astype(np.uint8)
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    Pillow.fromarray(pixels).save(tmp_path / "a.jpg", exif=exif, quality=95)
    with Pillow.open(tmp_path / "a.jpg") as opened:
        expected = np.asarray(ImageOps.exif_transpose(opened))
    np.testing.assert_array_equal(read_image(tmp_path / "a.jpg").array[0], expected)
    assert describe_image(tmp_path / "a.jpg").shape == (1, *expected.shape)
    tifffile.imwrite(tmp_path / "a.tif", pixels, extratags=[(274, 3, 1, orientation, True)],
                     resolution=(10, 20), resolutionunit="CENTIMETER")
    image = read_image(tmp_path / "a.tif")
    assert image.array[0].shape == expected.shape
    assert np.abs(image.array[0].astype(int) - expected).max() < 60  # JPEG loses a little
    assert image.geometry.spacing[:2] == ((0.5, 1.0) if orientation > 4 else (1.0, 0.5))


def test_a_decompression_bomb_is_refused(tmp_path):
    Pillow.new("1", (20000, 20000)).save(tmp_path / "bomb.png")
    for reader in (read_image, describe_image):
        with pytest.raises(UnsupportedImage) as error:
            reader(tmp_path / "bomb.png")
        assert error.value.reason == "too large"


def test_tiff_kinds(tmp_path):
    path = tmp_path / "a.tif"
    pixels = rng.integers(0, 255, (6, 8)).astype(np.uint8)
    tifffile.imwrite(path, pixels, photometric="miniswhite")
    np.testing.assert_array_equal(read_image(path).array[0], 255 - pixels)
    table = rng.integers(0, 65536, (3, 256)).astype(np.uint16)
    tifffile.imwrite(path, pixels, photometric="palette", colormap=table)
    np.testing.assert_array_equal(read_image(path).array, (table >> 8)[:, pixels])
    rgba = rng.integers(0, 255, (6, 8, 4)).astype(np.uint8)
    tifffile.imwrite(path, rgba, photometric="rgb", extrasamples=["unassalpha"], compression="zlib")
    np.testing.assert_array_equal(read_image(path).array, np.moveaxis(rgba[..., :3], -1, 0))
    stack = rng.integers(0, 255, (4, 6, 8, 3)).astype(np.uint8)
    tifffile.imwrite(path, stack, photometric="rgb")
    np.testing.assert_array_equal(read_image(path).array, np.moveaxis(stack, -1, 0))
    tifffile.imwrite(path, pixels > 100, photometric="minisblack")
    np.testing.assert_array_equal(read_image(path).array[0], pixels > 100)
    with tifffile.TiffWriter(path) as writer:
        writer.write(pixels, photometric="minisblack")
        writer.write(pixels[:4], photometric="minisblack")
    with pytest.raises(UnsupportedImage, match="2 images of unequal size"):
        read_image(path)


def test_text_in_gzip_is_not_nifti(tmp_path):
    path = tmp_path / "a.nii.gz"
    path.write_bytes(gzip.compress(b"hello " * 500))
    with pytest.raises(ImageError) as error:
        read_image(path)
    assert error.value.reason == "not nifti"

"""What every image format must do: give back what was written, and fail with `ImageError` only."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from PIL import Image as Pillow

from megavox.core.errors import ImageError
from megavox.images import (
    FORMATS,
    Geometry,
    describe_image,
    find_images,
    format_of,
    read_image,
    write_nifti,
    write_raster,
)

COS, SIN = np.cos(0.3), np.sin(0.3)
OBLIQUE = (COS, -SIN, 0.0, SIN, COS, 0.0, 0.0, 0.0, 1.0)
GRID = Geometry((9, 8, 5), (0.5, 0.75, 2.0), (-10.0, 20.5, 300.25), OBLIQUE)
FLAT = Geometry((9, 8, 1), (0.5, 0.75, 2.0), (-10.0, 20.5, 300.25), OBLIQUE)
PIXELS = Geometry((9, 8, 1), calibrated=False)
rng = np.random.default_rng(1)


def values(dtype: str, *shape: int) -> np.ndarray:
    return rng.integers(0, 250, shape).astype(dtype)


def nifti(path: Path, array: np.ndarray, grid: Geometry) -> None:
    write_nifti(path, array, grid)


def png(path: Path, array: np.ndarray, grid: Geometry) -> None:
    write_raster(path, array)


def pillow(path: Path, array: np.ndarray, grid: Geometry) -> None:
    Pillow.fromarray(np.moveaxis(array, 0, -1) if len(array) == 3 else array[0]).save(path)


def tiff(path: Path, array: np.ndarray, grid: Geometry) -> None:
    pixels = np.moveaxis(array, 0, -1)
    if grid.calibrated and grid.size[2] > 1:
        tifffile.imwrite(path, pixels[..., 0], imagej=True, resolution=(1 / 0.5, 1 / 0.75),
                         metadata={"axes": "ZYX", "spacing": 2.0, "unit": "mm"})
    else:
        tifffile.imwrite(path, pixels if array.shape[0] == 3 else pixels[..., 0], photometric=None,
                         resolution=(254, 127) if grid.calibrated else None,
                         resolutionunit="INCH" if grid.calibrated else None)


def metaimage(path: Path, array: np.ndarray, grid: Geometry) -> None:
    volume = np.moveaxis(array.reshape(len(array), *grid.shape), 0, -1)
    image = sitk.GetImageFromArray(volume[..., 0] if len(array) == 1 else volume, isVector=len(array) > 1)
    image.SetSpacing(grid.spacing)
    image.SetOrigin(grid.origin)
    image.SetDirection(grid.direction)
    sitk.WriteImage(image, str(path), useCompression="packed" in path.name)


def dicom(path: Path, array: np.ndarray, grid: Geometry) -> None:
    image = sitk.GetImageFromArray(array if grid.size[2] == 1 else array[0])
    image.SetSpacing(grid.spacing)
    image.SetOrigin(grid.origin)
    image.SetDirection(grid.direction)
    image.SetMetaData("0008|0060", "MR")
    sitk.WriteImage(image, str(path))


TIFF_FLAT = Geometry((9, 8, 1), (0.1, 0.2, 1.0))
TIFF_STACK = Geometry((9, 8, 5), (0.5, 0.75, 2.0))
CASES = [
    ("v.nii.gz", values("int16", 1, 5, 8, 9) - 100, GRID, nifti),
    ("v.nii", values("float32", 1, 5, 8, 9) / 7, GRID, nifti),
    ("four.nii.gz", values("uint8", 3, 5, 8, 9), GRID, nifti),
    ("flat.nii.gz", values("uint16", 2, 8, 9), FLAT, nifti),
    ("v.mhd", values("int16", 1, 5, 8, 9) - 100, GRID, metaimage),
    ("packed.mhd", values("float32", 1, 5, 8, 9) / 7, GRID, metaimage),
    ("v.mha", values("uint16", 3, 5, 8, 9), GRID, metaimage),
    ("packed-flat.mha", values("uint8", 2, 8, 9), FLAT, metaimage),
    ("grey.png", values("uint8", 1, 8, 9), PIXELS, png),
    ("deep.png", values("uint16", 1, 8, 9) * 250, PIXELS, png),
    ("rgb.png", values("uint8", 3, 8, 9), PIXELS, png),
    ("deep-rgb.png", values("uint16", 3, 8, 9) * 250, PIXELS, png),
    ("grey.bmp", values("uint8", 1, 8, 9), PIXELS, pillow),
    ("rgb.bmp", values("uint8", 3, 8, 9), PIXELS, pillow),
    ("grey.jpg", np.full((1, 8, 9), 77, np.uint8), PIXELS, pillow),
    ("rgb.jpeg", np.full((3, 8, 9), 77, np.uint8), PIXELS, pillow),
    ("flat.tif", values("uint16", 1, 8, 9) * 250, TIFF_FLAT, tiff),
    ("rgb.tiff", values("uint8", 3, 8, 9), PIXELS, tiff),
    ("stack.tif", values("uint16", 1, 5, 8, 9), TIFF_STACK, tiff),
    ("float.tif", values("float32", 1, 8, 9) / 3, PIXELS, tiff),
    ("slice.dcm", values("int16", 1, 8, 9) - 100, FLAT, dicom),
]
Write = Callable[[Path, np.ndarray, Geometry], None]
every_case = pytest.mark.parametrize(("name", "array", "grid", "write"), CASES, ids=[c[0] for c in CASES])


def test_every_format_has_a_case():
    assert {format_of(Path(name)).name for name, *_ in CASES} == {f.name for f in FORMATS}


@every_case
def test_round_trip(tmp_path: Path, name: str, array: np.ndarray, grid: Geometry, write: Write):
    path = tmp_path / name
    write(path, array, grid)
    image, described = read_image(path), describe_image(path)
    assert image.array.dtype == array.dtype and image.array.flags.c_contiguous
    np.testing.assert_array_equal(image.array, array)
    assert image.geometry.size == grid.size and image.geometry.calibrated == grid.calibrated
    assert image.geometry.distance_mm(grid) < 1e-4
    assert described.shape == array.shape and described.geometry == image.geometry
    assert described.dtype == array.dtype.name and described.kind == format_of(path).name
    (found,) = find_images(tmp_path).images
    assert found.paths == (path,) and found.name == name.split(".")[0]


@every_case
def test_truncated_files_fail_with_a_reason_or_lose_nothing(tmp_path: Path, name: str, array: np.ndarray,
                                                            grid: Geometry, write: Write):
    whole, cut = tmp_path / name, tmp_path / f"cut-{name}"
    write(whole, array, grid)
    data = whole.read_bytes()
    ends = {0, 1, 7, 100, 200, 347, *np.linspace(0, len(data) - 1, 24).astype(int).tolist()}
    failed = 0
    for end in sorted(e for e in ends if e < len(data)):
        cut.write_bytes(data[:end])
        try:
            image = read_image(cut)
        except ImageError as error:
            assert str(cut) in str(error) and error.reason
            failed += 1
        else:  # only a trailer was lost
            np.testing.assert_array_equal(image.array, array)
    assert failed > 15 or failed > len(ends) // 2


@every_case
def test_damaged_bytes_never_crash(tmp_path: Path, name: str, array: np.ndarray, grid: Geometry,
                                   write: Write):
    path = tmp_path / name
    write(path, array, grid)
    data = np.frombuffer(path.read_bytes(), np.uint8)
    for seed in range(25):
        draw = np.random.default_rng(seed)
        damaged = data.copy()
        damaged[draw.integers(0, len(data), 4)] = draw.integers(0, 256, 4)
        path.write_bytes(damaged.tobytes())
        for reader in (read_image, describe_image):
            try:
                reader(path)
            except ImageError as error:
                assert error.reason


@pytest.mark.parametrize("suffix", sorted(s for f in FORMATS for s in f.suffixes))
@pytest.mark.parametrize("content", [b"", b"x", b"this is a text, not an image\n" * 100, b"\0" * 5000,
                                     bytes(range(256)) * 20])
def test_wrong_content_under_a_right_suffix(tmp_path: Path, suffix: str, content: bytes):
    path = tmp_path / f"wrong{suffix}"
    path.write_bytes(content)
    for reader in (read_image, describe_image):
        with pytest.raises(ImageError) as error:
            reader(path)
        assert str(path) in str(error.value) and error.value.fix
    images, unusable = find_images(tmp_path)
    assert not images and [p for p, _ in unusable] == [path]


def test_missing_files_folders_and_unknown_formats(tmp_path: Path):
    for path in (tmp_path / "no.nii.gz", tmp_path / "no.png", tmp_path / "no", tmp_path):
        with pytest.raises(ImageError):
            read_image(path)
    (tmp_path / "a.nrrd").write_bytes(b"NRRD0004\n")
    with pytest.raises(ImageError, match="no known image format"):
        read_image(tmp_path / "a.nrrd")

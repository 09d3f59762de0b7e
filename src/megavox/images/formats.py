"""The image formats, and one way to read any of them.

A new format is one new module with the members of `Format`, and one line in `FORMATS`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from megavox.core.errors import UnreadableImage, UnsupportedImage
from megavox.images import dicom, metaimage, nifti, raster, tiff
from megavox.images.image import Description, Image


class Format(Protocol):
    """What a format module offers. `read` and `describe` raise `ImageError` and nothing else."""

    @property
    def name(self) -> str: ...
    @property
    def suffixes(self) -> tuple[str, ...]: ...
    def recognise(self, path: Path) -> bool: ...
    def read(self, path: Path) -> Image: ...
    def describe(self, path: Path) -> Description: ...


FORMATS: tuple[Format, ...] = (
    nifti,
    metaimage,
    raster,
    tiff,
    dicom,
)


def format_of(path: Path) -> Format | None:
    """The format by suffix, else by content; None if no format claims the file."""
    lower = path.name.lower()
    for candidate in FORMATS:
        if lower.endswith(candidate.suffixes):
            return candidate
    return next((candidate for candidate in FORMATS if candidate.recognise(path)), None)


def read_image(path: Path | Sequence[Path], grey: bool = False) -> Image:
    """Read a file, or the DICOM files of one series (a list, or a folder that holds nothing else).

    Args:
        grey: turn red, green and blue into one channel (`Image.to_grey`).

    Raises:
        ImageError: always one of its kinds, with the file and a `reason`.
    """
    files = _files(path)
    image = _format(files[0]).read(files[0]) if len(files) == 1 else dicom.read_series(files)
    return image.to_grey() if grey else image


def describe_image(path: Path | Sequence[Path]) -> Description:
    """Shape, grid, type, channels and modality from headers alone. Arguments and errors as `read_image`."""
    files = _files(path)
    return _format(files[0]).describe(files[0]) if len(files) == 1 else dicom.describe_series(files)


def all_files(paths: Sequence[Path]) -> list[Path]:
    """The files themselves, and those that they name as the place of their voxels (MetaImage)."""
    return [file for path in paths
            for file in (metaimage.files(path) if path.name.lower().endswith(metaimage.suffixes) else (path,))]


def _files(path: Path | Sequence[Path]) -> list[Path]:
    if not isinstance(path, Path):
        files = [Path(p) for p in path]
        where: object = "the list of files"
    elif path.is_dir():
        files = [p for p in sorted(path.iterdir())
                 if p.is_file() and not p.name.startswith(".") and dicom.recognise(p)]
        where = path
    else:
        return [path]
    if not files:
        raise UnreadableImage("no DICOM file in this folder", where=where, reason="empty folder",
                              expected="the files of one DICOM series", fix="Give a file instead")
    return files


def _format(path: Path) -> Format:
    found = format_of(path)
    if found is None:
        if not path.is_file():
            raise UnreadableImage("the file is not there", where=path, fix="Check the path")
        known = ", ".join(suffix for f in FORMATS for suffix in f.suffixes)
        raise UnsupportedImage("the file is of no known image format", where=path, expected=known,
                               fix="Convert it, for example with SimpleITK", reason="unknown format")
    return found

"""Find every image under a folder, with DICOM files sorted into series.

Nothing is skipped in silence, except what is plainly no image: tables, texts, scripts, hidden files,
DICOMDIR and the voxels of a MetaImage, which its header stands for. What cannot be used is listed with its error.
"""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from megavox.core.errors import ImageError, UnsupportedImage
from megavox.core.progress import track
from megavox.images import dicom, metaimage
from megavox.images.dicom_header import SEGMENTATIONS, Header, has_mark, open_dataset, read_header
from megavox.images.formats import FORMATS, format_of

NOT_IMAGES = frozenset((
    ".txt", ".csv", ".tsv", ".json", ".jsonl", ".md", ".rst", ".xml", ".html", ".htm", ".css", ".js", ".py",
    ".sh", ".m", ".r", ".ipynb", ".yaml", ".yml", ".toml", ".ini", ".cfg", ".log", ".pdf", ".doc", ".docx",
    ".xls", ".xlsx", ".bval", ".bvec", ".sha256", ".md5", ".bib", ".tex", ".svg"))
_PLAIN_NAMES = ("LICENSE", "LICENCE", "README", "CHANGES", "NOTICE", "SHA256SUMS", "MD5SUMS", "MAKEFILE")


@dataclass(frozen=True)
class Found:
    """One image.

    Attributes:
        paths: one file, or the files of a DICOM series; give them to `read_image`.
        name: unique among the DICOM series of one search, and among the images of one folder.
        subject: PatientID, or "".
        session: StudyDate, else StudyInstanceUID, or "".
        kind: name of the format.
    """

    paths: tuple[Path, ...]
    name: str
    subject: str = ""
    session: str = ""
    kind: str = ""


class FoundImages(NamedTuple):
    """What a search gave: the images, and the files that cannot be used with the reason."""

    images: list[Found]
    unusable: list[tuple[Path, ImageError]]


def find_images(folder: Path) -> FoundImages:
    """Every image under `folder`, which may also be a file, in the order of their paths. Reads headers, never voxels.

    An image is called as its file without the ending. Files of one folder that differ in the ending alone
    (`x.png` beside `x.jpg`) are images of their own, whether copies or not, and keep the ending in their
    names (`x-png`, `x-jpg`), so that nobody takes them for one image or for its channels.
    """
    images: list[Found] = []
    unusable: list[tuple[Path, ImageError]] = []
    series: dict[tuple[object, ...], list[Header]] = defaultdict(list)
    files = list(_files(folder))
    for path in track(files, "searching", total=len(files)):
        found = format_of(path)
        try:
            if found is None:
                known = ", ".join(suffix for f in FORMATS for suffix in f.suffixes)
                raise UnsupportedImage("the file is of no known image format", where=path, expected=known,
                                       fix="Convert it, or remove it from the folder",
                                       reason="unknown format")
            if found is dicom:
                header = read_header(path)
                series[_series_key(header)].append(header)
                continue
            if not found.recognise(path):
                found.describe(path)  # says what is wrong
            images.append(Found((path,), _stem(path, found.suffixes), kind=found.name))
        except ImageError as error:
            if not _is_directory(path):
                unusable.append((path, error))
    images += _named(list(series.values()))
    return FoundImages(_told_apart(sorted(images, key=lambda f: f.paths[0])), unusable)


def _files(folder: Path) -> Iterator[Path]:
    if folder.is_file():
        yield folder
        return
    for place, folders, names in os.walk(folder, followlinks=False):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        there = set(names)
        for name in sorted(names):
            plain = Path(name).suffix.lower() in NOT_IMAGES or name.upper().startswith(_PLAIN_NAMES)
            if not (name.startswith(".") or plain or name.upper().startswith("DICOMDIR")
                    or metaimage.is_data(name, there)):
                yield Path(place, name)


def _is_directory(path: Path) -> bool:
    """Whether the file is a DICOMDIR under another name (media storage directory)."""
    if not has_mark(path):
        return False
    try:
        return "DirectoryRecordSequence" in open_dataset(path, pixels=False)
    except ImageError:
        return False


def _series_key(header: Header) -> tuple[object, ...]:
    """Files with equal keys may be one volume; segmentations and files without a position stand alone."""
    first = header.frames[0]
    if first.position is None or first.orientation is None or header.tiled \
            or header.sop_class in SEGMENTATIONS:
        return ("alone", header.path)
    turned = tuple(round(v, 2) + 0.0 for v in first.orientation)
    series = header.series or (header.path.parent, header.series_number)
    return (series, first.shape, turned, header.samples, header.sop_class)


def _told_apart(images: list[Found]) -> list[Found]:
    """The images, with the ending in the names of those that would be called alike in one folder.

    DICOM keeps its names: they are unique, and masks and tables go by them.
    """
    def called(image: Found) -> tuple[Path, str]:
        return image.paths[0].parent, image.name.lower()

    counts = Counter(map(called, images))
    stays = [image.kind == dicom.name or counts[called(image)] == 1 for image in images]
    taken = {called(image) for image, stay in zip(images, stays, strict=True) if stay}
    found = []
    for image, stay in zip(images, stays, strict=True):
        if not stay:
            ending = image.paths[0].name[len(image.name):].strip(".").replace(".", "-") or image.kind
            base, count = f"{image.name}-{ending}", 1
            image = replace(image, name=base)
            while called(image) in taken:
                count += 1
                image = replace(image, name=f"{base}-{count}")
            taken.add(called(image))
        found.append(image)
    return found


def _named(groups: list[list[Header]]) -> list[Found]:
    found: list[Found] = []
    taken: set[str] = set()
    for headers in sorted(groups, key=lambda group: group[0].path):
        first = headers[0]
        base = _series_name(first, len(headers))
        name, count = base, 1
        while name.lower() in taken:
            count += 1
            name = f"{base}-{count}"
        taken.add(name.lower())
        found.append(Found(tuple(h.path for h in headers), name, first.patient, first.session, "dicom"))
    return found


def _series_name(header: Header, files: int) -> str:
    """Folder and series number of a series, stem of a single file; never with the patient's name."""
    plain = header.path.parent.name if files > 1 else _stem(header.path, dicom.suffixes)
    secret = [p for p in re.split(r"[^a-z]+", header.patient_name.lower()) if len(p) > 2]
    if any(part in plain.lower() for part in secret):
        plain = "series"
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", plain).strip("-.") or "series"
    number = re.sub(r"[^0-9]+", "", header.series_number)
    return f"{safe}_s{number}" if number and files > 1 else safe


def _stem(path: Path, suffixes: tuple[str, ...]) -> str:
    longest = max((s for s in suffixes if path.name.lower().endswith(s)), key=len, default="")
    return path.name[:len(path.name) - len(longest)] if longest else path.name

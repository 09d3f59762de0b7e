"""DICOM headers: what a file is, and where each of its frames lies.

Every kind of file becomes a list of `Frame`: a single-frame slice is one, an enhanced multi-frame
file (functional groups, PS3.3 C.7.6.16) is many, and so is a Siemens mosaic, whose tiles are slices.
What follows (sorting, stacking) then knows one kind only. Pixels are not read here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from megavox.core.errors import UnreadableImage, UnsupportedImage
from megavox.images.dicom_frame import Frame
from megavox.images.dicom_mosaic import mosaic_frames
from megavox.images.values import check_not_empty, check_size, decoding

SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
PARAMETRIC_MAP = "1.2.840.10008.5.1.4.1.1.30"

# What may tell frames at one place apart: our name, keyword, functional group it may stand in.
_KEYS = (
    ("echo time", "EffectiveEchoTime", "MREchoSequence"),
    ("echo time", "EchoTime", ""),
    ("echo", "EchoNumbers", ""),
    ("b-value", "DiffusionBValue", "MRDiffusionSequence"),
    ("temporal position", "TemporalPositionIndex", "FrameContentSequence"),
    ("temporal position", "TemporalPositionIdentifier", ""),
    ("acquisition", "FrameAcquisitionNumber", "FrameContentSequence"),
    ("acquisition", "AcquisitionNumber", ""),
    ("trigger time", "NominalCardiacTriggerDelayTime", "CardiacSynchronizationSequence"),
    ("trigger time", "TriggerTime", ""),
    ("image type", "FrameType", "MRImageFrameTypeSequence"),
    ("image type", "ImageType", ""),
    ("segment", "ReferencedSegmentNumber", "SegmentIdentificationSequence"),
)


@dataclass(frozen=True)
class Header:
    """What a DICOM file says of itself, without pixels."""

    path: Path
    frames: list[Frame]
    series: str
    modality: str
    sop_class: str
    samples: int            # channels after decoding: 3 for colour and palettes
    bits: int
    dtype: str              # expected type after rescaling
    tiled: bool             # frames are tiles of one whole-slide image
    series_number: str = ""
    patient: str = ""       # PatientID
    patient_name: str = ""  # only to keep it out of names
    session: str = ""


def has_mark(path: Path) -> bool:
    """Whether the file has the DICOM preamble and its `DICM` mark."""
    try:
        with path.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError:
        return False


def open_dataset(path: Path, pixels: bool) -> Any:
    """The pydicom dataset; files without preamble are accepted if they parse.

    Raises:
        UnreadableImage: empty, damaged, or not DICOM.
    """
    import pydicom
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    check_not_empty(path)
    with decoding(path, "the file is not DICOM or is damaged"):
        dataset = pydicom.dcmread(path, stop_before_pixels=not pixels, force=True)
        if "SOPClassUID" not in dataset and "Rows" not in dataset and "Modality" not in dataset:
            raise UnreadableImage("the file is not DICOM", where=path, reason="not dicom",
                                  expected="a DICOM data set with an SOP class",
                                  fix="Leave it out, or export it again")
        if not dataset.file_meta.get("TransferSyntaxUID"):  # no meta header: as it was parsed
            implicit, little = dataset.original_encoding
            dataset.file_meta.TransferSyntaxUID = (
                ImplicitVRLittleEndian if implicit else
                ExplicitVRLittleEndian if little else ExplicitVRBigEndian)
    return dataset


def read_header(path: Path) -> Header:
    """Read the header of one file.

    Raises:
        UnreadableImage: damaged, or shorter than its uncompressed pixels need.
        UnsupportedImage: no picture in it (a report, a plan, a waveform), or absurdly large.
    """
    dataset = open_dataset(path, pixels=False)
    with decoding(path, "the DICOM header is damaged"):
        return _header(path, dataset)


def group_value(dataset: Any, number: int, group: str, keyword: str) -> Any:
    """A value from the frame's functional groups, else the shared ones, else the data set."""
    if group:
        frames = dataset.get("PerFrameFunctionalGroupsSequence") or []
        shared = dataset.get("SharedFunctionalGroupsSequence") or []
        for item in [*frames[number:number + 1], *shared[:1]]:
            inner = item.get(group)
            if inner and inner[0].get(keyword) not in (None, ""):
                return inner[0].get(keyword)
    value = dataset.get(keyword)
    return None if value == "" else value


def sop_name(dataset: Any) -> str:
    """The SOP class in words."""
    uid = dataset.get("SOPClassUID")
    return str(getattr(uid, "name", uid)) if uid else "unknown SOP class"


def _header(path: Path, dataset: Any) -> Header:
    from pydicom.uid import UID

    rows, columns = int(dataset.get("Rows") or 0), int(dataset.get("Columns") or 0)
    if not (rows and columns):
        raise UnsupportedImage(f"the file holds no picture ({sop_name(dataset)})", where=path,
                               expected="an image object", fix="Leave it out: it is not an image",
                               reason="not an image")
    count = int(dataset.get("NumberOfFrames") or 1)
    stored_samples, bits = int(dataset.get("SamplesPerPixel") or 1), int(dataset.get("BitsAllocated") or 16)
    needed = rows * columns * count * stored_samples
    check_size(needed, bits, path)
    syntax = UID(dataset.file_meta.TransferSyntaxUID)
    half = "422" in str(dataset.get("PhotometricInterpretation", ""))
    smallest = needed * bits // 8 * (2 if half else 3) // 3
    if not (syntax.is_compressed or syntax.is_deflated) and path.stat().st_size < smallest:
        raise UnreadableImage(f"the file has {path.stat().st_size} bytes but its pixels need "
                              f"{smallest}", where=path, fix="Copy it again",
                              reason="truncated")
    segmentation = str(dataset.get("SOPClassUID", "")) in SEGMENTATIONS
    palette = dataset.get("PhotometricInterpretation") == "PALETTE COLOR" and not segmentation
    colour = palette or stored_samples >= 3
    return Header(
        path=path, frames=_frames(path, dataset, count), series=str(dataset.get("SeriesInstanceUID", "")),
        modality=str(dataset.get("Modality") or ""), sop_class=str(dataset.get("SOPClassUID", "")),
        samples=3 if colour else 1, bits=bits, dtype=_expected_type(dataset, bits, colour),
        tiled="TotalPixelMatrixRows" in dataset, series_number=str(dataset.get("SeriesNumber") or ""),
        patient=str(dataset.get("PatientID") or ""), patient_name=str(dataset.get("PatientName") or ""),
        session=str(dataset.get("StudyDate") or dataset.get("StudyInstanceUID") or ""))


def _expected_type(dataset: Any, bits: int, colour: bool) -> str:
    if dataset.get("SOPClassUID") == PARAMETRIC_MAP:
        return "float32"
    table = dataset.get("RedPaletteColorLookupTableDescriptor")
    if colour and table and dataset.get("SamplesPerPixel", 1) == 1:
        return "uint16" if table[2] > 8 else "uint8"
    stored = f"{'int' if dataset.get('PixelRepresentation') else 'uint'}{max(bits, 8)}"
    slope, intercept = rescale_values(dataset, 0)
    if colour or (slope == 1 and intercept == 0):
        return stored
    return "int16" if float(slope).is_integer() and float(intercept).is_integer() else "float32"


def rescale_values(dataset: Any, number: int) -> tuple[float, float]:
    """Slope and intercept of one frame; for dose grids the scaling to Gy."""
    if dataset.get("DoseGridScaling"):
        return float(dataset.DoseGridScaling), 0.0
    slope = group_value(dataset, number, "PixelValueTransformationSequence", "RescaleSlope")
    intercept = group_value(dataset, number, "PixelValueTransformationSequence", "RescaleIntercept")
    return float(slope or 1.0), float(intercept or 0.0)


def _frames(path: Path, dataset: Any, count: int) -> list[Frame]:
    if "MOSAIC" in [str(v) for v in np.atleast_1d(dataset.get("ImageType") or [])]:
        return mosaic_frames(path, dataset, _frame(path, dataset, 0, 1))
    frames = [_frame(path, dataset, number, count) for number in range(count)]
    return _with_offsets(frames, dataset)


def _frame(path: Path, dataset: Any, number: int, count: int) -> Frame:
    def numbers(group: str, keyword: str, length: int) -> tuple[float, ...] | None:
        value = group_value(dataset, number, group, keyword)
        try:
            found = tuple(float(v) for v in value) if value is not None else ()
        except TypeError:
            return None
        return found if len(found) == length and np.isfinite(found).all() else None

    def positive(group: str, keyword: str) -> float:
        return abs(float(group_value(dataset, number, group, keyword) or 0.0))

    grouped = "PerFrameFunctionalGroupsSequence" in dataset
    position = numbers("PlanePositionSequence", "ImagePositionPatient", 3)
    orientation = numbers("PlaneOrientationSequence", "ImageOrientationPatient", 6)
    if count > 1 and not grouped:
        position = None  # one position cannot be that of all frames
    pixel = numbers("PixelMeasuresSequence", "PixelSpacing", 2) or \
        numbers("", "ImagerPixelSpacing", 2) or numbers("", "NominalScannedPixelSpacing", 2)
    keys: dict[str, float | str] = {}
    for key, keyword, group in _KEYS:
        value = group_value(dataset, number, group, keyword)
        if key not in keys and value is not None:
            keys[key] = "/".join(map(str, value)) if key == "image type" else _number(value)
    return Frame(
        path=path, number=number, uid=str(dataset.get("SOPInstanceUID", "")),
        shape=(int(dataset.Rows), int(dataset.Columns)), position=position, orientation=orientation,
        spacing=(pixel[1], pixel[0]) if pixel and min(pixel) > 0 else None,
        thickness=positive("PixelMeasuresSequence", "SpacingBetweenSlices")
        or positive("PixelMeasuresSequence", "SliceThickness"),
        keys=keys, instance=float(dataset.get("InstanceNumber") or 0) + number * 1e-6)


def _with_offsets(frames: list[Frame], dataset: Any) -> list[Frame]:
    """Positions of an RT dose grid, whose frames are offset along the normal (PS3.3 C.8.8.3.2)."""
    offsets = np.atleast_1d(np.array(dataset.get("GridFrameOffsetVector") or [], float))
    origin, orientation = dataset.get("ImagePositionPatient"), frames[0].orientation
    if len(offsets) != len(frames) or not origin or orientation is None or frames[0].position is not None:
        return frames
    normal = np.cross(orientation[:3], orientation[3:])
    relative = offsets - (offsets[0] if offsets[0] != 0 else 0.0)
    return [replace(frame, position=tuple(np.array(origin, float) + normal * offset))
            for frame, offset in zip(frames, relative, strict=True)]


def _number(value: Any) -> float | str:
    try:
        return float(value)
    except (TypeError, ValueError):
        return str(value)

"""Small DICOM files for tests, written with pydicom."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import CTImageStorage, EnhancedMRImageStorage, ExplicitVRLittleEndian, generate_uid

SERIES = "1.2.826.0.1.3680043.8.498.1"


def file_of(pixels: np.ndarray, **values: Any) -> FileDataset:
    """A data set with `(Y, X)`, `(F, Y, X)` or `(Y, X, 3)` pixels; keywords set or replace elements."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    colour = pixels.ndim == 3 and pixels.shape[-1] == 3
    rows, columns = pixels.shape[:2] if colour else pixels.shape[-2:]
    bits = pixels.dtype.itemsize * 8
    defaults: dict[str, Any] = {
        "SOPClassUID": CTImageStorage, "SOPInstanceUID": generate_uid(), "SeriesInstanceUID": SERIES,
        "StudyInstanceUID": SERIES + ".9", "Modality": "CT", "PatientID": "P1", "PatientName": "Doe^Jane",
        "StudyDate": "20200102", "SeriesNumber": 4, "Rows": rows, "Columns": columns,
        "SamplesPerPixel": 3 if colour else 1,
        "PhotometricInterpretation": "RGB" if colour else "MONOCHROME2",
        "BitsAllocated": bits, "BitsStored": bits, "HighBit": bits - 1,
        "PixelRepresentation": int(pixels.dtype.kind == "i"),
    }
    if colour:
        defaults["PlanarConfiguration"] = 0
    for keyword, value in {**defaults, **values}.items():
        if value is not None:
            setattr(dataset, keyword, value)
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.PixelData = pixels.tobytes()
    if len(dataset.PixelData) % 2:
        dataset.PixelData += b"\0"
    return dataset


def save(path: Path, dataset: FileDataset) -> Path:
    dataset.save_as(path, enforce_file_format=True)
    return path


def write_series(folder: Path, volume: np.ndarray, direction: np.ndarray | None = None,
                 origin: tuple[float, ...] = (0.0, 0.0, 0.0),
                 spacing: tuple[float, float, float] = (0.5, 0.75, 2.0), prefix: str = "",
                 step: np.ndarray | None = None, **values: Any) -> list[Path]:
    """Write `(Z, Y, X)` as single-frame files whose names run against the slice order.

    Args:
        direction: 3x3, columns are the axes x, y, z.
        spacing: mm along x, y, z.
        step: mm from slice to slice, if not along the normal.
    """
    axes = np.eye(3) if direction is None else direction
    step = axes[:, 2] * spacing[2] if step is None else step
    folder.mkdir(exist_ok=True, parents=True)
    paths = []
    for z, pixels in enumerate(volume):
        position = np.array(origin) + step * z
        given = {key: value[z] if isinstance(value, list) else value for key, value in values.items()}
        dataset = file_of(pixels, **{
            "ImagePositionPatient": [f"{v:.10g}"[:16] for v in position],
            "ImageOrientationPatient": [f"{v:.12f}"[:16] for v in axes[:, :2].T.ravel()],
            "PixelSpacing": [spacing[1], spacing[0]], "SliceThickness": spacing[2],
            "InstanceNumber": z + 1, **given})
        paths.append(save(folder / f"{prefix}{(z * 7 + 3) % 101:03d}.dcm", dataset))
    return paths


def enhanced(volume: np.ndarray, positions: list[tuple[float, float, float]],
             echo_times: list[float]) -> FileDataset:
    """A minimal enhanced MR file; `volume` is `(F, Y, X)`, one position and echo time a frame."""
    def one(**values: Any) -> Dataset:
        item = Dataset()
        for keyword, value in values.items():
            setattr(item, keyword, value)
        return item

    shared = one(
        PlaneOrientationSequence=Sequence([one(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])]),
        PixelMeasuresSequence=Sequence([one(PixelSpacing=[2.0, 1.0], SliceThickness=4.0)]))
    frames = [one(PlanePositionSequence=Sequence([one(ImagePositionPatient=list(position))]),
                  MREchoSequence=Sequence([one(EffectiveEchoTime=echo)]))
              for position, echo in zip(positions, echo_times, strict=True)]
    return file_of(volume, SOPClassUID=EnhancedMRImageStorage, Modality="MR", NumberOfFrames=len(volume),
                   SharedFunctionalGroupsSequence=Sequence([shared]),
                   PerFrameFunctionalGroupsSequence=Sequence(frames))

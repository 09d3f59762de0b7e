"""Tiny cohorts, one for each layout, and what each layout would say of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from megavox.images.geometry import Geometry
from megavox.images.nifti import write_nifti
from megavox.images.raster import write_raster
from megavox.study.sections import Study

GRID = Geometry((4, 5, 3), (1.0, 1.0, 2.0))


def volume(path: Path, value: float = 1) -> Path:
    write_nifti(path, np.full((1, 3, 5, 4), value, np.uint8), GRID)
    return path


def picture(path: Path, value: int = 100) -> Path:
    write_raster(path, np.full((1, 6, 8), value, np.uint8))
    return path


def slice_file(path: Path, number: int, patient: str = "P1", series: str = "1.2.3.4") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = pydicom.uid.MRImageStorage
    meta.MediaStorageSOPInstanceUID = f"{series}.{number}"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    data.SeriesInstanceUID, data.StudyInstanceUID, data.StudyDate = series, series + ".9", "20200102"
    data.Modality, data.PatientID, data.PatientName = "MR", patient, "Made^Up"
    data.Rows, data.Columns, data.SamplesPerPixel = 4, 5, 1
    data.PhotometricInterpretation = "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit, data.PixelRepresentation = 15, 0
    data.PixelSpacing, data.SliceThickness = [1, 1], 2
    data.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    data.ImagePositionPatient, data.InstanceNumber = [0, 0, 2 * number], number
    data.PixelData = np.full((4, 5), number, np.uint16).tobytes()
    data.save_as(path, enforce_file_format=True)
    return path


def make_decathlon(folder: Path) -> Path:
    for name in ("a_01", "a_02", "a_03"):
        volume(folder / "imagesTr" / f"{name}.nii.gz")
        volume(folder / "labelsTr" / f"{name}.nii.gz")
    (folder / "dataset.json").write_text(json.dumps({"labels": {"0": "background", "1": "organ"},
                                                     "modality": {"0": "MRI"}}))
    return folder


def make_bids(folder: Path) -> Path:
    for name in ("sub-01", "sub-02"):
        picture(folder / name / "micr" / f"{name}_SEM.png")
        for kind in ("axon", "myelin", "axonmyelin"):
            picture(folder / "derivatives" / "labels" / name / "micr" / f"{name}_SEM_seg-{kind}-manual.png", 255)
    return folder


def make_luna16(folder: Path) -> Path:
    """Three series in two subsets: two findings, none, and one that is excluded."""
    for number in range(3):
        subset = folder / f"subset{number // 2}"
        subset.mkdir(parents=True, exist_ok=True)
        (subset / f"1.3.6.{number}.mhd").write_text(
            "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\nCompressedData = False\n"
            "TransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = -10 -20 -30\nElementSpacing = 1 1 2\nDimSize = 4 5 3\n"
            f"ElementType = MET_SHORT\nElementDataFile = 1.3.6.{number}.raw\n")
        (subset / f"1.3.6.{number}.raw").write_bytes(np.arange(60, dtype="<i2").tobytes())
    head = "seriesuid,coordX,coordY,coordZ,diameter_mm\n"
    (folder / "annotations.csv").write_text(head + "1.3.6.0,-9.5,-18.25,-28,5.5\n1.3.6.0,-8,-17,-26,3.1\n")
    (folder / "annotations_excluded.csv").write_text(head + "1.3.6.2,-9,-18,-29,-1\n")
    return folder


def make_table(folder: Path) -> Path:
    lines = ["image,patient,label"]
    for number in range(6):
        picture(folder / "images" / f"x{number}.png")
        lines.append(f"x{number}.png,p{number // 2},{'sick' if number % 2 else 'normal'}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder


def make_folders(folder: Path) -> Path:
    for number in range(4):
        picture(folder / "NORMAL" / f"person{number}_1.png")
        picture(folder / "SICK" / f"person{number + 2}_2.png")
    return folder


def make_dicom(folder: Path) -> Path:
    for patient in ("P1", "P2"):
        for number in range(3):
            slice_file(folder / patient / f"{number}.dcm", number, patient, f"1.2.3.{patient[1]}")
    return folder


MAKERS = {"decathlon": make_decathlon, "bids": make_bids, "luna16": make_luna16, "table": make_table,
          "folders": make_folders, "dicom": make_dicom}


def as_study(guess) -> Study:  # type: ignore[no-untyped-def]
    """The guess as a whole study: what is guessed must be a valid study file."""
    family = "resnet" if guess.task["kind"] == "classify" else "unet"
    return Study.model_validate({"name": "x", "cohort": guess.cohort, "task": guess.task,
                                 "images": guess.images, "model": {"family": family}})

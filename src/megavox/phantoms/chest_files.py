"""Chest phantoms as files: NIfTI or DICOM, with the findings in tables of LUNA16's form."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from megavox.core.files import whole_folder, write_csv
from megavox.images.nifti import write_nifti
from megavox.phantoms.chest import SPACING_MM, Chest, chest
from megavox.phantoms.lumps import Finding

if TYPE_CHECKING:
    from pydicom.uid import UID

COLUMNS = ("seriesuid", "coordX", "coordY", "coordZ", "diameter_mm")
_INTERCEPT = -1024  # HU of a stored 0


def write_detect_cohort(folder: Path, cases: int, seed: int = 0, *, dicom: bool = False,
                        spacing_mm: tuple[float, float] = SPACING_MM) -> dict[str, tuple[Finding, ...]]:
    """Write chest phantoms and what is found in them.

    `annotations.csv` holds the findings that count and `annotations_excluded.csv` the others, in the columns of LUNA16
    (luna16.grand-challenge.org/Data): name of the image, world LPS in mm, diameter in mm.

    Args:
        folder: gets the tables and `images/chest_001.nii.gz`, or with `dicom` a series `images/chest_001/0001.dcm`.
        cases: chests.
        seed: equal seeds give equal bytes.
        dicom: write CT series.
        spacing_mm: see `chest`.

    Returns:
        Case name -> its findings.
    """
    found = {}
    for number in range(1, cases + 1):
        phantom, name = chest(seed, number, spacing_mm), f"chest_{number:03d}"
        if dicom:
            write_series(folder / "images" / name, phantom, f"{seed}/{number}")
        else:
            write_nifti(folder / "images" / f"{name}.nii.gz", phantom.image[None], phantom.geometry)
        found[name] = phantom.findings
    for table, counts in (("annotations.csv", True), ("annotations_excluded.csv", False)):
        rows = [dict(zip(COLUMNS, (name, *(f"{mm:.4f}" for mm in (*one.centre_mm, one.diameter_mm))), strict=True))
                for name, findings in found.items() for one in findings if one.counts == counts]
        write_csv(folder / table, COLUMNS, rows)
    return found


def write_series(folder: Path, phantom: Chest, identity: str) -> None:
    """Write a chest as a CT series, `0001.dcm` the lowest slice; the folder appears whole or not at all.

    Args:
        identity: from which the UIDs are made; another for another patient.
    """
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

    stored = (phantom.image.astype(np.int32) - _INTERCEPT).astype(np.uint16)
    shared = _shared(phantom, identity)
    up = phantom.geometry.affine()
    with whole_folder(folder) as temporary:
        for z, pixels in enumerate(stored):
            meta = FileMetaDataset()
            meta.TransferSyntaxUID = ExplicitVRLittleEndian
            meta.MediaStorageSOPClassUID = CTImageStorage
            meta.MediaStorageSOPInstanceUID = _uid(identity, z + 1)
            dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
            own = {"SOPClassUID": CTImageStorage, "SOPInstanceUID": meta.MediaStorageSOPInstanceUID,
                   "InstanceNumber": z + 1, "ImagePositionPatient": _decimals(up[:3, 3] + z * up[:3, 2])}
            for keyword, value in {**shared, **own}.items():
                setattr(dataset, keyword, value)
            dataset.PixelData = pixels.astype("<u2").tobytes()
            dataset.save_as(temporary / f"{z + 1:04d}.dcm", enforce_file_format=True)


def _shared(phantom: Chest, identity: str) -> dict[str, Any]:
    """Attributes of all slices: those that a CT image must have (PS3.3 A.3), and its grid."""
    _, rows, columns = phantom.image.shape
    x, y, z = phantom.geometry.spacing
    direction = np.reshape(phantom.geometry.direction, (3, 3))
    patient = identity.replace("/", "-")
    return {
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"], "Modality": "CT", "Manufacturer": "Megavox phantom",
        "StudyDate": "20200101", "StudyTime": "120000", "AccessionNumber": "", "ReferringPhysicianName": "",
        "PatientID": patient, "PatientName": f"Phantom^{patient}", "PatientBirthDate": "", "PatientSex": "",
        "PatientPosition": "HFS" if direction[0, 0] > 0 else "HFP", "StudyInstanceUID": _uid(identity, "study"),
        "SeriesInstanceUID": _uid(identity, "series"), "FrameOfReferenceUID": _uid(identity, "frame"),
        "PositionReferenceIndicator": "", "StudyID": "", "SeriesNumber": None, "AcquisitionNumber": None, "KVP": "120",
        "ImageOrientationPatient": _decimals(direction[:, :2].T.ravel()), "PixelSpacing": _decimals((y, x)),
        "SliceThickness": _decimals((z,))[0], "Rows": rows, "Columns": columns, "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2", "BitsAllocated": 16, "BitsStored": 12, "HighBit": 11,
        "PixelRepresentation": 0, "RescaleIntercept": str(_INTERCEPT), "RescaleSlope": "1", "RescaleType": "HU",
        "WindowCenter": "-600", "WindowWidth": "1500"}


def _uid(identity: str, what: object) -> UID:
    from pydicom.uid import generate_uid

    return generate_uid(entropy_srcs=["megavox chest", identity, str(what)])


def _decimals(values: Any) -> list[str]:
    """Decimal strings, of which DICOM allows 16 characters (PS3.5 6.2)."""
    return [f"{value:.8f}" for value in values]

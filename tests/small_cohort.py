"""Phantom cases for tests of the store: a few organs and pictures, and cases of given voxels."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from megavox.cohort.case import Case
from megavox.images.geometry import Geometry
from megavox.images.nifti import write_nifti
from megavox.images.prepare import Preparation
from megavox.study.sections import ClassifyTask, SegmentTask

ORGAN_TASK = SegmentTask(kind="segment", classes={"core": 1, "shell": 2})
PICTURE_TASK = ClassifyTask(kind="classify", classes=["opacity", "effusion"], multilabel=True)
VOLUME = Preparation(spatial_dims=3, channels=1)
PICTURE = Preparation(spatial_dims=2, channels=1)


def organ_cases(folder: Path) -> list[Case]:
    """The cases of `write_segment_cohort`."""
    images = sorted((folder / "imagesTr").glob("*.nii.gz"))
    return [Case(path.name.removesuffix(".nii.gz"), path.name, "", ((path,),), (folder / "labelsTr" / path.name,))
            for path in images]


def tiny_case(folder: Path, name: str, shape: tuple[int, int, int] = (7, 9, 8)) -> Case:
    """A case of few voxels, with a mask of both classes."""
    z, y, x = shape
    rng = np.random.default_rng(0)
    geometry = Geometry((x, y, z), (1.0, 1.5, 2.0))
    write_nifti(folder / f"{name}.nii", rng.integers(0, 900, (1, *shape)).astype(np.int16), geometry)
    write_nifti(folder / f"{name}_mask.nii", rng.integers(0, 3, (1, *shape)).astype(np.uint8), geometry)
    return Case(name, name, "", ((folder / f"{name}.nii",),), (folder / f"{name}_mask.nii",))


def voxel_case(folder: Path, array: np.ndarray, name: str = "voxels") -> Case:
    """A case without a mask whose image is `array`, `(Z, Y, X)`."""
    z, y, x = array.shape
    write_nifti(folder / f"{name}.nii.gz", array[None], Geometry((x, y, z)))
    return Case(name, name, "", ((folder / f"{name}.nii.gz",),), labels=("opacity",))

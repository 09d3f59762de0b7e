"""Small studies for the tests of whole stages: phantom cohorts, tiny networks, few steps.

A cohort is written, and packed, once for a test session; runs of other names share its workspace.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from megavox.core.randomness import generator
from megavox.images.geometry import Geometry
from megavox.images.nifti import write_nifti
from megavox.phantoms import write_classify_cohort, write_segment_cohort
from megavox.pipeline.pack import pack
from megavox.pipeline.project import Project
from megavox.study import load_study

# Workers are forked from a process that has imported what they need, so that a test waits for that once.
multiprocessing.set_forkserver_preload(["megavox.store.build", "megavox.batches.loader", "megavox.inference.worker"])

UNET: dict[str, Any] = {"family": "unet", "filters": 4, "levels": 2}
RESNET: dict[str, Any] = {"family": "resnet", "depth": 18, "filters": 4}
COMMON: dict[str, Any] = {
    "seed": 3, "split": {"test": 0.25, "validation": 0.25}, "evaluation": {"resamples": 100},
    "inference": {"mirror": False}}
TRAINING: dict[str, Any] = {"steps": 4, "validations": 2, "device": "cpu", "precision": "float32"}


def segment_cohort(folder: Path, cases: int = 8, dirty: bool = False) -> dict[str, Any]:
    """Phantom organs in the Decathlon layout; returns the study's data."""
    write_segment_cohort(folder, cases, seed=1, dirty=dirty)
    return {**COMMON, "name": "organs", "cohort": {"layout": "decathlon", "folder": str(folder)},
            "task": {"kind": "segment", "classes": {"core": 1, "shell": 2}},
            "images": {"channels": ["MRI"], "spacing_mm": [2.5, 2.5, 2.5], "normalise": "zscore"},
            "batches": {"patch": [16, 16, 16], "size": 2, "workers": 0}, "model": UNET, "training": TRAINING}


def picture_cohort(folder: Path, cases: int = 24, multilabel: bool = False) -> dict[str, Any]:
    """Phantom radiographs with a table; returns the study's data."""
    classes = ("opacity", "effusion") if multilabel else ("clear", "opacity")
    write_classify_cohort(folder, cases, seed=1, classes=classes, multilabel=multilabel)
    columns = list(classes) if multilabel else ["label"]
    return {**COMMON, "name": "pictures",
            "cohort": {"layout": "table", "folder": str(folder), "subject_column": "patient",
                       "session_column": "visit", "class_columns": columns},
            "task": {"kind": "classify", "classes": list(classes), "multilabel": multilabel},
            "images": {"channels": ["grey"], "size": [32, 32], "spacing_mm": "native", "normalise": "zscore"},
            "batches": {"patch": [32, 32], "size": 4, "workers": 0}, "model": RESNET, "training": TRAINING}


def volume_cohort(folder: Path, cases: int = 20) -> dict[str, Any]:
    """Small volumes in a folder per class (a bright ball is large or small); returns the study's data."""
    for number in range(cases):
        random = generator(5, "volume", number)
        label, radius = (("large", 5.0), ("small", 2.5))[number % 2]
        z, y, x = np.indices((16, 16, 16))
        centre = random.uniform(6, 9, 3)
        ball = (z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2 <= radius**2
        image = (200 + 300 * ball + random.normal(0, 20, ball.shape)).astype("int16")
        write_nifti(folder / label / f"case{number:02d}.nii.gz", image[None], Geometry((16, 16, 16), (2.0, 2.0, 2.0)))
    return {**COMMON, "name": "volumes", "cohort": {"layout": "folders", "folder": str(folder)},
            "task": {"kind": "classify", "classes": ["large", "small"]},
            "images": {"channels": ["CT"], "spacing_mm": "native", "normalise": "zscore"},
            "batches": {"patch": [16, 16, 16], "size": 4, "workers": 0}, "model": RESNET, "training": TRAINING}


def changed(data: Mapping[str, Any], **sections: Mapping[str, Any]) -> dict[str, Any]:
    """The study's data with keys of some sections changed."""
    return {**data, **{name: {**data.get(name, {}), **values} for name, values in sections.items()}}


def write_study(path: Path, data: Mapping[str, Any]) -> Path:
    """Write the study's data as YAML."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(dict(data), sort_keys=False))
    return path


def project_of(data: Mapping[str, Any], folder: Path, run: str) -> Project:
    """A project of its own study file, in the workspace `folder/workspace` that others may share."""
    study = write_study(folder / f"{run}.yaml", data)
    return Project.at(load_study(study), folder / "workspace", run)


def packed_organs(base: Path) -> tuple[dict[str, Any], Path]:
    """The packed segment cohort of this test session: the study's data, and the folder of its workspace."""
    folder = base / "shared-organs"
    if (folder / "workspace" / "store" / "pack.json").exists():
        return yaml.safe_load((folder / "pack.yaml").read_text()), folder
    data = segment_cohort(folder / "images")
    pack(project_of(data, folder, "pack"))
    return data, folder


def environment() -> dict[str, str]:
    """For subprocesses: one thread, and nothing of a surrounding torchrun."""
    kept = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    return {**kept, "OMP_NUM_THREADS": "1"}

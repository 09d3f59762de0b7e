"""A tiny network that nobody trained, and tiny cases: what tests of the cohort runner predict with."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from safetensors.torch import save_file

from megavox.cohort.case import Case
from megavox.core.files import file_hash
from megavox.core.randomness import generator
from megavox.core.workspace import DONE
from megavox.images.geometry import Geometry
from megavox.images.nifti import write_nifti
from megavox.images.prepare import Preparation
from megavox.inference.recipe import Network, Recipe
from megavox.models.registry import build_model
from megavox.study import parse_study
from megavox.training.best import AVERAGED

STUDY = {"name": "tiny", "seed": 3, "cohort": {"layout": "decathlon", "folder": "images"},
         "task": {"kind": "segment", "classes": {"core": 1, "shell": 2}},
         "images": {"channels": ["MRI"], "spacing_mm": "native", "normalise": "zscore"},
         "batches": {"patch": [8, 8, 8], "size": 2}, "model": {"family": "unet", "filters": 4, "levels": 2},
         "inference": {"mirror": False, "engine": "pytorch"}, "training": {"steps": 1, "device": "cpu"}}


def small_network(folder: Path, weights: str = "w1", **changes: Any) -> Network:
    """A U-Net with weights by chance, in a folder like a checkpoint's; `changes` are sections of the study."""
    study = parse_study(yaml.safe_dump(STUDY | changes), where=folder / "study.yaml")
    torch.manual_seed(0)
    network = build_model(study.model, spatial_dims=3, in_channels=1, out_channels=3, patch=(8, 8, 8))
    folder.mkdir(parents=True, exist_ok=True)
    save_file(network.state_dict(), folder / AVERAGED)
    (folder / DONE).write_text(f"{file_hash(folder / AVERAGED)}  {AVERAGED}\n")
    recipe = Recipe("tiny", study, study, [], Preparation(3, 1), "zscore", None, "float32")
    return Network(recipe, folder, "cpu", weights)


def small_cases(folder: Path, count: int) -> list[Case]:
    """Cases of 8 x 9 x 10 voxels, each of its own."""
    cases = []
    for number in range(count):
        path = folder / f"case{number:02d}.nii.gz"
        values = generator(7, "case", number).integers(0, 900, (1, 8, 9, 10), "int16")
        write_nifti(path, values, Geometry((10, 9, 8), (1.0, 1.0 + number / 10, 2.0)))
        cases.append(Case(path.name[:6], f"s{number}", "", ((path,),)))
    return cases


def masks(folder: Path) -> dict[str, str]:
    """Hash of every mask of a folder; names with a dot are of what is being written."""
    return {path.name: file_hash(path) for path in sorted(folder.glob("[!.]*.nii.gz"))}


def damage(path: Path) -> None:
    """Other bytes under the same size and time of change."""
    before = path.stat()
    path.write_bytes(np.random.default_rng(0).bytes(before.st_size))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

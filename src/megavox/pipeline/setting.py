"""The setting that a run predicts with: the exact one, or the faster one where the study asks and it agrees."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from megavox.core.errors import WorkspaceError
from megavox.core.files import file_hash, plain, read_json, write_json
from megavox.core.progress import say, track
from megavox.inference.agreement import Agreement, agreement
from megavox.inference.predictor import Predictor
from megavox.inference.recipe import Recipe
from megavox.pipeline.project import Project
from megavox.training.checkpoint import AVERAGED


def setting(project: Project, recipe: Recipe, checkpoint: Path, device: torch.device) -> Recipe:
    """The recipe to predict with.

    Whether the faster setting agrees is measured once for weights and settings, and kept in the run's folder.

    Args:
        project: with its store, whose validation cases are predicted in both settings.
        recipe: of the run, in the exact setting, with the study's wishes for inference.
        checkpoint: folder of the weights.
        device: where to compute.
    """
    if recipe.study.inference.fast is None:
        return recipe
    fast = recipe.fast()
    about = plain({"weights": file_hash(checkpoint / AVERAGED), "device": device.type, "precision": recipe.precision,
                   "inference": recipe.study.inference.model_dump()})
    path = project.run.agreement
    if path.exists() and (kept := read_json(path))["about"] == about:
        found = Agreement(**kept["agreement"])
    else:
        try:
            images = _validation_images(project)
        except WorkspaceError as error:
            say(f"note: inference.fast is not used: the validation cases cannot be read ({error.found})")
            return recipe
        found = agreement(Predictor(recipe, checkpoint, device), Predictor(fast, checkpoint, device), images)
        write_json(path, {"about": about, "agreement": asdict(found), "enough": found.enough})
    say(f"note: inference.fast {'is used' if found.enough else 'is not used'}: {found.sentence()}")
    return fast if found.enough else recipe


def agreement_of(project: Project) -> dict[str, Any] | None:
    """What `setting` found last for a study that asks for a faster setting: `agreement` and whether it is `enough`."""
    asked = project.study.inference.fast is not None and project.run.agreement.exists()
    return read_json(project.run.agreement) if asked else None


def _validation_images(project: Project) -> Iterator[np.ndarray]:
    store, entries = project.store(), [entry for entry in project.entries() if entry.part == "validation"]

    def images() -> Iterator[np.ndarray]:
        for entry in track(entries, "comparing settings", total=len(entries)):
            reader = store.reader(entry.key, entry.case.name)
            shape = reader.record.shape[1:]
            yield reader.image((0,) * len(shape), shape)

    return images()

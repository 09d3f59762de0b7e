"""The setting that a run predicts with: the exact one, or the faster one where the study asks and it agrees."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from megavox.core.errors import MachineError, StoreError, WorkspaceError
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
    fast, path = recipe.fast(), project.run.agreement
    about = plain({"weights": file_hash(checkpoint / AVERAGED), "device": device.type, "precision": recipe.precision,
                   "inference": recipe.study.inference.model_dump()})
    found = _found_before(path, about)
    if found is None:
        path.unlink(missing_ok=True)
        try:
            exact, faster = (Predictor(one, checkpoint, device) for one in (recipe, fast))
            if exact.recipe == faster.recipe:
                say("note: inference.fast is not used: on this machine it is what the exact setting is")
                return recipe
            found = agreement(exact, faster, _validation_images(project))
            write_json(path, {"about": about, "agreement": asdict(found), "enough": found.enough})
        except (WorkspaceError, StoreError, MachineError) as error:
            say(f"note: inference.fast is not used, since it cannot be compared with the exact setting: {error}")
            return recipe
    say(f"note: inference.fast {'is used' if found.enough else 'is not used'}: {found.sentence()}")
    return fast if found.enough else recipe


def _found_before(path: Path, about: dict[str, Any]) -> Agreement | None:
    try:
        kept = read_json(path)
        return Agreement(**kept["agreement"]) if kept["about"] == about else None
    except (WorkspaceError, KeyError, TypeError):
        return None


def _validation_images(project: Project) -> Iterator[np.ndarray]:
    store, entries = project.store(), [entry for entry in project.entries() if entry.part == "validation"]

    def images() -> Iterator[np.ndarray]:
        for entry in track(entries, "comparing settings", total=len(entries)):
            reader = store.reader(entry.key, entry.case.name)
            shape = reader.record.shape[1:]
            yield reader.image((0,) * len(shape), shape)

    return images()

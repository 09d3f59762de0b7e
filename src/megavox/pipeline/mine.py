"""mine: where a trained run detects in its training cases what is not there, for a second run to learn from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from megavox.core.errors import StudyError
from megavox.core.files import write_json
from megavox.core.progress import track
from megavox.inference.recipe import Recipe
from megavox.memory.rules import Derived
from megavox.pipeline.project import Project, packing_hash
from megavox.pipeline.workshop import Workshop
from megavox.training.best import best_checkpoint
from megavox.training.checkpoint import load_weights
from megavox.training.parallel import ranks


@dataclass(frozen=True)
class Mined:
    """What was found.

    Attributes:
        cases: training cases that were looked at.
        places: false positives in all of them.
        path: of the file.
    """

    cases: int
    places: int
    path: Path


def mine(project: Project) -> Mined:
    """Write down the false positives of a run's best weights on its training cases, in the run's folder.

    Raises:
        StudyError: the task is not to detect.
        CheckpointError, WorkspaceError: the run was not trained, or on other cases.
    """
    if project.study.task.kind != "detect":
        raise StudyError("only detections have false positives to learn from", where="task.kind", expected="detect")
    checkpoint = best_checkpoint(project.run)
    recipe = Recipe.read(project.run.recipe)
    project.refuse_other_split(recipe)
    workshop = Workshop(project, recipe.study, [Derived(**one) for one in recipe.derived])
    with ranks(str(recipe.study.training.device)) as here:
        network = workshop.network(here.device)
        load_weights(checkpoint, network)
        found = dict(track(workshop.false_positives(network, here.device), "mining", len(workshop.part("train"))))
    write_json(project.run.hard, {"store": packing_hash(project), "places": found})
    return Mined(len(found), sum(map(len, found.values())), project.run.hard)

"""mine: where a trained run detects in its training cases what is not there, for a second run to learn from."""

from __future__ import annotations

import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from megavox.core.errors import StudyError, WorkspaceError
from megavox.core.files import file_hash, make_folder, read_json, write_json
from megavox.core.progress import track
from megavox.core.signals import Stop
from megavox.inference.recipe import Recipe
from megavox.memory.rules import Derived
from megavox.pipeline.project import Project, packing_hash
from megavox.pipeline.workshop import Workshop
from megavox.training.best import AVERAGED, best_checkpoint
from megavox.training.checkpoint import load_weights
from megavox.training.parallel import ranks

WITH = "with.json"  # which weights, and how the cases were packed


@dataclass(frozen=True)
class Mined:
    """What was found.

    Attributes:
        cases: training cases that were looked at.
        places: false positives in all of them.
        path: of the folder with a file for each.
    """

    cases: int
    places: int
    path: Path


def mine(project: Project) -> Mined:
    """Write down the false positives of a run's best weights on its training cases, in the run's folder.

    Raises:
        StudyError: the task is not to detect.
        CheckpointError, WorkspaceError: the run was not trained, or on other cases.
        Stopped: a signal asked to stop; the same command goes on.
    """
    if project.study.task.kind != "detect":
        raise StudyError("only detections have false positives to learn from", where="task.kind", expected="detect")
    checkpoint, folder = best_checkpoint(project.run), project.run.hard
    recipe = Recipe.read(project.run.recipe)
    project.refuse_other_split(recipe)
    workshop = Workshop(project, recipe.study, [Derived(**one) for one in recipe.derived])
    _begin(folder, {"store": packing_hash(project), "weights": file_hash(checkpoint / AVERAGED)})
    entries = workshop.part("train")
    left = [entry for entry in entries if not (folder / f"{entry.key}.json").exists()]
    with ranks(str(recipe.study.training.device)) as here, Stop("stopping after this case") as stop:
        network = workshop.network(here.device)
        load_weights(checkpoint, network)
        for key, places in track(workshop.false_positives(network, here.device, left), "mining", len(left)):
            write_json(folder / f"{key}.json", places)
            stop.check()
    write_json(project.run.mined, read_json(folder / WITH))
    places = [read_json(folder / f"{entry.key}.json") for entry in entries]
    return Mined(len(entries), sum(map(len, places)), folder)


def _begin(folder: Path, found_with: dict[str, str]) -> None:
    """What other weights found, or in cases packed otherwise, goes; what these found before a stop stays."""
    with suppress(WorkspaceError):
        if read_json(folder / WITH) == found_with:
            return
    shutil.rmtree(folder, ignore_errors=True)
    make_folder(folder, "Look who may write there")
    write_json(folder / WITH, found_with)

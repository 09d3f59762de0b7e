"""predict: a run and any folder of images -> masks or probabilities, on the images' own grids."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from megavox.core.errors import CohortError, WorkspaceError
from megavox.core.files import file_hash, plain, text_hash
from megavox.inference.cohort import CohortOutcome, cases_in, predict_cases
from megavox.inference.predictor import Predictor
from megavox.inference.recipe import Recipe
from megavox.pipeline.project import Project
from megavox.training.checkpoint import AVERAGED, best_checkpoint
from megavox.training.parallel import choose_device


def predictor_of(project: Project) -> tuple[Predictor, str]:
    """The run's network with its best weights, and a hash that identifies them and how they are used.

    Raises:
        CheckpointError, WorkspaceError: the run was not trained, or for another task.
    """
    checkpoint = best_checkpoint(project.run)
    recipe = Recipe.read(project.run.recipe)
    if recipe.study.task.names != project.study.task.names:
        raise WorkspaceError(f"the run was trained for the classes {recipe.study.task.names}", where=project.run.root,
                             expected=f"those of the study, {project.study.task.names}",
                             fix="Take the study that the run was trained with, or train again under another "
                                 "--run-name")
    recipe = replace(recipe, study=recipe.study.model_copy(update={"inference": project.study.inference}))
    device = choose_device(str(project.study.training.device))
    how = json.dumps(plain([recipe.calibration, recipe.patch, project.study.inference.model_dump()]))
    return Predictor(recipe, checkpoint, device), text_hash(file_hash(checkpoint / AVERAGED) + how)


def predict(project: Project, source: Path | None = None, output: Path | None = None) -> CohortOutcome:
    """Predict every image under `source`, or the study's own test cases.

    Args:
        project: with a trained run.
        source: a folder of NIfTI, raster or DICOM files, in any depth.
        output: where to write; the workspace's predictions folder without it.

    Raises:
        WorkspaceError: the output would lie among the images. CohortError: nothing to predict.
    """
    predictor, weights = predictor_of(project)
    if source is None:
        cases = [entry.case for entry in project.entries() if entry.part == "test"]
        return predict_cases(predictor, cases, output or project.workspace.predictions(project.run_name), weights)
    folder = output or project.workspace.predictions(project.run_name) / source.resolve().name
    if folder.resolve() == source.resolve() or folder.resolve() in source.resolve().parents:
        raise WorkspaceError("the predictions would lie among the images and could overwrite them", where=folder,
                             fix="Choose another --output")
    cases, rejected = cases_in(source, predictor.recipe.preparation.channels)
    cases = [case for case in cases if folder.resolve() not in case.images[0][0].resolve().parents]
    if not cases:
        raise CohortError(f"no image that can be used was found ({len(rejected)} files were not usable"
                          + (f"; the first: {rejected[0].message})" if rejected else ")"), where=source)
    return predict_cases(predictor, cases, folder, weights, rejected)

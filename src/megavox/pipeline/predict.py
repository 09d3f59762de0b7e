"""predict: a run and any folder of images -> masks or probabilities, on the images' own grids."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import chain
from pathlib import Path

from megavox.cohort.layouts.listing import need_given_folder
from megavox.core.errors import CohortError, WorkspaceError
from megavox.core.files import file_hash, plain, text_hash
from megavox.core.progress import say
from megavox.inference.cohort import CohortOutcome, cases_in, predict_cases
from megavox.inference.predictor import Predictor
from megavox.inference.recipe import Recipe
from megavox.pipeline.project import Project, training_settings
from megavox.pipeline.setting import setting
from megavox.study.compare import differences
from megavox.training.checkpoint import AVERAGED, best_checkpoint
from megavox.training.parallel import choose_device


def weights_hash(project: Project) -> str:
    """Identifies the run's best weights and how they are used: other ones give other predictions."""
    recipe = Recipe.read(project.run.recipe)
    how = json.dumps(plain([recipe.calibration, recipe.patch, project.study.inference.model_dump()]))
    return text_hash(file_hash(best_checkpoint(project.run) / AVERAGED) + how)


def predictor_of(project: Project) -> Predictor:
    """The run's network with its best weights.

    Raises:
        CheckpointError, WorkspaceError: the run was not trained, or for another task.
    """
    checkpoint = best_checkpoint(project.run)
    if not project.run.done.exists():
        say(f"note: the training of {project.run_name} has not ended; its best weights so far are used")
    recipe = Recipe.read(project.run.recipe)
    if recipe.study.task.names != project.study.task.names:
        raise WorkspaceError(f"the run was trained for the classes {recipe.study.task.names}", where=project.run.root,
                             expected=f"those of the study, {project.study.task.names}",
                             fix="Take the study that the run was trained with, or train again under another "
                                 "--run-name")
    changed = differences(training_settings(recipe.asked), training_settings(project.study))
    if changed:
        say(f"note: {project.run_name} was trained with other settings, and predicts with those: {changed}")
    recipe = replace(recipe, study=recipe.study.model_copy(update={"inference": project.study.inference}))
    device = choose_device(str(project.study.training.device))
    return Predictor(setting(project, recipe.on(device.type), checkpoint, device), checkpoint, device)


def predict(project: Project, source: Path | None = None, output: Path | None = None) -> CohortOutcome:
    """Predict every image under `source`, or the study's own test cases.

    Args:
        project: with a trained run.
        source: a folder of NIfTI, raster or DICOM files, in any depth.
        output: where to write; the workspace's predictions folder without it.

    Raises:
        WorkspaceError: the output would lie among the images. CohortError: no such folder, or nothing to predict.
    """
    if source is not None:
        need_given_folder(source)
    predictor, weights = predictor_of(project), weights_hash(project)
    if source is None:
        cases = [entry.case for entry in project.entries() if entry.part == "test"]
        place = (output or project.workspace.predictions(project.run_name)).resolve()
        if any(place in path.resolve().parents for case in cases for path in (*chain(*case.images), *case.masks)):
            raise WorkspaceError("the predictions would lie among the images and could overwrite them", where=place,
                                 fix="Choose another --output")
        return _some(predict_cases(predictor, cases, output or project.workspace.predictions(project.run_name),
                                   weights))
    folder = output or project.workspace.predictions(project.run_name) / source.resolve().name
    if folder.resolve() == source.resolve() or folder.resolve() in source.resolve().parents:
        raise WorkspaceError("the predictions would lie among the images and could overwrite them", where=folder,
                             fix="Choose another --output")
    cases, rejected = cases_in(source, predictor.recipe.preparation.channels)
    cases = [case for case in cases if folder.resolve() not in case.images[0][0].resolve().parents]
    if not cases:
        raise CohortError(f"no image that can be used was found ({len(rejected)} files were not usable"
                          + (f"; the first: {rejected[0].message})" if rejected else ")"), where=source)
    return _some(predict_cases(predictor, cases, folder, weights, rejected))


def _some(outcome: CohortOutcome) -> CohortOutcome:
    if not outcome.rows:
        first = f"; the first: {outcome.rejected[0].message}" if outcome.rejected else ""
        raise CohortError(f"none of {len(outcome.rejected)} cases could be predicted{first}", where=outcome.folder,
                          fix="Read the reasons in quarantine.csv there")
    return outcome

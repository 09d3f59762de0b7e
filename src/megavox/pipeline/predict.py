"""predict: a run and any folder of images -> masks or probabilities, on the images' own grids."""

from __future__ import annotations

import gc
import json
import sys
from dataclasses import replace
from itertools import chain
from pathlib import Path

from megavox.cohort.case import Rejected
from megavox.cohort.layouts.listing import need_given_folder, stem
from megavox.core.errors import CohortError, WorkspaceError
from megavox.core.files import file_hash, plain, text_hash
from megavox.core.progress import say
from megavox.inference.cohort import CohortOutcome, cases_in, predict_cases, read_outcome
from megavox.inference.recipe import Network, Recipe
from megavox.pipeline.project import Project, training_settings
from megavox.study.compare import differences
from megavox.training.best import AVERAGED, best_checkpoint, check_file


def weights_hash(project: Project) -> str:
    """Identifies the run's best weights and how they are used: other ones give other predictions."""
    recipe = Recipe.read(project.run.recipe)
    agreed = project.agreement()
    how = json.dumps(plain([recipe.calibration, recipe.patch, project.study.inference.model_dump(),
                            agreed is not None and agreed["enough"]]))
    return text_hash(file_hash(best_checkpoint(project.run) / AVERAGED) + how)


def network_of(project: Project) -> Network:
    """The run's network with its best weights; they are not loaded here.

    Raises:
        CheckpointError, WorkspaceError: the run was not trained, or for another task.
    """
    checkpoint = best_checkpoint(project.run)
    check_file(checkpoint / AVERAGED)  # workers may have no need of them: they read the network as it was converted
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
        say(f"note: {project.run_name} was trained with other settings, which it keeps: {changed}")
    recipe = replace(recipe, study=recipe.study.model_copy(update={"inference": project.study.inference}))
    wish = str(project.study.training.device)
    if recipe.study.inference.fast is not None:  # only this needs PyTorch here and not in the workers alone
        from megavox.pipeline.setting import setting
        from megavox.training.parallel import choose_device

        device = choose_device(wish)
        recipe = setting(project, recipe.on(device.type), checkpoint, device)
    return Network(recipe, checkpoint, wish, weights_hash(project))


def refuse_early(project: Project, source: Path | None) -> None:
    """What a prediction would refuse at its start, before it waits in a queue for that.

    Raises:
        CheckpointError, CohortError: as `predict`.
    """
    best_checkpoint(project.run)
    if source is not None and not source.is_file():
        need_given_folder(source)


def predict(project: Project, source: Path | None = None, output: Path | None = None,
            workers: int | None = None) -> CohortOutcome:
    """Predict every image under `source`, or the study's own test cases.

    Args:
        project: with a trained run.
        source: a folder of NIfTI, raster or DICOM files, in any depth, or one file.
        output: where to write; the workspace's predictions folder without it.
        workers: processes; None for as many as cores and memory allow.

    Raises:
        WorkspaceError: the output would lie among the images. CohortError: no such folder, or nothing to predict.
        Stopped: a signal asked to stop; the same command goes on.
    """
    source = None if source is None else source.absolute()  # records name the files
    if source is not None and not source.is_file():
        need_given_folder(source)
    network = network_of(project)
    _free_device()
    folder = _folder(project, source, output)
    if source is None:
        cases, rejected = [entry.case for entry in project.entries() if entry.part == "test"], list[Rejected]()
        place = folder.resolve()
        if any(place in path.resolve().parents for case in cases for path in (*chain(*case.images), *case.masks)):
            raise _among_images(folder)
    else:
        if folder.resolve() == source.resolve() or folder.resolve() in source.resolve().parents:
            raise _among_images(folder)
        cases, rejected = cases_in(source, network.recipe.preparation.channels, folder)
        if not cases:
            raise CohortError(f"no image that can be used was found ({len(rejected)} files were not usable"
                              + (f"; the first: {rejected[0].message})" if rejected else ")"), where=source)
    return _some(predict_cases(network, cases, folder, rejected, workers))


def predicted(project: Project, source: Path | None = None, output: Path | None = None) -> CohortOutcome:
    """What `predict` with these arguments has left, by its tables: of commands that shared the cases none knows all.

    Raises:
        WorkspaceError: it has not ended.
    """
    return read_outcome(_folder(project, source, output))


def _folder(project: Project, source: Path | None, output: Path | None) -> Path:
    """Where predictions go."""
    mine = project.workspace.predictions(project.run_name)
    if source is None:
        return output or mine
    return output or mine / (stem(source.name) if source.is_file() else source.resolve().name)


def _free_device() -> None:
    """Give back the memory of a GPU that training in this process kept: prediction runs in others."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        gc.collect()
        torch.cuda.empty_cache()


def _among_images(folder: Path) -> WorkspaceError:
    return WorkspaceError("the predictions would lie among the images and could overwrite them", where=folder,
                          fix="Choose another --output")


def _some(outcome: CohortOutcome) -> CohortOutcome:
    if not outcome.rows and not outcome.elsewhere:
        first = f"; the first: {outcome.rejected[0].message.rstrip('.')}" if outcome.rejected else ""
        raise CohortError(f"none of {len(outcome.rejected)} cases could be predicted{first}", where=outcome.folder,
                          fix="Read the reasons in quarantine.csv there")
    return outcome

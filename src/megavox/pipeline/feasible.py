"""Which settings can be trained, told before a job is sent: those whose network can be, and that have enough memory."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress

from megavox.batches.loader import refuse_uneven
from megavox.cohort.survey import Fingerprint
from megavox.core.errors import StudyError, TrainingError
from megavox.core.progress import say
from megavox.jobs.section import Asked
from megavox.memory.estimate import Kept, kept, training_gb
from megavox.memory.machine import this_machine
from megavox.memory.planner import can_fit
from megavox.memory.rules import apply, derive
from megavox.models.registry import build_model
from megavox.pipeline.project import Project
from megavox.search.described import with_setting
from megavox.search.space import Setting
from megavox.study import AUTO, Study
from megavox.tasks.registry import Task, build_task


def can_be_trained(project: Project, asked: Asked, most_gb: float | None) -> Callable[[Setting], bool]:
    """Tells whether a setting makes a training that can be, and has enough memory, as far as both can be told.

    What a site's GPUs have is not known here: a trial that needs more fails there, and teaches.

    Args:
        project: packed.
        asked: what a trial's job asks for.
        most_gb: main memory of a node; None where that is not what limits a training.

    Raises:
        StudyError: so many ranks cannot share samples as the study has it.
    """
    project.study.training.ranks.groups(asked.ranks)
    facts, machine = Fingerprint.from_dict(project.packing()["fingerprint"]), this_machine()
    task, channels = build_task(project.study.task, []), int(project.packing()["preparation"]["channels"])
    each_gb = math.inf if most_gb is None else most_gb * asked.nodes / asked.ranks
    counted: dict[str, Kept | None] = {}
    found: dict[str, bool] = {}

    def fits(setting: Setting) -> bool:
        try:
            study = with_setting(project.study, setting)
            refuse_uneven_batch(study, asked.ranks)
            study = apply(study, derive(study, facts, machine))
            batch, accumulate = int(study.batches.size), study.training.accumulate
            key = f"{study.model.model_dump_json()} {study.batches.patch}"
            if key not in counted:
                counted[key] = _counted(study, task, channels)
        except (StudyError, TrainingError):  # these values do not go together
            return False
        step = counted[key]
        each = batch // study.training.ranks.groups(asked.ranks) // accumulate
        if step is None or training_gb(step, each, study.training) <= each_gb:
            return True
        if study.training.memory.compute == "plain":
            return False
        otherwise = f"{key} {batch} {accumulate} {study.training.optimiser.name}"
        if otherwise not in found:  # it takes seconds to tell
            found[otherwise] = can_fit(study, task, channels, asked.ranks, each_gb)
        return found[otherwise]

    return fits


def refuse_uneven_batch(study: Study, ranks: int) -> None:
    """Refuse a global batch that cannot be dealt evenly, where the study says how large it is; what a job's own
    machine makes of it is not known before.

    Raises:
        TrainingError: it cannot.
        StudyError: so many ranks cannot share samples.
    """
    groups = study.training.ranks.groups(ranks)
    if study.batches.size != AUTO and study.training.scale == 1:
        refuse_uneven(int(study.batches.size), groups, study.training.accumulate)


def _counted(study: Study, task: Task, channels: int) -> Kept | None:
    """What a step keeps; None where it cannot be told without making one.

    Raises:
        StudyError: there is no such network.
    """
    patch, model = [int(side) for side in study.batches.patch], study.model
    if getattr(model, "weights", None) is not None:
        model = model.model_copy(update={"weights": None})
    with suppress(Exception):  # of a network that looks at its numbers, too
        return kept(model, task, patch, channels)
    try:
        build_model(model, spatial_dims=len(patch), in_channels=channels, out_channels=task.outputs, patch=patch)
    except StudyError:
        raise
    except Exception as error:
        say(f"note: of such a network the memory cannot be told ({type(error).__name__})")
    return None

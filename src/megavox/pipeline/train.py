"""train: a packed cohort -> a run with its best weights, calibrated on the validation cases."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace

from megavox.core.claims import Claims
from megavox.core.errors import MachineError, WorkspaceError
from megavox.core.exhausted import out_of_memory
from megavox.core.files import make_folder, write_json, write_text
from megavox.core.progress import busy, say
from megavox.core.signals import Stop
from megavox.inference.recipe import Recipe
from megavox.memory.pace import pace
from megavox.memory.probe import probe, steps_in
from megavox.memory.rules import Derived
from megavox.pipeline.attempts import another_way, came_out, fitted
from megavox.pipeline.augment_on import place_augmentation
from megavox.pipeline.feasible import refuse_uneven_batch
from megavox.pipeline.fit import FITTED, Fit, as_asked, limit_gb
from megavox.pipeline.plan import Plan, derived_plan, scaled
from megavox.pipeline.project import Project, training_settings
from megavox.pipeline.workshop import Workshop
from megavox.study import AUTO, Study, show_study
from megavox.study.compare import differences
from megavox.study.duration import duration_text
from megavox.training.best import best_checkpoint
from megavox.training.checkpoint import Progress, complete_checkpoints, load_weights
from megavox.training.loop import train as run_loop
from megavox.training.parallel import Ranks, ranks

VALIDATION_SHARE = 0.1  # of a budget is spent on validations, at the most, but one there is
STOPPING = "stopping after this step: a checkpoint is written, and the same command goes on"
PROBE_SHARE = 0.02  # of the budget is spent on measuring the rate
OTHERS_S = 10.0  # that a command may take to end which trained the run before
PACE_S = 5.0  # at the most, for measuring what communication costs
FEW = 100  # steps, below which a note says so


@dataclass(frozen=True)
class Trained:
    """What a training gave.

    Attributes:
        progress: steps, best validation metric.
        metric: its name.
        study: with the steps that were fixed.
    """

    progress: Progress
    metric: str
    study: Study


def train(project: Project) -> Trained:
    """Train the project's run, or go on with it where it was stopped.

    Raises:
        WorkspaceError: not packed, or the run's folder belongs to another study.
        TrainingError, Stopped: see `training.loop.train`.
    """
    begin = time.perf_counter()
    found = _plan_of_run(project)
    with Stop(STOPPING) as stop, ranks(str(found.study.training.device)) as here, _alone(project, here):
        fit: Fit | None = None
        while True:
            found, fit = _made_to_fit(project, here, fit)
            try:
                return _train(project, found, fit, here, stop, begin)
            except MachineError as error:
                if fit is None or stop.asked or not out_of_memory(error):
                    raise
                lack = error.with_traceback(None)
                lack.__cause__ = lack.__context__ = None  # which would hold on to what took the memory
            fit = another_way(project, found.study, here, fit, lack)
            if fit is None or here.count > 1:
                raise lack  # of several ranks, the others cannot be told: the same command goes on


def _made_to_fit(project: Project, here: Ranks, fit: Fit | None) -> tuple[Plan, Fit | None]:
    """The study with every value derived, and how it is made to fit the memory: as is given, or else as is found."""
    found = _plan_of_run(project)
    found = found.with_more(scaled(found.study, here))
    fit = fit or fitted(project, found.study, here)
    found = found.with_more(fit.derived(found.study) if fit else [])
    return found.with_more(place_augmentation(project, found.study, here)), fit


def _train(project: Project, found: Plan, fit: Fit | None, here: Ranks, stop: Stop, begin: float) -> Trained:
    folder, study = project.run, found.study
    most_gb = min(fit.limit_gb, limit_gb(study, here.device)) if fit and here.device.type == "cpu" else math.inf
    workshop = Workshop(project, study, found.derived, most_gb)
    if here.count > 1 and study.training.ranks.split == 1 and not complete_checkpoints(folder):
        _measure_pace(workshop, here, stop)
    if study.training.steps == AUTO:
        study = here.from_first(_with_steps(workshop, here, begin))
        workshop = Workshop(project, study, found.derived, most_gb)
    if here.first and here.device.type == "cpu" and study.training.precision == "bfloat16":
        say("warning: most CPUs are many times slower in bfloat16; `training.precision: float32` is the default")
    if here.first and not folder.done.exists():  # a finished run keeps its calibration
        folder.checkpoints.mkdir(parents=True, exist_ok=True)
        workshop.recipe().write(folder.recipe)
        write_text(folder.study, show_study(study))
    here.barrier()
    progress = run_loop(workshop.training(here), folder, here, stop)
    if here.first and not folder.done.exists():
        if fit:
            came_out(project, here, fit)
        _calibrate(workshop, project, here)
        folder.done.touch()
    return Trained(progress, workshop.task.headline, study)


def refuse_early(project: Project, ranks: int) -> None:
    """What a training would refuse at its start, before it waits in a queue for that.

    Raises:
        WorkspaceError, TrainingError: as `train`.
    """
    _plan_of_run(project)
    refuse_uneven_batch(project.study, ranks)


@contextmanager
def _alone(project: Project, here: Ranks) -> Iterator[None]:
    """No other command trains the run meanwhile; the first rank sees to it."""
    if not here.first:
        yield
        return
    make_folder(project.run.root, "Choose another --workspace")
    with Claims(project.run.locks) as claims:
        begin = time.monotonic()
        while not claims.take("train"):
            if time.monotonic() - begin > OTHERS_S:
                raise WorkspaceError("another command is training this run", where=project.run.root,
                                     fix="Let it end, or take another --run-name")
            time.sleep(1)
        yield


def _plan_of_run(project: Project) -> Plan:
    """The study with every value derived; the run's own where it was begun before."""
    if not project.run.recipe.exists():
        if complete_checkpoints(project.run):
            raise WorkspaceError("this run has checkpoints, but the file that says how it was begun is gone",
                                 where=project.run.recipe,
                                 fix="Take another --run-name, or remove the run's folder and train again")
        return derived_plan(project)
    recipe = Recipe.read(project.run.recipe)
    changed = differences(training_settings(recipe.asked), training_settings(project.study))
    if changed:
        raise WorkspaceError(f"this run was begun with other settings: {changed}", where=project.run.root,
                             fix="Take another --run-name, or bring these settings back, or remove that folder")
    project.refuse_other_split(recipe)
    return Plan(as_asked(project, recipe.study), [Derived(**one) for one in recipe.derived if one["key"] not in FITTED])


def _measure_pace(workshop: Workshop, here: Ranks, stop: Stop) -> None:
    """Say, and keep in the run's folder, what the ranks cost and gain."""
    budget = workshop.study.training.budget or math.inf
    found = pace(workshop.training(here), here, min(PACE_S, PROBE_SHARE * budget), lambda: stop.asked)
    if here.first:
        say(found.sentence())
        write_json(workshop.project.run.pace, asdict(found))


def _with_steps(workshop: Workshop, here: Ranks, begin: float) -> Study:
    """The study with the number of steps that fit its budget, from a measured rate."""
    study = workshop.study
    budget = study.training.budget
    assert budget is not None, "the rules give steps or a budget"
    training = workshop.training(here)
    few = workshop.part("validation")[:max(3, here.count)]
    with busy("measuring the rate"):
        rate = probe(training, here, PROBE_SHARE * budget)
        clock = time.perf_counter()
        workshop.validation(here, few)(training.network)
        each = (time.perf_counter() - clock) / len(few)
    validation = here.mean(each) * len(workshop.part("validation"))
    looks = int(min(max(VALIDATION_SHARE * budget / validation, 1), study.training.validations))
    steps = steps_in(budget, time.perf_counter() - begin, rate.step_s, validation, looks)
    if here.first:
        most = steps_in(budget, time.perf_counter() - begin, rate.step_s, validation, looks, least=0)
        fit = "steps fit" if steps == most else "steps, the least there can be, take longer than"
        say(f"{steps} {fit} {duration_text(budget)}: {rate.step_s:.3f} s a step, {validation:.1f} s a validation")
        if steps < FEW:
            say(f"note: in {steps} steps a network learns little; a larger training.budget, or a faster or less busy "
                "machine, gives more")
    section = study.training.model_copy(update={"steps": steps, "budget": None, "validations": looks})
    return study.model_copy(update={"training": section})


def _calibrate(workshop: Workshop, project: Project, here: Ranks) -> None:
    """Fit temperature and thresholds of a classifier, or the score from which a candidate is called, on the validation
    cases, with the best weights."""
    if workshop.task.kind == "segment":
        return
    alone = replace(here, rank=0, count=1)
    network = workshop.network(here.device)
    load_weights(best_checkpoint(project.run), network)
    rows = workshop.validation(alone, mirror=True)(network)
    recipe = replace(workshop.recipe(), calibration=workshop.task.calibrate(rows))  # type: ignore[attr-defined]
    recipe.write(project.run.recipe)

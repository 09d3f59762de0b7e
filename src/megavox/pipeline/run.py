"""run: all stages in order; and demo: all stages on a phantom cohort."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from megavox.core.files import write_text
from megavox.core.progress import say
from megavox.phantoms.organs import write_segment_cohort
from megavox.pipeline.evaluate import Evaluated, evaluate
from megavox.pipeline.measure import measure
from megavox.pipeline.new import new
from megavox.pipeline.pack import Packed, pack
from megavox.pipeline.plan import Plan, plan
from megavox.pipeline.project import Project
from megavox.pipeline.report import report
from megavox.pipeline.train import train
from megavox.study import load_study

DEMO_CASES = 40
DEMO_SETTINGS = ("training.budget=75s", "training.validations=5", "inference.mirror=false")


def run(project: Project, tell: Callable[[str, Any], None] = lambda stage, result: None) -> Evaluated:
    """Pack, plan, train, evaluate, predict, measure, report; what is done already is kept.

    Args:
        project: what to run.
        tell: called after each stage with its name and result, for printing.
    """
    packed: Packed = pack(project)
    tell("pack", packed)
    planned: Plan = plan(project)
    tell("plan", planned)
    tell("train", train(project))
    found = evaluate(project)
    tell("predict", found.predicted)
    if project.study.task.kind == "segment":
        tell("measure", measure(project))
    tell("report", report(project))
    tell("evaluate", found)
    return found


def demo_project(folder: Path, changes: tuple[str, ...] = ()) -> Project:
    """A phantom cohort in `folder/images` and a study for it, as `megavox new` writes it.

    Args:
        folder: made if need be.
        changes: further `key.path=value` changes.
    """
    images, study = folder / "phantoms", folder / "study.yaml"
    if not study.exists():
        say(f"drawing {DEMO_CASES} phantoms, and five broken ones, under {images}")
        write_segment_cohort(images, DEMO_CASES, seed=0, dirty=True)
        write_text(study, new(images).text)
    return Project.at(load_study(study, [*DEMO_SETTINGS, *changes]), folder / "workspace", "demo")

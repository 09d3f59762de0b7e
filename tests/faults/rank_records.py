"""Trains with cross-entropy alone and writes down what each rank saw; runs alone, or as a rank under torchrun.

    python rank_records.py STUDY WORKSPACE RUN FOLDER [SECONDS]

With SECONDS, a rank that does not answer for so long is given up, and the first validates, and saves before it
goes on with a run, for longer than that.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from megavox.batches.samples import Sample, Samples
from megavox.core.processes import leave
from megavox.core.signals import Stop
from megavox.pipeline.plan import derived_plan
from megavox.pipeline.project import Project
from megavox.pipeline.workshop import Workshop
from megavox.study import load_study
from megavox.tasks.registry import Task
from megavox.training import loop, parallel
from megavox.training.checkpoint import latest_checkpoint
from megavox.training.parallel import ranks


class Noting(Samples):
    """Samples that are noted when they are made: step, position, case, hash of image and target."""

    notes: list[tuple[int, int, str, str]]

    @classmethod
    def of(cls, samples: Samples) -> Noting:
        noting = cls(samples.readers, samples.numbers, patch=samples.patch, batch=samples.batch,
                     section=samples.section, seed=samples.seed)
        noting.notes = []
        return noting

    def sample(self, step: int, position: int) -> Sample:
        made = super().sample(step, position)
        digest = hashlib.sha256(made.image.tobytes() + made.target.tobytes()).hexdigest()
        self.notes.append((step, position, self.readers[made.case].name, digest))
        return made


class CrossEntropy:
    """The mean over voxels, which is the mean of the means of equal shares of a batch; Dice is not."""

    headline = "dice"

    def __init__(self, task: Task) -> None:
        self.score = task.score

    def loss(self, output: Any, target: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(output, target.long())


def slow(call: Callable[..., Any], seconds: float) -> Callable[..., Any]:
    """The same call, later."""
    def later(*args: Any) -> Any:
        time.sleep(seconds)
        return call(*args)

    return later


def record(project: Project, folder: Path, patience_s: float | None = None) -> None:
    """Train, and write `FOLDER/<rank>.json`."""
    if patience_s:
        parallel.TIMEOUT_S = patience_s
    with Stop("stopping") as stop, ranks("cpu") as here:
        workshop = Workshop(project, derived_plan(project).study)
        training = workshop.training(here)
        samples = Noting.of(training.samples)
        training = replace(training, task=CrossEntropy(workshop.task), samples=samples)
        if patience_s and here.first:
            training = replace(training, validate=slow(training.validate, patience_s + 3))
            if latest_checkpoint(project.run):
                loop.save_checkpoint = slow(loop.save_checkpoint, patience_s + 3)
        project.run.checkpoints.mkdir(parents=True, exist_ok=True)
        here.barrier()
        progress = loop.train(training, project.run, here, stop)
    (folder / f"{here.rank}.json").write_text(json.dumps({"samples": samples.notes, "scores": progress.scores}))


if __name__ == "__main__":
    study, workspace, run, output, *patience = sys.argv[1:]
    record(Project.at(load_study(Path(study)), Path(workspace), run), Path(output), *map(float, patience))
    leave(0)

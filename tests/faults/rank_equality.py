"""On each rank: twenty steps of each study in float64; the first rank writes the weights.

    python rank_equality.py WORKSPACE STUDY OUTPUT [STUDY OUTPUT ...]
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from megavox.core.files import write_array
from megavox.core.processes import leave
from megavox.pipeline.plan import derived_plan
from megavox.pipeline.project import Project
from megavox.pipeline.workshop import Workshop
from megavox.study import load_study
from megavox.training.loop import Stepper
from megavox.training.optimiser import MovingAverage, build_optimiser
from megavox.training.parallel import Ranks, ranks

STEPS = 20


class InDouble(torch.nn.Module):
    """A network that computes in float64, whatever it is given."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network.double()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(x.double())


def learn(project: Project, output: Path, here: Ranks, steps: int = STEPS) -> None:
    """Train, and write all weights and statistics as one array."""
    training = Workshop(project, derived_plan(project).study).training(here)
    training = replace(training, network=InDouble(training.network))
    optimiser = build_optimiser(training.network, training.section.optimiser)
    stepper = Stepper(training, here, optimiser, MovingAverage(training.network, 0.0), 0, steps)
    for step in range(steps):
        stepper.step(step)
    stepper.close()
    if here.first:
        values = [v.double().numpy().ravel() for v in training.network.state_dict().values()]
        write_array(output, np.concatenate(values))


if __name__ == "__main__":
    workspace, *pairs = map(Path, sys.argv[1:])
    with ranks("cpu") as here:
        for study, output in zip(pairs[::2], pairs[1::2], strict=True):
            learn(Project.at(load_study(study), workspace), output, here)
    leave(0)

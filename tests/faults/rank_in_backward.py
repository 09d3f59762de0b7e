"""On each of two ranks: steps in the backward pass, with every memory strategy, and in the training loop.

    python rank_in_backward.py WORKSPACE STUDY OUTPUT
"""

from __future__ import annotations

import copy
import sys
from functools import partial
from pathlib import Path

import torch
from rank_equality import learn
from torch import Tensor, nn

from megavox.core.over_ranks import apart
from megavox.core.processes import leave
from megavox.memory.offload import offload
from megavox.memory.recompute import recompute
from megavox.memory.streamed.stream import stream
from megavox.models.unet import UNet
from megavox.pipeline.plan import derived_plan
from megavox.pipeline.project import Project
from megavox.pipeline.workshop import Workshop
from megavox.study import load_study
from megavox.study.training import OptimiserSection, RanksSection, TrainingSection
from megavox.training.in_backward import InBackward
from megavox.training.loop import Stepper
from megavox.training.optimiser import MovingAverage, build_optimiser
from megavox.training.parallel import Ranks, ranks

FEW = 4  # steps of the loop
IMAGE = torch.randn(4, 1, 16, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
STRATEGIES = {"none": lambda _: None, "streamed": partial(stream, slab_bytes=50_000), "recomputed": recompute,
              "offloaded": partial(offload, least_bytes=1000)}


def unet(seed: int, norm: str = "instance") -> nn.Module:
    torch.manual_seed(seed)
    return UNet(3, 1, 2, widths=[4, 8], strides=[(2, 2, 2)], norm=norm).double()  # type: ignore[arg-type]


def section(**settings: object) -> TrainingSection:
    return TrainingSection(optimiser=OptimiserSection(name="sgd", rate=0.1, clip=None),
                           ranks=RanksSection(bucket_mb=0.01, **settings))  # type: ignore[arg-type]


def trained(network: nn.Module, image: Tensor, training: TrainingSection, here: Ranks | None) -> dict[str, Tensor]:
    """The state after three steps; with ranks, in the backward pass."""
    optimiser = build_optimiser(network, training.optimiser)
    within = None
    if here:
        network = here.wrap(network, training.ranks, averaged=False)
        within = InBackward(network, optimiser, training)
    for step in range(3):
        for group in optimiser.param_groups:
            group["lr"] = 0.1 / (1 + step)
        network(image).square().mean().backward()
        if within:
            within.finish()
            assert all(one.grad is None for one in network.parameters())
        optimiser.step()
        optimiser.zero_grad()
    return network.state_dict()


def furthest(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    return max(float((value - other[name]).abs().max()) for name, value in one.items())


def check(here: Ranks) -> None:
    """Weights that begin differently on each rank end as those of one rank with all samples."""
    mine = IMAGE[2 * here.rank:][:2]
    for norm in ("instance", "batch"):
        plain = trained(unet(0, norm), IMAGE, section(), None)
        for name, change in STRATEGIES.items():
            network = unet(here.rank, norm)
            change(network)
            assert furthest(trained(network, mine, section(), here), plain) <= 1e-12, (norm, name)
    assert furthest(unet(0).state_dict(), plain) > 1e-3, "they did learn"
    for other in (section(sync_norm=False), section(gradients="bfloat16")):
        found = trained(unet(here.rank, "batch"), mine, other, here)
        assert furthest(*here.gather([found])) == 0.0
        assert furthest(found, plain) < 0.1


def check_apart(here: Ranks) -> None:
    """A step without a word to the others is that of one's own samples alone."""
    network = unet(0)
    plain, training = copy.deepcopy(network), section()
    alone = trained(plain, IMAGE[2 * here.rank:][:2], training, None)
    with apart():
        assert furthest(trained(network, IMAGE[2 * here.rank:][:2], training, here), alone) == 0.0


if __name__ == "__main__":
    workspace, study, output = map(Path, sys.argv[1:])
    with ranks("cpu") as here:
        check(here)
        check_apart(here)
        project = Project.at(load_study(study), workspace)
        learn(project, output, here, FEW)
        training = Workshop(project, derived_plan(project).study).training(here)
        stepper = Stepper(training, here, build_optimiser(training.network, training.section.optimiser),
                          MovingAverage(training.network, 0.0), 0, 2)
        stepper.step(0, together=False)
        stepper.close()
    leave(0)

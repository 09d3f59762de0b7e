"""Makes two training steps of a U-Net and prints by how many GB the memory of its process grew at the most.

    python peak_of_training.py FILTERS PATCH BATCH RESIDUAL_UNITS
"""

from __future__ import annotations

import sys

import torch

from megavox.memory.available import private_bytes
from megavox.models.registry import build_model
from megavox.study.sections import UNetModel
from megavox.study.training import OptimiserSection
from megavox.tasks.losses import dice_ce
from megavox.training.optimiser import MovingAverage, build_optimiser


def main(filters: int, patch: int, batch: int, residual: int) -> None:
    torch.set_num_threads(1)
    model = UNetModel(family="unet", filters=filters, levels=3, residual_units=residual)
    network = build_model(model, spatial_dims=3, in_channels=1, out_channels=2, patch=(patch,) * 3)
    optimiser = build_optimiser(network, OptimiserSection(rate=1e-3))
    small = torch.zeros(1, 1, 8, 8, 8)
    dice_ce(network(small), torch.zeros(1, 8, 8, 8, dtype=torch.uint8)).backward()  # what a first step loads
    before = private_bytes()[1]
    average = MovingAverage(network, 0.99)
    for step in range(2):
        optimiser.zero_grad(set_to_none=True)
        target = torch.zeros(batch, *[patch] * 3, dtype=torch.uint8)
        dice_ce(network(torch.randn(batch, 1, *[patch] * 3)), target).backward()
        optimiser.step()
        average.update(network, step)
    sys.stdout.write(f"{(private_bytes()[0] - before) / 1e9}\n")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

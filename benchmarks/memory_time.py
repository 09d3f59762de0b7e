"""The time of a step that is told beforehand, beside what it takes.

    python benchmarks/memory_time.py [--again]

With `--again` this machine is calibrated first, as `megavox doctor --calibrate` does; else only where it never was.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from statistics import median

import torch

from bars import print_machine
from megavox.memory.doctor import measure_throughput
from megavox.memory.follow import follow
from megavox.memory.step_time import step_seconds, throughput_here
from memory_networks import networks, step_of, unet

SLAB_MB = 8.0
ROUNDS = 3  # after one that is not counted
NAMES = ("U-Net 2D", "U-Net 3D", "DynUNet 3D", "ResNet-50", "ResNet-18 3D", "DenseNet-121", "SwinUNETR")


def main() -> int:
    """One table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--again", action="store_true", help="calibrate this machine first")
    given = parser.parse_args()
    warnings.filterwarnings("ignore")
    print_machine("megavox", "torch", "monai")
    if given.again or throughput_here() is None:
        measure_throughput()
    throughput = throughput_here()
    assert throughput is not None
    print(f"{throughput.sentence()}, {torch.get_num_threads()} threads\n\n"
          "a step of                 told, s  took, s  told/took")
    every = networks()
    large = {"U-Net 3D, 64^3": unet((64,) * 3), "the same in slabs": unet((64,) * 3, SLAB_MB)}
    for name, exercise in [*((name, every[name]) for name in NAMES), *large.items()]:
        told, step = step_seconds(follow(exercise), throughput), step_of(exercise)
        took = median([step() for _ in range(ROUNDS + 1)][1:])
        print(f"{name:24} {told:8.2f} {took:8.2f} {told / took:10.2f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The volume that "needs 40 GB", trained on for real in a process of its own: what was told, and what it took.

    python benchmarks/memory_large.py [--steps 2] [--limit-gb 16] [--patch 160 384 384]

On a CPU, computed in float32, maps kept in bfloat16.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings

import torch
from scipy.ndimage import zoom
from torch import Tensor

from bars import print_machine, report
from megavox.core.provenance import cores
from megavox.memory.available import forget_most, private_bytes
from megavox.memory.exercise import training_exercise
from megavox.memory.planner import Needs, needs, ways
from megavox.phantoms.organs import organ
from megavox.study import Study
from megavox.tasks.registry import build_task

SLAB_MB = 128.0


def study(patch: list[int]) -> Study:
    """Of one image, which is a batch."""
    return Study.model_validate({
        "name": "large", "cohort": {"layout": "decathlon", "folder": "/"},
        "task": {"kind": "segment", "classes": {"core": 1}},
        "images": {"channels": ["MRI"], "spacing_mm": "native", "normalise": "zscore"},
        "batches": {"patch": patch, "size": 1, "workers": 0},
        "model": {"family": "unet", "filters": 32, "levels": 4},
        "training": {"steps": 2, "device": "cpu", "precision": "float32", "optimiser": {"rate": 1e-3},
                     "memory": {"compute": "streamed", "slab_mb": SLAB_MB, "keep_as": "bfloat16"}}})


def told(asked: Study) -> Needs:
    """Beforehand, of the way that the study asks for."""
    [way] = ways(asked, 1)
    return needs(asked, build_task(asked.task, []), 1, 1, way)


def phantom(patch: list[int]) -> tuple[Tensor, Tensor]:
    """An organ, enlarged: image `(1, 1, Z, Y, X)` and mask `(1, Z, Y, X)`."""
    small = organ(0, 0)
    factors = [side / n for side, n in zip(patch, small.image.shape, strict=True)]
    image = torch.from_numpy(zoom(small.image.astype("float32"), factors, order=1))
    mask = torch.from_numpy(zoom(small.mask == 1, factors, order=0).astype("uint8"))
    return ((image - image.mean()) / image.std())[None, None], mask[None]


def train(asked: Study, steps: int) -> None:
    """Steps of the study's training, one image each."""
    image, mask = phantom([int(side) for side in asked.batches.patch])
    task = build_task(asked.task, [])
    exercise = training_exercise(asked, task, 1, 1)
    assert exercise.optimiser is not None
    torch.manual_seed(0)
    network = exercise.build().train()
    optimiser = exercise.optimiser(network)
    for step in range(steps):
        begin = time.perf_counter()
        optimiser.zero_grad(set_to_none=True)
        loss = task.loss(network(image), mask)
        loss.backward()
        optimiser.step()
        print(f"step {step + 1}: loss {float(loss.detach()):.4f}, {time.perf_counter() - begin:.0f} s, at most "
              f"{private_bytes()[0] / 1e9:.2f} GB so far", flush=True)


def main() -> int:
    """What was told, the steps, and what they took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--limit-gb", type=float, default=16.0)
    parser.add_argument("--patch", type=int, nargs=3, default=[160, 384, 384])
    given = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(cores())  # all of them: no time is compared
    print_machine("megavox", "torch")
    asked = study(given.patch)
    before = told(asked)
    print(f"told: {before.peak_gb:.2f} GB of tensors, {before.taken_gb:.2f} GB of a process; "
          f"{before.operations / 1e12:.1f} T operations a step", flush=True)
    forget_most()
    train(asked, given.steps)
    took = private_bytes()[0] / 1e9
    print(f"took: {took:.2f} GB, {took / before.taken_gb:.3f} of what was told")
    return report([("large-volume-step-gb", took, given.limit_gb, False)])


if __name__ == "__main__":
    sys.exit(main())

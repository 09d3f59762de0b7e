"""What is told of memory beside what is taken, and the streamed U-Net beside the plain one.

    python benchmarks/memory.py [--short]
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from statistics import median

import torch

from bars import Bar, print_machine, report
from megavox.memory.caching import CachingAllocator
from megavox.memory.follow import Exercise, follow, peak
from memory_networks import allocated, networks, train, unet

PAPER = (160, 384, 384)  # voxels of the volume that "needs 40 GB"
SLAB_MB = 4.0  # on a CPU
LARGE_SLAB_MB = 64.0
ROUNDS = 3  # after one that is not counted


def estimates() -> list[Bar]:
    """Told and taken, network by network."""
    print("\ntwo steps of         told, MB  allocator, MB  with workspaces   error  error with   told in, s")
    errors, errors_beside, seconds = [], [], []
    for name, exercise in networks().items():
        begin = time.perf_counter()
        told = peak(follow(exercise)).size
        seconds.append(time.perf_counter() - begin)
        kept, beside = allocated(lambda exercise=exercise: train(exercise))  # type: ignore[misc]
        errors.append(abs(told / kept - 1))
        errors_beside.append(abs(told / beside - 1))
        print(f"{name:18} {told / 1e6:10.1f} {kept / 1e6:14.1f} {beside / 1e6:16.1f} {told / kept - 1:+8.2%} "
              f"{told / beside - 1:+8.2%} {seconds[-1]:12.1f}", flush=True)
    return [("estimate-error", max(errors), 0.02, False),
            ("estimate-error-with-workspaces", max(errors_beside), 0.05, False),
            ("estimate-median-s", median(seconds), 5.0, False)]


def streamed(side: int) -> list[Bar]:
    """Both on this CPU: peak by the allocator's account, and seconds of a step, in turns."""
    plain, slabs = (unet((side,) * 3, slab_mb) for slab_mb in (None, SLAB_MB))
    peaks = [allocated(lambda one=one: train(one))[1] for one in (plain, slabs)]  # type: ignore[misc]
    steps = [step_of(one) for one in (plain, slabs)]
    times = [[step() for step in steps] for _ in range(ROUNDS + 1)][1:]
    seconds = [median(one) for one in zip(*times, strict=True)]
    slower = median(after / before for before, after in times)
    print(f"{side}^3  plain {peaks[0] / 1e6:8.1f} MB {seconds[0]:7.2f} s   in slabs {peaks[1] / 1e6:8.1f} MB "
          f"{seconds[1]:7.2f} s   {peaks[1] / peaks[0]:.3f} of the memory, {slower:.3f} of the time", flush=True)
    return [(f"streamed-peak-{side}", peaks[1] / peaks[0], 0.5, False),
            (f"streamed-time-{side}", slower, 1.15, False)]


def step_of(exercise: Exercise) -> Callable[[], float]:
    """Makes a step and says how long it took."""
    assert exercise.loss is not None and exercise.optimiser is not None
    network, loss = exercise.build().train(), exercise.loss
    optimiser, image = exercise.optimiser(network), torch.randn(*exercise.image)

    def step() -> float:
        begin = time.perf_counter()
        optimiser.zero_grad(set_to_none=True)
        loss(network(image)).backward()
        optimiser.step()
        return time.perf_counter() - begin

    return step


def told_large() -> list[Bar]:
    """The volume that needs 40 GB, told in bfloat16 without making it."""
    print("\n160 x 384 x 384, bfloat16     peak, GB  reserved, GB   operations, T")
    found = []
    for name, slab_mb in (("plain", None), (f"slabs of {LARGE_SLAB_MB:g} MB", LARGE_SLAB_MB)):
        live = follow(replace(unet(PAPER, slab_mb), bfloat16=True))
        reserved = CachingAllocator().run(live.events).most_reserved
        found.append((reserved / 1e9, live.operations))
        print(f"{name:27} {peak(live).size / 1e9:10.2f} {reserved / 1e9:13.2f} {live.operations / 1e12:15.1f}",
              flush=True)
    return [("unet-160x384x384-reserved-gb", found[1][0], 11.0, False),
            ("unet-160x384x384-operations", found[1][1] / found[0][1], 1.10, False)]


def main() -> int:
    """All tables, then the bars."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--short", action="store_true", help="smaller volumes only, and no bars")
    given = parser.parse_args()
    warnings.filterwarnings("ignore")
    print_machine("megavox", "torch", "monai")
    if given.short:
        streamed(32)
        return 0
    bars = estimates()
    print()
    bars += streamed(64) + streamed(96) + told_large()
    return report(bars)


if __name__ == "__main__":
    sys.exit(main())

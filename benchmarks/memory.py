"""What is told of memory beside what is taken, and the streamed U-Net beside the plain one.

    python benchmarks/memory.py [--short] [--device cuda]
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from statistics import median
from typing import Any

import torch

from bars import Bar, print_machine, report
from megavox.memory.caching import CachingAllocator
from megavox.memory.follow import follow, peak
from megavox.memory.planner import Needs, chosen, needs, ways
from megavox.memory.workspaces import MATMUL_BYTES, of_cuda
from megavox.study import Study
from megavox.tasks.registry import build_task
from memory_networks import allocated, networks, step_of, train, unet

PAPER = [160, 384, 384]  # voxels of the volume that "needs 40 GB"
SLAB_MB = 8.0  # on a CPU
ROUNDS = {64: 9, 96: 5}  # of steps, by side, after one that is not counted


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


def in_a_process(side: int) -> list[Bar]:
    """Of a process that trains nothing else: among the free memory that other networks left behind, the plain network
    would have no page to ask for (430,000 a step), and slabs would lie where the cache has nothing."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(streamed, side).result()


def streamed(side: int) -> list[Bar]:
    """Both on this CPU: peak by the allocator's account, and seconds of a step, in turns."""
    plain, slabs = (unet((side,) * 3, slab_mb) for slab_mb in (None, SLAB_MB))
    peaks = [allocated(lambda one=one: train(one))[1] for one in (plain, slabs)]  # type: ignore[misc]
    steps = [step_of(one) for one in (plain, slabs)]
    times = [[step() for step in steps] for _ in range(ROUNDS.get(side, 1) + 1)][1:]
    seconds = [median(one) for one in zip(*times, strict=True)]
    slower = median(after / before for before, after in times)
    print(f"{side}^3  plain {peaks[0] / 1e6:8.1f} MB {seconds[0]:7.2f} s   in slabs {peaks[1] / 1e6:8.1f} MB "
          f"{seconds[1]:7.2f} s   {peaks[1] / peaks[0]:.3f} of the memory, {slower:.3f} of the time", flush=True)
    return [(f"streamed-peak-{side}", peaks[1] / peaks[0], 0.5, False),
            (f"streamed-time-{side}", slower, 1.15, False)]


def study(**sections: Any) -> Study:
    """Of the large volume, on a GPU in bfloat16."""
    return Study.model_validate({
        "name": "large", "images": {"channels": ["MRI"], "spacing_mm": "native", "normalise": "zscore"},
        "batches": {"patch": PAPER, "size": 1, "workers": 0}, **sections})


def training(**settings: Any) -> dict[str, Any]:
    """Its section of the study."""
    return {"steps": 1, "device": "cuda", "precision": "bfloat16", **settings}


def planned(name: str, asked: Study, limit_gb: float) -> tuple[Needs, float]:
    """What fits, and how many times the operations of the plain way it takes; told without making a step."""
    task = build_task(asked.task, [])
    print(f"\n{name}, 160 x 384 x 384, into {limit_gb:g} GB  tensors, GB  of a GPU, GB  operations, T  told in, s")
    found = []
    for way in ways(asked, 1):
        begin = time.perf_counter()
        found.append(one := needs(asked, task, 1, 1, way))
        print(f"{way!s:62} {one.peak_gb:9.2f} {one.taken_gb:13.2f} {one.operations / 1e12:14.1f} "
              f"{time.perf_counter() - begin:11.1f}", flush=True)
    taken = chosen(found, limit_gb)
    print(f"taken: {taken.way if taken else 'none fits'}")
    taken = taken or min(found, key=lambda one: one.taken_gb)
    return taken, taken.operations / found[0].operations


def large() -> list[Bar]:
    """The planner on the volume that needed 40 and 80 GB."""
    unet_gb, unet_costs = planned("U-Net 32-64-128-256", study(
        cohort={"layout": "decathlon", "folder": "/"}, task={"kind": "segment", "classes": {"core": 1}},
        model={"family": "unet", "filters": 32, "levels": 4}, training=training(optimiser={"rate": 1e-3})), 11.0)
    vgg_gb, _ = planned("VGG19", study(
        cohort={"layout": "folders", "folder": "/"}, task={"kind": "classify", "classes": ["a", "b"]},
        model={"family": "vgg", "depth": 19, "norm": "none"},
        training=training(optimiser={"name": "sgd", "rate": 1e-3, "clip": None})), 40.0)
    return [("unet-160x384x384-gb", unet_gb.taken_gb, 11.0, False),
            ("unet-160x384x384-operations", unet_costs, 1.10, False),
            ("vgg19-160x384x384-gb", vgg_gb.taken_gb, 40.0, False)]


def on_device() -> list[Bar]:
    """What is told of a GPU's reserved memory, and what its allocator says."""
    print("\ntwo steps of           told, MB  reserved, MB   error")
    errors = []
    for name, exercise in networks().items():
        told = CachingAllocator().run(follow(exercise, of_cuda).events).most_reserved + MATMUL_BYTES
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        train(exercise, device="cuda")
        took = torch.cuda.max_memory_reserved()
        errors.append(told / took - 1)
        print(f"{name:20} {told / 1e6:10.1f} {took / 1e6:13.1f} {errors[-1]:+8.2%}", flush=True)
    return [("device-error", max(map(abs, errors)), 0.10, False), ("device-under", max(-min(errors), 0.0), 0.03, False)]


def main() -> int:
    """All tables, then the bars."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="cuda: told and taken on a GPU only")
    parser.add_argument("--short", action="store_true", help="smaller volumes only, and no bars")
    given = parser.parse_args()
    warnings.filterwarnings("ignore")
    print_machine("megavox", "torch", "monai")
    if given.short:
        streamed(32)
        return 0
    if given.device == "cuda":
        return report(on_device())
    bars = estimates()
    print()
    return report([*bars, *in_a_process(64), *in_a_process(96), *large()])


if __name__ == "__main__":
    sys.exit(main())

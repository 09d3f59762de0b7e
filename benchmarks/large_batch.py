"""Large global batches: the settings of one rank kept as they are, against the recipe of `training.scale`.

    make bench-scaling

Hippocampus (the folder in the variable HIPPOCAMPUS, or ../shared/data/hippocampus_msd beside this checkout, in the
Decathlon layout; phantom organs where neither is there) at 2.5 mm, a small U-Net, batches of 2 on 1 and on 64 ranks.
Ranks are emulated by micro-batches, which is the same arithmetic for this study: Dice of each sample and norms within
samples (`tests/faults/test_ranks.py` shows it with real ranks). Every run sees the same number of samples; they differ
in seed, which is that of weights and samples. Dice is the mean over the test cases. Intervals are 95 %, by a bootstrap
over seeds.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from bars import print_machine, report

BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data" / "hippocampus_msd"
FACTORS, ALL_FACTORS, SEEDS = (1, 64), (1, 8, 16, 32, 64), 5
KEPT = 0.98  # of the Dice of one rank, at the largest batch
SAMPLES = 24_576
TOGETHER = 8  # ranks that are one micro-batch, which computes the same in less time
STUDY: dict[str, Any] = {
    "name": "large-batch", "seed": 0,
    "images": {"channels": ["MRI"], "spacing_mm": [2.5, 2.5, 2.5], "normalise": "zscore"},
    "batches": {"patch": [12, 20, 12], "size": 2, "workers": 0},
    "model": {"family": "unet", "filters": 8, "levels": 3},
    "training": {"steps": SAMPLES // 2, "validations": 1, "device": "cpu", "precision": "float32"},
    "inference": {"mirror": False}}
HIPPOCAMPUS = {"cohort": {"layout": "decathlon"}, "task": {"kind": "segment", "dice": "sample",
                                                           "classes": {"Anterior": 1, "Posterior": 2}}}
PHANTOMS = {"cohort": {"layout": "decathlon"}, "task": {"kind": "segment", "dice": "sample",
                                                        "classes": {"core": 1, "shell": 2}}}


def prepare(folder: Path) -> None:
    """Write the study and pack its cohort."""
    import yaml

    from megavox.phantoms import write_segment_cohort
    from megavox.pipeline.pack import pack
    from megavox.pipeline.project import Project
    from megavox.study import load_study

    images = os.environ.get("HIPPOCAMPUS") or (str(BESIDE) if BESIDE.is_dir() else None)
    print(f"images: {images or 'phantoms'}")
    if images is None:
        write_segment_cohort(folder / "images", 100, seed=0)
    study = {**STUDY, **(HIPPOCAMPUS if images else PHANTOMS)}
    study["cohort"]["folder"] = images or str(folder / "images")
    (folder / "study.yaml").write_text(yaml.safe_dump(study))
    pack(Project.at(load_study(folder / "study.yaml"), folder / "workspace"))


def one(folder: Path, arm: str, factor: int, seed: int, changes: list[str]) -> float:
    """Train once; returns the mean Dice of the test cases."""
    import torch

    from megavox.core.signals import Stop
    from megavox.core.workspace import RunFolder
    from megavox.memory.large_batch import large_batch
    from megavox.memory.rules import Derived, apply
    from megavox.pipeline.plan import derived_plan
    from megavox.pipeline.project import Project
    from megavox.pipeline.workshop import Workshop
    from megavox.study import load_study
    from megavox.training.best import best_checkpoint
    from megavox.training.checkpoint import load_weights
    from megavox.training.loop import train
    from megavox.training.parallel import Ranks

    torch.set_num_threads(1)
    project = Project.at(load_study(folder / "study.yaml", changes), folder / "workspace")
    study = derived_plan(project).study
    steps = int(study.training.steps) // factor
    naive = [Derived("batches.size", 2 * factor, ""), Derived("training.steps", steps, "")]
    study = apply(study, large_batch(study, factor) if arm == "recipe" else naive)
    study = apply(study, [Derived("training.accumulate", max(1, factor // TOGETHER), "")])
    workshop = Workshop(project, study.model_copy(update={"seed": seed}))
    here = Ranks(0, 1, torch.device("cpu"))
    with tempfile.TemporaryDirectory() as place:
        run = RunFolder(Path(place))
        run.checkpoints.mkdir()
        train(workshop.training(here), run, here, Stop(""))
        network = workshop.network(here.device)
        load_weights(best_checkpoint(run), network)
    rows = workshop.validation(here, workshop.part("test"))(network)
    return float(workshop.task.score(rows)["dice"])


def interval(values: np.ndarray) -> tuple[float, float]:
    """95 % of the mean, by a bootstrap over seeds."""
    drawn = np.random.default_rng(0).choice(values, (10_000, len(values))).mean(axis=1)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(low), float(high)


def measured(folder: Path, runs: list[tuple[str, int, int]]) -> Iterator[tuple[tuple[str, int, int], float]]:
    """The Dice of each run; two at a time, each on one core."""

    def dice(run: tuple[str, int, int]) -> float:
        command = [sys.executable, __file__, "--one", str(folder), *map(str, run)]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True,
                              env={**os.environ, "OMP_NUM_THREADS": "1"})
        return float(json.loads(done.stdout.splitlines()[-1]))

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        yield from zip(runs, pool.map(dice, runs), strict=True)


def main() -> int:
    """Measure, print, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--set", action="append", default=[], help=argparse.SUPPRESS)
    parser.add_argument("--all", action="store_true", help="also 8, 16 and 32 ranks: 90 minutes on 2 cores")
    arguments = parser.parse_args()
    if arguments.one:
        folder, arm, factor, seed = arguments.one
        print(json.dumps(one(Path(folder), arm, int(factor), int(seed), arguments.set)))
        return 0
    print_machine("megavox", "torch")
    arms = [(arm, factor) for factor in (ALL_FACTORS if arguments.all else FACTORS)
            for arm in ("naive", "recipe")[factor == 1:]]
    runs = [(*arm, seed) for arm in arms for seed in range(SEEDS)]
    with tempfile.TemporaryDirectory() as place:
        prepare(Path(place))
        found: dict[tuple[str, int], list[float]] = {}
        for (arm, factor, _), dice in measured(Path(place), runs):
            found.setdefault((arm, factor), []).append(dice)
    print(f"{SAMPLES} samples a run, {SEEDS} seeds; mean Dice (95 %), and what is kept of that of one rank\n")
    one_rank = np.array(found["recipe", 1])
    kept = {}
    for (arm, factor), values in found.items():
        low, high = interval(np.array(values))
        share = np.array(values) / one_rank.mean()
        kept[arm, factor] = float(share.mean())
        print(f"{factor:>3} ranks, {'as they are' if arm == 'naive' else 'recipe':<12} batch {2 * factor:>3}  "
              f"{np.mean(values):.4f} ({low:.4f} to {high:.4f})  {kept[arm, factor]:.1%}")
    return report([("dice-kept-at-64-ranks", kept["recipe", 64], KEPT, True)])


if __name__ == "__main__":
    sys.exit(main())

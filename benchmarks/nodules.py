"""The nodule recipe on chest phantoms, searched for real: ours, random search at equal jobs, and the default setting.

    python benchmarks/nodules.py FOLDER [--site NAME=FILE] [--method asynchronous]

Trials are short: a budget of time each, a memory limit that some settings exceed. The best run of a search is evaluated
on the test cases, which no trial has seen; so is the default setting's, which every search tries first. Where `sbatch`
is found, a site file of kind slurm sends the trials there.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from bars import print_machine

RECIPE = Path(__file__).parents[1] / "recipes" / "nodules.yaml"
CASES, JOBS, WORKERS, BUDGET, MEMORY_GB = 48, 24, 4, "4min", 0.6


def study_of(folder: Path) -> dict[str, Any]:
    """The recipe at the phantoms' size."""
    study = yaml.safe_load(RECIPE.read_text())
    study |= {"seed": 1, "cohort": {"layout": "luna16", "folder": "chests"},
              "split": {"test": 0.33, "validation": 0.17},
              "images": {**study["images"], "spacing_mm": [2.5, 2.5, 2.5]},
              "inference": {"overlap": 0.1, "mirror": False}}
    study["batches"] |= {"patch": [16, 16, 16], "size": 8, "workers": 0}
    study["model"] |= {"filters": 8}
    study["training"] |= {"budget": BUDGET, "ema": 0.95, "device": "cpu", "validations": 2}
    study["search"] |= {"workers": WORKERS, "jobs": JOBS, "knowledge": {"memory": False}}
    del study["search"]["stop"]
    space = study["search"]["space"]
    space["batches.patch"] = {"choices": [[16, 16, 16], [32, 32, 32]]}
    space["model.filters"] = {"low": 4, "high": 16, "step": 2}
    return study


def megavox(*words: object) -> str:
    """Run a command; returns what it prints."""
    done = subprocess.run([sys.executable, "-m", "megavox", *map(str, words)], stdout=subprocess.PIPE, text=True,
                          check=True)
    return done.stdout


def main() -> None:
    """Search, evaluate, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--site", type=Path, help="site file; default: this machine, as if it had four cores")
    parser.add_argument("--method", default="asynchronous")
    parser.add_argument("--jobs", type=int, default=JOBS)
    given = parser.parse_args()
    folder, path = given.folder, given.folder / "study.yaml"
    print_machine("megavox", "torch")
    if not (folder / "chests" / "annotations.csv").exists():
        megavox("phantom", "chest", folder / "chests", "--cases", CASES)
    here = {"kind": "local", "cpus": WORKERS, "jobs": {"memory_gb": MEMORY_GB, "cpus": 1}}
    site = given.site.read_text() if given.site else yaml.safe_dump(here)
    name = f"{given.method}-{yaml.safe_load(site)['kind']}"
    (folder / f"{name}.yaml").write_text(site)
    path.write_text(yaml.safe_dump({**study_of(folder), "sites": {name: f"{name}.yaml"}}, sort_keys=False))
    common = ("--set", f"search.method={given.method}", "--set", f"search.jobs={given.jobs}")
    megavox("pack", path)
    began = time.time()
    print(megavox("tune", path, "--run-name", name, "--site", name, *common))
    print(f"{name}: {(time.time() - began) / 60:.1f} min")
    report = folder / "workspace" / "search" / name / "report"
    best = report.joinpath("best.yaml").read_text().partition("number ")[2].partition(":")[0]
    for number, what in ((0, "default setting"), (int(best), "best setting")):
        run = f"{name}-{number:03d}"
        megavox("evaluate", path, "--run-name", run)
        summary = json.loads((folder / "workspace" / "runs" / run / "evaluation.json").read_text())["summary"]
        area, mean = summary["headline"]["partial_area"], summary["headline"]["mean_sensitivity"]
        print(f"{what} (trial {number}): test partial area {area['value']:.3f} ({area['low']:.3f} to "
              f"{area['high']:.3f}), mean sensitivity {mean['value']:.3f} ({mean['low']:.3f} to {mean['high']:.3f}), "
              f"{summary['n_cases']} cases, {summary['n_findings']} nodules")


if __name__ == "__main__":
    main()

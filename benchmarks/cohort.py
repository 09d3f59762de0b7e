"""A cohort of 50,000 small cases: opening its store, listing, resuming and measuring its predictions.

    make bench-inference

The predictions are made up, but written by the functions that the workers write with. Each step is a process
of its own; its seconds and its largest memory count. A bar that is missed makes the exit status 1.
`--short` makes 1,000 cases and sets no bars.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from bars import Bar, print_machine, report

SECONDS, GIGABYTES = 60.0, 1.0
STUDY = {"name": "small", "seed": 3, "cohort": {"layout": "decathlon", "folder": "images"},
         "task": {"kind": "segment", "classes": {"core": 1, "shell": 2}},
         "images": {"channels": ["MRI"], "spacing_mm": "native", "normalise": "zscore"},
         "batches": {"patch": [8, 8, 8], "size": 2}, "model": {"family": "unet", "filters": 4, "levels": 2},
         "training": {"steps": 1, "device": "cpu"}}


def make(root: Path, count: int) -> None:
    """A run, images, the finished records and masks of all but the last case, and a store's index."""
    import numpy as np
    import torch
    import yaml
    from safetensors.torch import save_file

    from megavox.cohort.case import Case
    from megavox.core.files import file_hash, write_json
    from megavox.images.geometry import Geometry
    from megavox.images.nifti import write_nifti
    from megavox.images.prepare import Preparation
    from megavox.inference.case import Opened, write_case
    from megavox.inference.predictor import Prediction
    from megavox.inference.recipe import Recipe
    from megavox.inference.records import content_hash, input_files, states
    from megavox.models.registry import build_model
    from megavox.pipeline.predict import network_of
    from megavox.pipeline.project import Project
    from megavox.store.build import write_index
    from megavox.store.pack import pack_case
    from megavox.study import load_study
    from megavox.training.best import AVERAGED

    os.fsync = lambda handle: None  # 200,000 of them would take longer than all that is measured
    (root / "study.yaml").write_text(yaml.safe_dump(STUDY))
    project = Project.at(load_study(root / "study.yaml"), root / "workspace", "small")
    checkpoint = project.run.step(1)
    checkpoint.mkdir(parents=True)
    torch.manual_seed(0)
    network = build_model(project.study.model, spatial_dims=3, in_channels=1, out_channels=3, patch=(8, 8, 8))
    save_file(network.state_dict(), checkpoint / AVERAGED)
    (checkpoint / "DONE").write_text(f"{file_hash(checkpoint / AVERAGED)}  {AVERAGED}\n")
    write_json(project.run.best, {"step": 1, "score": 0.5})
    project.run.done.touch()
    recipe = Recipe("small", project.study, project.study, [], Preparation(3, 1), "zscore", None, "float32")
    recipe.write(project.run.recipe)
    weights = network_of(project).weights

    geometry = Geometry((8, 8, 8), (1.0, 1.0, 2.0))
    random = np.random.default_rng(0)
    image = random.integers(0, 900, (1, 8, 8, 8), "int16")
    for number in range(count):
        path = root / "images" / f"{number % 100:02d}" / f"case{number:05d}.nii.gz"
        if number < 100:
            write_nifti(path, image + number, geometry)
        else:
            path.write_bytes((root / "images" / f"{number % 100:02d}" / f"case{number % 100:05d}.nii.gz").read_bytes())
        case = Case(path.name[:9], path.name[:9], "", ((path,),))
        opened = Opened(case, None, content_hash(case), states(input_files(case)))  # type: ignore[arg-type]
        labels = random.integers(0, 3, (8, 8, 8), "uint8")
        write_case(opened, Prediction(labels, None, None, geometry), root / "out", weights, recipe)
    record = pack_case(root / "one", replace(case, masks=(root / "out" / f"{case.name}.nii.gz",)), Preparation(3, 1),
                       project.study.task, seed=1)
    write_index(root / "store", [replace(record, key=f"{number:016x}") for number in range(count)])


def measured(title: str, command: list[str]) -> tuple[float, float]:
    """Seconds and gigabytes that a process took."""
    clock = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    told = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - clock
    if process.returncode:
        raise SystemExit(f"{title} ended with status {process.returncode}: {told}")
    print(f"{title:<10} {seconds:7.1f} s {usage.ru_maxrss / 1e6:7.2f} GB   {' '.join(told.split())[:90]}")
    return seconds, usage.ru_maxrss / 1e6


def main() -> int:
    """Measure, print, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--short", action="store_true", help="1,000 cases, no bars")
    parser.add_argument("--make", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.make:  # in a process of its own: what this one had used would count for its children
        make(Path(arguments.make[0]), int(arguments.make[1]))
        return 0
    count = 1_000 if arguments.short else 50_000
    print_machine("megavox")
    print(f"{count} cases")
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        measured("making", [sys.executable, __file__, "--make", place, str(count)])
        words = [str(root / "study.yaml"), "--workspace", str(root / "workspace"), "--run-name", "small", "--input"]
        code = "import sys; from pathlib import Path; "
        bars: list[Bar] = []
        for title, command in {
                "opening": ["-c", code + "from megavox.store.read import Store; "
                            f"print(len(Store(Path({str(root / 'store')!r})).records), 'records')"],
                "listing": ["-c", code + "from megavox.inference.cohort import cases_in; "
                            f"print(len(cases_in(Path({str(root / 'images')!r}), 1)[0]), 'cases')"],
                "resuming": ["-m", "megavox", "predict", *words, str(root / "images"), "--output", str(root / "out")],
                "measuring": ["-m", "megavox", "measure", *words, str(root / "out")]}.items():
            seconds, gigabytes = measured(title, [sys.executable, *command])
            bars += [(f"cohort-{title}-seconds", seconds, SECONDS, False),
                     (f"cohort-{title}-gigabytes", gigabytes, GIGABYTES, False)]
    return 0 if arguments.short else report(bars)


if __name__ == "__main__":
    sys.exit(main())

"""Training on one rank and on two: time, and the share of it that is communication.

    make bench-scaling

A 3D U-Net (16 filters, 4 levels) on patches of 48^3 voxels of phantom organs, two patches a step or two a rank, gloo.
Steps are measured in pairs beside each other, with and without synchronisation; of their ratios the median is taken,
and the bar is the median of several trainings: from one to the next it changes by some hundredths on these machines.
Two ranks share the machine's memory and caches, so their speed-up says little of a cluster; the ratio does. What it
lacks of 1 is communication, and waiting for the slower rank of that step ("uneven"): much on a noisy machine.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from statistics import median

import yaml

from bars import print_machine, report

EFFICIENCY = 0.95
TRAININGS, SECONDS = 5, 30.0  # of each
STUDY = {"name": "scaling", "cohort": {"layout": "decathlon"},
         "task": {"kind": "segment", "classes": {"core": 1, "shell": 2}},
         "images": {"channels": ["MRI"], "spacing_mm": [0.8, 0.8, 0.8], "normalise": "zscore"},
         "batches": {"patch": [48, 48, 48], "size": 2, "workers": 0},
         "model": {"family": "unet", "filters": 16, "levels": 4},
         "training": {"steps": 100, "device": "cpu", "precision": "float32"}}


def main() -> int:
    """Measure, print, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--short", action="store_true", help="few steps, no bars")
    short = parser.parse_args().short
    from megavox.phantoms import write_segment_cohort

    print_machine("megavox", "torch")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_segment_cohort(folder / "images", 12, seed=0)
        STUDY["cohort"]["folder"] = str(folder / "images")  # type: ignore[index]
        (folder / "study.yaml").write_text(yaml.safe_dump(STUDY))
        found = [once(folder / "study.yaml", folder / f"workspace-{number}", 5.0 if short else SECONDS)
                 for number in range(1 if short else TRAININGS)]
    if short:
        return 0
    return report([(f"paired-efficiency-{kind}", median(one[kind] for one in found), EFFICIENCY, True)
                   for kind in ("strong", "weak")])


def once(study: Path, workspace: Path, seconds: float) -> dict[str, float]:
    """Measure in a new workspace, and print the table; returns the paired efficiency for each kind of scaling."""
    from megavox.core.files import read_json
    from megavox.pipeline.pack import pack
    from megavox.pipeline.project import Project
    from megavox.pipeline.scale import scale
    from megavox.study import load_study

    project = Project.at(load_study(study), workspace)
    pack(project)
    found = scale(project, [1, 2], "local", (), seconds)
    [strong], [weak] = (list(found.folder.glob(f"scale-local-2-{batch}-*.json")) for batch in (2, 4))
    paired = {kind: read_json(path)["pace"]["efficiency"] for kind, path in (("strong", strong), ("weak", weak))}
    print("scaling  ranks  batch  s/1000 steps  samples/s  speed-up  communication  uneven  waiting  paired efficiency")
    for row in found.rows:
        efficiency = f"{paired[row['scaling']]:.4f}" if row["ranks"] > 1 else ""
        print(f"{row['scaling']:<8} {row['ranks']:>5}  {row['batch']:>5}  {row['seconds_per_1000_steps']:>12.0f}  "
              f"{row['samples_per_s']:>9.2f}  {row['speed_up']:>8.2f}  {row['communication']:>13.1%}  "
              f"{row['uneven']:>6.1%}  {row['waiting']:>7.1%}  {efficiency:>17}")
    print("\n".join(found.limits), flush=True)
    return paired


if __name__ == "__main__":
    sys.exit(main())

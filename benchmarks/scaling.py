"""Training on one rank and on two: time, and the share of it that is communication.

    make bench-scaling

A 3D U-Net (16 filters, 4 levels) on patches of 48^3 voxels of phantom organs, two patches a step or two a rank, gloo.
Steps are measured in pairs beside each other, with and without synchronisation; the bar is the median of their ratios.
Two ranks share the machine's memory and caches, so their speed-up says little of a cluster; the ratio does. What it
lacks of 1 is communication, and waiting for the slower rank of that step ("uneven"): much on a noisy machine.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from bars import print_machine, report

EFFICIENCY = 0.95
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
    seconds = 5.0 if parser.parse_args().short else 90.0
    import yaml

    from megavox.core.files import read_json
    from megavox.phantoms import write_segment_cohort
    from megavox.pipeline.pack import pack
    from megavox.pipeline.project import Project
    from megavox.pipeline.scale import scale
    from megavox.study import load_study

    print_machine("megavox", "torch")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_segment_cohort(folder / "images", 12, seed=0)
        STUDY["cohort"]["folder"] = str(folder / "images")  # type: ignore[index]
        (folder / "study.yaml").write_text(yaml.safe_dump(STUDY))
        project = Project.at(load_study(folder / "study.yaml"), folder / "workspace")
        pack(project)
        found = scale(project, [1, 2], "local", (), seconds)
        [strong], [weak] = (list(found.folder.glob(f"scale-local-2-{batch}-*.json")) for batch in (2, 4))
        paired = {kind: read_json(path)["pace"]["efficiency"] for kind, path in (("strong", strong), ("weak", weak))}
    print("scaling  ranks  batch  s/1000 steps  samples/s  speed-up  communication  uneven  waiting")
    for row in found.rows:
        print(f"{row['scaling']:<8} {row['ranks']:>5}  {row['batch']:>5}  {row['seconds_per_1000_steps']:>12.0f}  "
              f"{row['samples_per_s']:>9.2f}  {row['speed_up']:>8.2f}  {row['communication']:>13.1%}  "
              f"{row['uneven']:>6.1%}  {row['waiting']:>7.1%}")
    print("\n".join(found.limits))
    if parser.parse_args().short:
        return 0
    return report([(f"paired-efficiency-{kind}", value, EFFICIENCY, True) for kind, value in paired.items()])


if __name__ == "__main__":
    sys.exit(main())

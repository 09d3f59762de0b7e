"""Runs on each rank of a job: measures training steps, and the first rank writes down what was found.

    python -m megavox.pipeline.rank_pace STUDY WORKSPACE OUTPUT SECONDS
"""

from __future__ import annotations

import os
import socket
import sys
from dataclasses import asdict
from pathlib import Path

import torch

from megavox.core.errors import MegavoxError
from megavox.core.files import write_json
from megavox.core.processes import leave
from megavox.core.provenance import cores
from megavox.memory.pace import pace
from megavox.memory.topology import gpu_links
from megavox.pipeline.augment_on import place_augmentation
from megavox.pipeline.fit import fit_here
from megavox.pipeline.plan import derived_plan
from megavox.pipeline.project import Project
from megavox.pipeline.workshop import Workshop
from megavox.study import load_study
from megavox.training.parallel import ranks


def main(study: Path, workspace: Path, output: Path, seconds: float) -> None:
    """Measure this study's training steps on the ranks of this job."""
    project = Project.at(load_study(study), workspace)
    found = derived_plan(project)
    with ranks(str(found.study.training.device)) as here:
        fit = here.from_first(fit_here(project, found.study, here) if here.first else None)
        found = found.with_more(fit.derived(found.study) if fit else [])
        found = found.with_more(place_augmentation(project, found.study, here))
        measured = pace(Workshop(project, found.study).training(here), here, seconds)
        host, own_cores = socket.gethostname(), sorted(os.sched_getaffinity(0))[:cores()]
        of_all = set(here.gather([(host, core) for core in own_cores]))
        if here.first:
            write_json(output, {"pace": asdict(measured), "host": host, "cores": len(of_all),
                                "threads": torch.get_num_threads(), "device": here.device.type, "links": gpu_links()})


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), float(sys.argv[4]))
    except MegavoxError as error:
        sys.stderr.write(f"megavox: {error}\n")
        leave(error.status)
    leave(0)

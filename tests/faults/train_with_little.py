"""Trains a study with so much address space, in MB, beyond what the process has when it begins to.

    python train_with_little.py STUDY WORKSPACE RUN MB
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import torch

from megavox.core.errors import MegavoxError
from megavox.core.progress import say
from megavox.pipeline.project import Project
from megavox.pipeline.train import train
from megavox.study import load_study


def main() -> int:
    """Status of the training."""
    study, workspace, run, more = sys.argv[1:]
    torch.nn.Conv3d(1, 1, 3)(torch.zeros(2, 1, 8, 8, 8)).sum().backward()
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    most = taken + int(float(more) * 1e6)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    try:
        train(Project.at(load_study(Path(study)), Path(workspace), run))
    except MegavoxError as error:
        say(str(error))
        return error.status
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Runs in a job: trains one trial of a search, and says whose fault it was where that failed.

    python -m megavox.pipeline.trial STUDY WORKSPACE RUN

A file `fault.json` beside the study tells the setting's faults, which teach, from the machine's. What leaves no word
at all, since it was killed, is judged by the site's.
"""

from __future__ import annotations

import sys
import traceback
from pathlib import Path

from megavox.core.errors import DivergenceError, MegavoxError, RankError, StudyError
from megavox.core.exhausted import out_of_memory
from megavox.core.files import write_json
from megavox.core.processes import leave
from megavox.core.signals import Stopped
from megavox.pipeline.project import Project
from megavox.pipeline.train import train
from megavox.study import load_study

OF_MACHINE = ("cuda", "cudnn", "cublas", "nccl", "gloo", "shared memory", "new thread", "too many open files",
              "ancdata", "worker")  # words of errors that PyTorch raises for a machine in trouble
FAULT = "fault.json"


def main(study: Path, workspace: Path, run: str) -> int:
    """Train; returns the status to leave with."""
    try:
        train(Project.at(load_study(study), workspace, run))
    except Stopped as stopped:
        sys.stderr.write(f"megavox: {stopped.text}\n")
        return stopped.status
    except RankError as error:  # the other one says why
        sys.stderr.write(f"megavox: {error}\n")
        return error.status
    except Exception as error:
        told = str(error) if isinstance(error, MegavoxError) else f"{type(error).__name__}: {error}"
        write_json(study.parent / FAULT, {"setting": _of_setting(error), "told": told})
        sys.stderr.write(f"megavox: {told}\n" if isinstance(error, MegavoxError) else traceback.format_exc())
        return error.status if isinstance(error, MegavoxError) else 1
    return 0


def _of_setting(error: Exception) -> bool:
    """Whether the setting is at fault: it diverges, needs too much memory, or makes a network that cannot be."""
    if isinstance(error, (StudyError, DivergenceError)) or out_of_memory(error):
        return True
    if isinstance(error, RuntimeError):
        return not any(word in str(error).lower() for word in OF_MACHINE)
    return isinstance(error, (ValueError, TypeError, AssertionError))


if __name__ == "__main__":
    leave(main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]))

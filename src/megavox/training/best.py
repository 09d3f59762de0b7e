"""A run's best checkpoint, found without loading anything."""

from __future__ import annotations

from pathlib import Path

from megavox.core.errors import CheckpointError
from megavox.core.files import read_json
from megavox.core.workspace import RunFolder

AVERAGED = "averaged.safetensors"  # the weights that predict


def best_checkpoint(folder: RunFolder) -> Path:
    """The checkpoint with the best validation metric.

    Raises:
        CheckpointError: the run has none yet.
    """
    if not folder.best.exists():
        raise CheckpointError("this run has no checkpoint yet", where=folder.root, fix="Run `megavox train` first")
    best = folder.step(read_json(folder.best)["step"])
    if not best.exists():
        raise CheckpointError("the checkpoint with the best validation is gone", where=best,
                              fix="Bring it back, or train again under another --run-name")
    return best

"""A run's best checkpoint, found and checked without loading anything."""

from __future__ import annotations

from pathlib import Path

from megavox.core.errors import CheckpointError
from megavox.core.files import file_hash, read_json
from megavox.core.workspace import DONE, RunFolder

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


def check_file(path: Path) -> None:
    """Read a file of a checkpoint and compare it with what was written.

    Raises:
        CheckpointError: it is another one, or missing.
    """
    try:
        if f"{file_hash(path)}  {path.name}" not in (path.parent / DONE).read_text().split("\n"):
            raise ValueError("its SHA-256 is not the one in DONE")
    except (OSError, ValueError) as error:
        raise damaged(path, error) from None


def damaged(path: Path, error: Exception) -> CheckpointError:
    """The error to raise for a file of a checkpoint."""
    return CheckpointError(f"the file is missing or damaged ({error})", where=path,
                           fix="Remove that checkpoint folder: `megavox train` goes on from the one before it")

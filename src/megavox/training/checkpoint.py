"""Checkpoints: a run's whole state at a step, as safetensors and JSON.

    checkpoints/step-00001000/network.safetensors  averaged.safetensors  optimiser.safetensors  state.json  DONE
    checkpoints/best.json                          which of them had the best validation metric

A checkpoint appears under its name complete, with its marker, or not at all; `best.json` is replaced
in one move. So after a kill at any instant the last good checkpoint loads. DONE lists the SHA-256 of the
other files, as `sha256sum --check DONE` reads it: safetensors alone would not notice a changed weight.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from megavox.core.errors import CheckpointError
from megavox.core.files import file_hash, plain, read_json, remove_unfinished, whole_folder, write_json, write_text
from megavox.core.workspace import DONE, RunFolder
from megavox.training.best import AVERAGED, check_file, damaged
from megavox.training.optimiser import MovingAverage

NETWORK, OPTIMISER, STATE = "network.safetensors", "optimiser.safetensors", "state.json"
FILES = (NETWORK, AVERAGED, OPTIMISER, STATE)


@dataclass
class Progress:
    """Where a run stands.

    Attributes:
        step: optimiser steps done.
        best_score: best validation metric so far.
        best_step: when.
        since_best: validations since then.
        seconds: time trained, over all parts of an interrupted run.
    """

    step: int = 0
    best_score: float | None = None
    best_step: int = 0
    since_best: int = 0
    seconds: float = 0.0
    scores: dict[str, float] = field(default_factory=dict)


def save_checkpoint(folder: RunFolder, network: nn.Module, average: MovingAverage, optimiser: torch.optim.Optimizer,
                    progress: Progress, keep: int) -> None:
    """Write the checkpoint of `progress.step`, note whether it is the best, remove old ones but `keep`.

    What is done already is kept, so calling it again ends what a kill left half done.
    """
    target = folder.step(progress.step)
    if not (target / DONE).exists():
        with whole_folder(target) as temporary:
            _save(network.state_dict(), temporary / NETWORK)
            _save(average.weights, temporary / AVERAGED)
            tensors, numbers = _flatten(optimiser.state_dict())
            _save(tensors, temporary / OPTIMISER)
            write_json(temporary / STATE, {"progress": asdict(progress), "optimiser": numbers})
            write_text(temporary / DONE, "".join(f"{file_hash(temporary / name)}  {name}\n" for name in FILES))
    best = {"step": progress.step, "score": progress.best_score}
    if progress.best_step == progress.step and not (folder.best.exists() and read_json(folder.best) == plain(best)):
        write_json(folder.best, best)
    _remove_old(folder, keep)


def latest_checkpoint(folder: RunFolder) -> Path | None:
    """The newest complete checkpoint of a run."""
    return next(reversed(complete_checkpoints(folder)), None)


def complete_checkpoints(folder: RunFolder) -> list[Path]:
    """All complete checkpoints, oldest first."""
    return sorted(path.parent for path in folder.checkpoints.glob(f"step-*/{DONE}"))


def load_checkpoint(path: Path, network: nn.Module, average: MovingAverage,
                    optimiser: torch.optim.Optimizer) -> Progress:
    """Bring network, average and optimiser to the state of a checkpoint.

    Raises:
        CheckpointError: it is damaged, or belongs to another network.
    """
    load_weights(path, network, NETWORK)
    saved = _read(path / AVERAGED)
    for name, value in average.weights.items():
        value.copy_(saved[name])
    check_file(path / STATE)
    state = read_json(path / STATE)
    optimiser.load_state_dict(_unflatten(_read(path / OPTIMISER), state["optimiser"]))
    return Progress(**state["progress"])


def load_weights(path: Path, network: nn.Module, name: str = AVERAGED, mapped: bool = False) -> None:
    """Load the (averaged) weights of a checkpoint folder into a network.

    Args:
        path: the checkpoint's folder.
        network: gets them.
        name: which of the folder's files.
        mapped: the network's tensors become the file itself in memory, which all processes of a machine share;
            for prediction only, since an optimiser keeps to the tensors that it was made with.

    Raises:
        CheckpointError: damaged, or of another network.
    """
    weights = _read(path / name)
    try:
        network.load_state_dict(weights, assign=mapped)
    except RuntimeError as error:
        raise CheckpointError(f"the weights do not fit this network ({str(error).splitlines()[-1].strip()})",
                              where=path / name, expected="the network that the run was trained with",
                              fix="Give this study a new --run-name, or train again") from None


def _save(tensors: dict[str, torch.Tensor], path: Path) -> None:
    save_file({name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}, path)


def _read(path: Path) -> dict[str, torch.Tensor]:
    check_file(path)
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise damaged(path, error) from None


def _flatten(state: dict[str, Any]) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """An optimiser's state dict as named tensors and plain numbers."""
    tensors: dict[str, torch.Tensor] = {}
    numbers: dict[str, Any] = {}
    for index, values in state["state"].items():
        for key, value in values.items():
            (tensors if isinstance(value, torch.Tensor) else numbers)[f"{index}.{key}"] = value
    return tensors, {"state": numbers, "groups": state["param_groups"]}


def _unflatten(tensors: dict[str, torch.Tensor], numbers: dict[str, Any]) -> dict[str, Any]:
    state: dict[int, dict[str, Any]] = {}
    for name, value in {**tensors, **numbers["state"]}.items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = value
    return {"state": state, "param_groups": numbers["groups"]}


def _remove_old(folder: RunFolder, keep: int) -> None:
    best = folder.step(read_json(folder.best)["step"]) if folder.best.exists() else None
    remove_unfinished(folder.checkpoints)
    for path in complete_checkpoints(folder)[:-keep]:
        if path != best:
            (path / DONE).unlink()  # first, so that a kill here leaves an unfinished folder, not a broken one
    for path in folder.checkpoints.glob("step-*"):
        if not (path / DONE).exists():
            shutil.rmtree(path)

"""Saves checkpoints in processes that kill themselves at a write boundary; see test_checkpoint_faults.py.

Boundaries are the calls that change what a reader of the disk finds: renames, unlinks, flushes, directories.

    python save_and_die.py FOLDER

makes `FOLDER/1`, `FOLDER/2`, ...: in the k-th, a process saved the checkpoints of all steps and was killed at the
k-th boundary. The last folder is that of the process that came through.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from megavox.core.workspace import RunFolder
from megavox.training.checkpoint import Progress, save_checkpoint
from megavox.training.optimiser import MovingAverage

CALLS = ("fsync", "replace", "rename", "unlink", "remove", "rmdir", "mkdir", "open")
BEST = 2  # the step with the best score
STEPS = 3


def parts() -> tuple[nn.Module, MovingAverage, torch.optim.Optimizer]:
    """A small network, its average, and an optimiser with state of its own."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    return network, MovingAverage(network, 0.9), torch.optim.AdamW(network.parameters(), lr=0.1)


@cache
def train_to(step: int) -> tuple[nn.Module, MovingAverage, torch.optim.Optimizer, Progress]:
    """The state after so many steps, always the same."""
    network, average, optimiser = parts()
    for number in range(step):
        torch.manual_seed(number)
        optimiser.zero_grad()
        network(torch.randn(8, 3)).square().mean().backward()
        optimiser.step()
        average.update(network, number)
    best = min(step, BEST)
    return network, average, optimiser, Progress(step, best_score=best / 10, best_step=best, since_best=step - best)


def save(folder: RunFolder, step: int, keep: int = 1) -> None:
    """Write the checkpoint of a step, as the training loop does."""
    save_checkpoint(folder, *train_to(step), keep=keep)


def die_at(number: int) -> None:
    """From here on kill this process when the number-th write boundary is reached."""
    left = number

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **kwargs)

        return wrapped

    for name in CALLS:
        setattr(os, name, counted(getattr(os, name)))


def killed_at(number: int, folder: RunFolder) -> bool:
    """Save all steps in a process of its own; whether it was killed."""
    folder.root.mkdir()
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1] == signal.SIGKILL
    die_at(number)
    for step in range(1, STEPS + 1):
        save(folder, step)
    os._exit(0)


if __name__ == "__main__":
    place = 1
    for at in range(1, STEPS + 1):
        train_to(at)  # before the forks, so that a child does nothing but write
    while killed_at(place, RunFolder(Path(sys.argv[1], str(place)))):
        place += 1

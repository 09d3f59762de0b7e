"""Saves checkpoints in a process that kills itself at the k-th write boundary; see test_checkpoint_faults.py.

Boundaries are the calls that change what a reader of the disk finds: renames, unlinks, flushes, directories.

    python save_and_die.py FOLDER KILL_AT        kill at call number KILL_AT (from 1) after the first save
    python save_and_die.py FOLDER 0              count the calls, and print their number
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from megavox.core.workspace import RunFolder
from megavox.training.checkpoint import Progress, load_checkpoint, save_checkpoint
from megavox.training.optimiser import MovingAverage

CALLS = ("fsync", "replace", "rename", "unlink", "remove", "rmdir", "mkdir", "open")
BEST = 2  # the step with the best score
STEPS = 4


def parts() -> tuple[nn.Module, MovingAverage, torch.optim.Optimizer]:
    """A small network, its average, and an optimiser with state of its own."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    return network, MovingAverage(network, 0.9), torch.optim.AdamW(network.parameters(), lr=0.1)


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


def save(folder: RunFolder, step: int) -> None:
    """Write the checkpoint of a step, as the training loop does (one is kept, besides the best)."""
    save_checkpoint(folder, *train_to(step), keep=1)


def die_at(number: int) -> list[str]:
    """From here on kill this process when the number-th write boundary is reached; lists what was called."""
    called: list[str] = []

    def counted(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            called.append(name)
            if len(called) == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **kwargs)

        return wrapped

    for name in CALLS:
        setattr(os, name, counted(name, getattr(os, name)))
    return called


if __name__ == "__main__":
    place, kill_at = RunFolder(Path(sys.argv[1])), int(sys.argv[2])
    save(place, 1)
    calls = die_at(kill_at)
    for at in range(2, STEPS + 1):
        save(place, at)
    sys.stdout.write(" ".join(calls))
    load_checkpoint(place.step(STEPS), *parts())

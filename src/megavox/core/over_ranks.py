"""Sums over all ranks of a training, with their gradient."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

_apart = False


def ranks_together() -> int:
    """How many ranks train together; 1 where this process is alone."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() and not _apart else 1


@contextmanager
def apart() -> Iterator[None]:
    """Each rank by itself for the time of the block: nothing in it is summed over ranks."""
    global _apart
    _apart = True
    try:
        yield
    finally:
        _apart = False


def sum_over_ranks(part: Tensor) -> Tensor:
    """The sum of all ranks' tensors, on each of them; every rank has to come here.

    Going backward, the gradients of all ranks are summed too. A loss of such sums is the same on every rank, so the
    mean of the ranks' gradients, which is what data-parallel training takes, is its gradient.
    """
    return part if ranks_together() == 1 else _Sum.apply(part)


def mean_over_ranks(part: Tensor) -> Tensor:
    """The mean of all ranks' tensors, on each of them."""
    return sum_over_ranks(part) / ranks_together()


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, part: Tensor) -> Tensor:
        total = part.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _Sum.apply(gradients[0])

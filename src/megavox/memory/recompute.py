"""Activation checkpointing by level (Chen 2016, arXiv:1604.06174): of each level only the input is kept, and the level
is computed again when its gradient is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def recompute(network: nn.Module) -> None:
    """From now on every level of this network is computed again in the backward pass; what it gives is the same.

    Args:
        network: in place. Its levels are the parts of its module lists, and else its children, or those of its only
            child, that hold more than one layer with weights.
    """
    for level in _levels(network):
        kind: Any = type(level)
        level.__class__ = _recomputed(kind)  # not a wrapper: weights keep their names, and copies their ways


def _levels(network: nn.Module) -> Iterator[nn.Module]:
    children = list(network.children())
    if len(children) == 1:  # a wrapper
        yield from _levels(children[0])
        return
    for child in children:
        for part in child if isinstance(child, nn.ModuleList) else [child]:
            if sum(1 for one in part.modules() if list(one.parameters(recurse=False))) > 1:
                yield part


@cache
def _recomputed(kind: Any) -> Any:
    """The same kind of module with another `forward`."""
    class Recomputed(kind):  # type: ignore[misc]
        def forward(self, *inputs: Any) -> Any:
            return checkpoint(super().forward, *inputs, use_reentrant=False,
                              context_fn=lambda: (nullcontext(), _seen_already(self)))

    return Recomputed


@contextmanager
def _seen_already(module: nn.Module) -> Iterator[None]:
    """Batch norms do not take what they see into their running statistics a second time."""
    buffers = [one for norm in module.modules() if isinstance(norm, _BatchNorm) for one in norm.buffers()]
    before = [one.clone() for one in buffers]
    try:
        yield
    finally:
        with torch.no_grad():
            for one, value in zip(buffers, before, strict=True):
                one.copy_(value)

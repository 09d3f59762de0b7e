"""Ranks: one process alone, or several under `torchrun`.

`torchrun --nproc-per-node 2 -m megavox train STUDY` starts two. When one dies, torchrun ends the others, and
they notice by themselves: its connections break, and gradients are waited for no longer than `TIMEOUT_S`.
Where the ranks' work differs (validation, a checkpoint of the first), they wait for each other much longer.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook

from megavox.core.errors import MachineError, RankError
from megavox.study.training import RanksSection
from megavox.training.sync_norm import synchronised

TIMEOUT_S = 45.0  # for what all ranks do at one pace
PATIENCE = timedelta(hours=12)  # for what takes one rank longer than another


@dataclass(frozen=True)
class Ranks:
    """This process among all ranks.

    Attributes:
        rank: number of this process.
        count: number of all.
        device: where this rank computes.
        patient: the process group in which ranks wait long for each other; None for one rank.
    """

    rank: int
    count: int
    device: torch.device
    patient: Any = None

    @property
    def first(self) -> bool:
        """Whether this rank writes files and speaks."""
        return self.rank == 0

    def wrap(self, network: nn.Module, section: RanksSection, averaged: bool = True) -> nn.Module:
        """The network as it is trained, with several ranks.

        Args:
            network: where batch norms are synchronised, they are so in the network itself.
            section: how ranks train together.
            averaged: whether to average gradients over ranks; `InBackward` does it itself.
        """
        if self.count == 1:
            return network
        if section.sync_norm:
            network = synchronised(network, self.device)
        if not averaged:
            return network
        wrapped = nn.parallel.DistributedDataParallel(
            network, device_ids=[self.device] if self.device.type == "cuda" else None, bucket_cap_mb=section.bucket_mb,
            forward_sync_buffers=not section.sync_norm)
        if section.gradients == "bfloat16":
            wrapped.register_comm_hook(None, bf16_compress_hook)
        return wrapped

    def sharing(self, count: int) -> Any:
        """The process group of this rank and those beside it, `count` in all, which share samples; every rank has to
        come here. Their number is a multiple of it.
        """
        return dist.new_subgroups(count, timeout=timedelta(seconds=TIMEOUT_S))[0]

    def gather(self, rows: list[Any]) -> list[Any]:
        """The rows of all ranks, on every rank."""
        if self.count == 1:
            return rows
        parts: list[Any] = [None] * self.count
        dist.all_gather_object(parts, rows, group=self.patient)
        return [row for part in parts for row in part]

    def mean(self, value: float) -> float:
        """Mean of a number over ranks."""
        return self.agree(value, False)[0]

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any rank."""
        return self.agree(0.0, flag)[1]

    def agree(self, value: float, flag: bool) -> tuple[float, bool]:
        """Mean of a number over ranks, and whether the flag is set on any of them; in one message."""
        if self.count == 1:
            return value, flag
        tensor = torch.tensor([value, float(flag)], dtype=torch.float64, device=self.device)
        dist.all_reduce(tensor)
        total, flags = tensor.tolist()
        return total / self.count, flags > 0

    def barrier(self) -> None:
        """Wait for all ranks."""
        if self.count > 1:
            dist.barrier(group=self.patient)

    def from_first(self, value: Any) -> Any:
        """The first rank's value, on every rank."""
        if self.count == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, group=self.patient)
        return box[0]


def choose_device(wish: str) -> torch.device:
    """`auto`: the GPU of this local rank where there is one, else the CPU.

    Raises:
        MachineError: a GPU is asked for and there is none.
    """
    if wish == "auto":
        wish = "cuda" if torch.cuda.is_available() else "cpu"
    if wish == "cuda" and not torch.cuda.is_available():
        raise MachineError("the study asks for a GPU and PyTorch finds none", where="training.device",
                           fix="Use --set training.device=cpu, or look at `megavox doctor`")
    if wish == "cuda":
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    return torch.device(wish)


@contextmanager
def ranks(device: str = "auto") -> Iterator[Ranks]:
    """Join the other ranks for the time of the block.

    Raises:
        RankError: another rank died.
    """
    place = choose_device(device)
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Ranks(0, 1, place)
        return
    if place.type == "cuda":
        torch.cuda.set_device(place)
    dist.init_process_group("nccl" if place.type == "cuda" else "gloo", timeout=timedelta(seconds=TIMEOUT_S))
    try:
        yield Ranks(dist.get_rank(), count, place, dist.new_group(backend="gloo", timeout=PATIENCE))
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        raise RankError("another rank died, or did not answer", where=f"rank {dist.get_rank()} of {count}",
                            fix="Look for what that rank said last; the same command goes on from the last "
                            "checkpoint") from error
    finally:
        dist.destroy_process_group()

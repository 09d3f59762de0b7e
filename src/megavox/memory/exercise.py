"""The training of a study as something that can be followed without making it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from megavox.memory.follow import Exercise
from megavox.memory.layout import lay_out
from megavox.memory.offload import offload
from megavox.memory.recompute import recompute
from megavox.memory.streamed.share import Sharing, largest_of
from megavox.memory.streamed.stream import split, stream
from megavox.models.registry import build_model
from megavox.study import AUTO, Study
from megavox.study.training import MemorySection
from megavox.tasks.registry import Task
from megavox.training.in_backward import InBackward
from megavox.training.optimiser import build_optimiser
from megavox.training.sync_norm import synchronised

CPU_SLABS_MB = (8.0,)  # such slabs stay in its cache
GPU_SLABS_MB = (512.0, 128.0)  # thick ones keep a GPU busy, thin ones take less
PARTS = 2  # with the second micro-batch there are gradients from the first


def compute_as(network: nn.Module, section: MemorySection, device: str, share: Sharing | None = None) -> None:
    """From now on this network is computed as the study says; what it gives is the same, but for `keep_as`.

    Args:
        network: in place.
        section: `auto` is plain, laid out as the network does by itself.
        device: kind of device that it will be computed on.
        share: of a rank in every sample, in training, if samples are shared.

    Raises:
        StudyError: networks of this kind cannot be computed so.
    """
    if section.channels_last != AUTO or device != "cpu":  # of itself a network changes that on CPUs alone
        lay_out(network, section.channels_last is True, device)
    kept = torch.bfloat16 if section.keep_as == "bfloat16" else None
    slab_bytes = int(slabs_mb(section, device)[0] * 1e6)
    if share is not None:
        split(network, slab_bytes, kept, share)
    elif section.compute == "streamed":
        stream(network, slab_bytes, kept)
    elif section.compute == "recomputed":
        recompute(network)
    if section.offload is True:
        offload(network)


def slabs_mb(section: MemorySection, device: str) -> tuple[float, ...]:
    """Sizes of slabs, MB, from which to choose; the first is the usual one."""
    if section.slab_mb != AUTO:
        return (float(section.slab_mb),)
    return CPU_SLABS_MB if device == "cpu" else GPU_SLABS_MB


def training_exercise(study: Study, task: Task, channels: int, ranks: int) -> Exercise:
    """What a rank does in a step; of many micro-batches no more than are needed to see what a step takes.

    Args:
        study: with nothing left at `auto` that the network or its batches depend on.
        task: whose loss ends the forward pass.
        channels: of an image.
        ranks: that share a batch.
    """
    training, patch = study.training, tuple(int(side) for side in study.batches.patch)
    samples = int(study.batches.size) // (training.ranks.groups(ranks) * training.accumulate)
    device, shared = str(training.device), training.ranks.split
    share = largest_of(shared) if shared > 1 else None

    def build() -> nn.Module:
        network = build_model(_without_weights_file(study).model, spatial_dims=len(patch), in_channels=channels,
                              out_channels=task.outputs, patch=patch)
        compute_as(network, training.memory, device, share)
        return synchronised(network, torch.device("cpu")) if ranks > 1 and training.ranks.sync_norm else network

    def loss(output: Any) -> Tensor:
        logits = output[0] if isinstance(output, (list, tuple)) else output  # of several the first is the finest
        target = (torch.zeros(samples, task.outputs) if task.kind == "classify"
                  else torch.zeros(samples, *logits.shape[2:], dtype=torch.uint8))
        return task.loss(output, target)

    def optimiser(network: nn.Module) -> torch.optim.Optimizer:
        found = build_optimiser(network, training.optimiser)
        if training.memory.in_backward is True:
            InBackward(network, found, training)
        return found

    return Exercise(build, (samples, channels, *patch), loss, optimiser,
                    bfloat16=training.precision == "bfloat16", clip=training.optimiser.clip or 0.0, average=True,
                    parts=min(training.accumulate, PARTS), device=device)


def _without_weights_file(study: Study) -> Study:
    """The same network with other numbers."""
    if getattr(study.model, "weights", None) is None:
        return study
    return study.model_copy(update={"model": study.model.model_copy(update={"weights": None})})

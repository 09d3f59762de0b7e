"""What memory a training takes, told without making a step: the tensors that the backward pass needs are counted on
PyTorch's `meta` device, which knows their shapes and holds no numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from megavox.models.registry import build_model
from megavox.study.sections import ModelSection
from megavox.study.training import TrainingSection
from megavox.tasks.registry import Task

PROCESS_GB = 0.5  # Python with its libraries and a loader, before anything is trained
COPIES = {"sgd": 3, "lars": 3, "adam": 4, "adamw": 4, "lamb": 4}  # of the weights: with gradients and moments
SAMPLES = 2  # at which is counted: batch norms refuse one
BESIDES = 2  # tensors as large as the largest: gradients on their way back, and copies in a convolution's own layout
MAPPED_BYTES = 32 * 2**20  # a larger tensor has pages of its own (glibc's DEFAULT_MMAP_THRESHOLD_MAX)
HOLES = 1.25  # of the heap that others share: what is let go of between two that stay is not given back


@dataclass(frozen=True)
class Kept:
    """What a training step with one sample has in memory, in bytes.

    Attributes:
        weights: of the network.
        activations: each of what the backward pass needs.
    """

    weights: int
    activations: tuple[int, ...]


def kept(model: ModelSection, task: Task, patch: Sequence[int], channels: int) -> Kept:
    """Count for one sample.

    Args:
        model: with no value at `auto`.
        task: whose loss ends the step.
        patch: (z, y, x) or (y, x) voxels.
        channels: of an image.

    Raises:
        StudyError: the network cannot be built for such patches.
        Exception: it does what cannot be done without numbers.
    """
    found: dict[int, torch.UntypedStorage] = {}  # held on to, so that no number is given twice

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        found[storage._cdata] = storage
        return tensor

    with torch.device("meta"):
        network = build_model(model, spatial_dims=len(patch), in_channels=channels, out_channels=task.outputs,
                              patch=patch).train()
        image = torch.empty(SAMPLES, channels, *patch)
        target = (torch.empty(SAMPLES, task.outputs) if task.kind == "classify"
                  else torch.empty(SAMPLES, *patch, dtype=torch.uint8))
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            task.loss(network(image), target)
    weights = _storages(network)
    sizes = (storage.nbytes() // SAMPLES for number, storage in found.items() if number not in weights)
    return Kept(sum(weights.values()), tuple(sizes))


def _storages(network: nn.Module) -> dict[int, int]:
    return {one.untyped_storage()._cdata: one.untyped_storage().nbytes() for one in network.parameters()}


def training_gb(step: Kept, batch: int, training: TrainingSection) -> float:
    """The most memory that a process takes while it trains, in GB (1e9 bytes): weights with gradients, moments and
    average; what the backward pass needs; and what passes through while it runs.

    Args:
        step: what one sample keeps.
        batch: samples at a time.
        training: optimiser and averaging.
    """
    copies = COPIES[training.optimiser.name] + (training.ema > 0)
    passing = (max(step.activations, default=0),) * BESIDES
    sizes = [batch * one for one in step.activations + passing]
    taken = sum(one if one > MAPPED_BYTES else HOLES * one for one in sizes)
    return PROCESS_GB + (copies * step.weights + taken) / 1e9

"""Networks whose memory is told beforehand, small enough to be run here; and what PyTorch's allocator says of them.

All is on the CPU, in float32.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from monai.networks import nets
from torch import Tensor, nn
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile

from megavox.memory.follow import Exercise
from megavox.memory.streamed.stream import stream
from megavox.models.unet import UNet
from megavox.tasks.losses import dice_ce

Event = tuple[int, int]  # address and bytes, negative where they are given back


def segmented(output: Any) -> Tensor:
    """A loss of logits, or of a list of them."""
    logits = output[0] if isinstance(output, (list, tuple)) else output
    return functional.cross_entropy(logits, torch.zeros(len(logits), *logits.shape[2:], dtype=torch.long))


def classified(logits: Tensor) -> Tensor:
    """A loss of `(B, K)`."""
    return functional.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long))


def momentum(network: nn.Module) -> torch.optim.Optimizer:
    """SGD with one moment."""
    return torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)


def adam(network: nn.Module) -> torch.optim.Optimizer:
    """Two moments."""
    return torch.optim.AdamW(network.parameters(), lr=0.001)


def vgg(layers: tuple[int, ...], classes: int) -> nn.Module:
    """A VGG-like stack in 2D with a linear layer (Simonyan 2014)."""
    parts: list[nn.Module] = []
    inputs = 3
    for width, count in zip((64, 128, 256, 512, 512), layers, strict=True):
        for _ in range(count):
            parts += [nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU(inplace=True)]
            inputs = width
        parts.append(nn.MaxPool2d(2))
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(7), nn.Flatten(), nn.Linear(512 * 49, 4096),
                         nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(4096, classes))


def unet(size: tuple[int, ...], slab_mb: float | None = None) -> Exercise:
    """The U-Net of 32 to 256 feature maps on one image, plain or in slabs."""
    def build() -> nn.Module:
        network = UNet(len(size), 1, 2, widths=[32, 64, 128, 256], strides=[(2,) * len(size)] * 3)
        if slab_mb is not None:
            stream(network, int(slab_mb * 1e6))
        return network

    def loss(logits: Tensor) -> Tensor:
        return dice_ce(logits, torch.zeros(1, *size, dtype=torch.uint8))

    return Exercise(build, (1, 1, *size), loss, adam)


def networks() -> dict[str, Exercise]:
    """Twelve of them."""
    volume: dict[str, Any] = {"spatial_dims": 3, "in_channels": 1, "out_channels": 3}
    flat: dict[str, Any] = {"spatial_dims": 2, "n_input_channels": 3, "num_classes": 14}

    def small_unet(dims: int) -> Callable[[], nn.Module]:
        return lambda: UNet(dims, 1, 3, widths=[16, 32, 64, 128], strides=[(2,) * dims] * 3)

    return {
        "U-Net 2D": Exercise(small_unet(2), (4, 1, 192, 192), segmented, adam),
        "U-Net 3D": Exercise(small_unet(3), (2, 1, 48, 48, 48), segmented, adam),
        "DynUNet 3D": Exercise(lambda: nets.DynUNet(3, 1, 3, [3] * 4, [1, 2, 2, 2], [2] * 3, filters=[16, 32, 64, 128]),
                               (2, 1, 48, 48, 48), segmented, momentum),
        "SegResNet 3D": Exercise(lambda: nets.SegResNet(**volume, init_filters=16), (2, 1, 48, 48, 48), segmented,
                                 adam),
        "SwinUNETR": Exercise(lambda: nets.SwinUNETR(in_channels=1, out_channels=3, feature_size=12),
                              (1, 1, 64, 64, 64), segmented, adam),
        "ResNet-18": Exercise(lambda: nets.resnet18(**flat), (8, 3, 160, 160), classified, momentum),
        "ResNet-50": Exercise(lambda: nets.resnet50(**flat), (8, 3, 160, 160), classified, momentum),
        "ResNet-152": Exercise(lambda: nets.resnet152(**flat), (4, 3, 160, 160), classified, momentum),
        "ResNet-18 3D": Exercise(lambda: nets.resnet18(spatial_dims=3, n_input_channels=1, num_classes=2),
                                 (2, 1, 64, 64, 64), classified, momentum),
        "DenseNet-121": Exercise(lambda: nets.DenseNet121(spatial_dims=2, in_channels=3, out_channels=14),
                                 (8, 3, 160, 160), classified, adam),
        "VGG-11": Exercise(lambda: vgg((1, 1, 2, 2, 2), 14), (4, 3, 160, 160), classified, momentum),
        "VGG-19": Exercise(lambda: vgg((2, 2, 4, 4, 4), 14), (4, 3, 160, 160), classified, momentum),
    }


def train(exercise: Exercise, steps: int = 2, device: str = "cpu") -> None:
    """Make steps as anybody would, with nothing that looks on."""
    assert exercise.loss is not None and exercise.optimiser is not None
    with torch.device(device):
        network = exercise.build().to(device).train()
        optimiser = exercise.optimiser(network)
        image = torch.empty(*exercise.image)
        for _ in range(steps):
            optimiser.zero_grad(set_to_none=True)
            exercise.loss(network(image)).backward()
            optimiser.step()


def step_of(exercise: Exercise) -> Callable[[], float]:
    """Makes a step and says how long it took."""
    assert exercise.loss is not None and exercise.optimiser is not None
    network, loss = exercise.build().train(), exercise.loss
    optimiser, image = exercise.optimiser(network), torch.randn(*exercise.image)

    def step() -> float:
        begin = time.perf_counter()
        optimiser.zero_grad(set_to_none=True)
        loss(network(image)).backward()
        optimiser.step()
        return time.perf_counter() - begin

    return step


def allocated(work: Callable[[], object]) -> tuple[int, int]:
    """The most bytes that PyTorch's CPU allocator had handed out while some work was done, by its own account: without
    and with what operators take and give back while they run."""
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as told:
        work()
    kept: list[Event] = []
    every: list[Event] = []
    for events in _by_operator(told.profiler.kineto_results.experimental_event_tree()):  # type: ignore[union-attr]
        every += events
        kept += _left(events)
    return _most(kept), _most(every)


def _by_operator(roots: list[Any]) -> Iterator[list[Event]]:
    """Allocations inside of each operator that no other one called, in order of time."""
    for node in sorted(roots, key=lambda node: node.start_time_ns):
        if node.name.startswith("aten::"):
            yield list(_inside(node))
        elif hasattr(node.extra_fields, "alloc_size"):
            yield [(node.extra_fields.ptr, node.extra_fields.alloc_size)]
        else:
            yield from _by_operator(node.children)


def _inside(node: Any) -> Iterator[Event]:
    for child in sorted(node.children, key=lambda child: child.start_time_ns):
        if hasattr(child.extra_fields, "alloc_size"):
            yield child.extra_fields.ptr, child.extra_fields.alloc_size
        else:
            yield from _inside(child)


def _left(events: list[Event]) -> list[Event]:
    """Without what was taken and given back among them."""
    open_at: dict[int, int] = {}
    gone: set[int] = set()
    for number, (address, size) in enumerate(events):
        if size > 0:
            open_at[address] = number
        elif address in open_at:
            gone |= {number, open_at.pop(address)}
    return [event for number, event in enumerate(events) if number not in gone]


def _most(events: list[Event]) -> int:
    now = most = 0
    for _, size in events:
        now += size
        most = max(most, now)
    return most

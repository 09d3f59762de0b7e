"""What this machine computes and moves a second, measured by training steps of single layers."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from statistics import median

import numpy as np
import torch
from torch import Tensor, nn

from megavox.memory.live import Live
from megavox.memory.step_time import Throughput

GPU_BATCH = 16  # times as many samples: enough that starting operators takes no share
FASTEST = 4.0  # times the most that any layer moved a second: bandwidths above cannot be told from none

Layer = tuple[Callable[[], nn.Module], Sequence[int]]  # and the shape that goes in, `(B, C, *S)`

PRODUCTS: tuple[Layer, ...] = (
    (partial(nn.Conv3d, 16, 16, 3, padding=1), (1, 16, 48, 48, 48)),
    (partial(nn.Conv3d, 32, 32, 3, padding=1), (1, 32, 40, 40, 40)),
    (partial(nn.Conv3d, 64, 64, 3, padding=1), (1, 64, 24, 24, 24)),
    (partial(nn.Conv3d, 128, 128, 3, padding=1), (1, 128, 12, 12, 12)),
    (partial(nn.Conv3d, 32, 64, 3, stride=2, padding=1), (1, 32, 48, 48, 48)),
    (partial(nn.ConvTranspose3d, 64, 32, 2, stride=2), (1, 64, 24, 24, 24)),
    (partial(nn.Conv2d, 16, 16, 3, padding=1), (4, 16, 192, 192)),
    (partial(nn.Conv2d, 64, 64, 3, padding=1), (4, 64, 80, 80)),
    (partial(nn.Conv2d, 256, 64, 1), (4, 256, 80, 80)),
    (partial(nn.Conv2d, 256, 256, 3, padding=1), (4, 256, 20, 20)))

OTHERS: tuple[Layer, ...] = (
    (partial(nn.InstanceNorm3d, 16, affine=True), (1, 16, 64, 64, 64)),
    (partial(nn.GroupNorm, 8, 16), (1, 16, 64, 64, 64)),
    (partial(nn.BatchNorm2d, 64), (4, 64, 128, 128)),
    (nn.LeakyReLU, (1, 16, 64, 64, 64)),
    (nn.ReLU, (4, 64, 128, 128)))


@dataclass(frozen=True)
class Measured:
    """A step of one layer: its operations, the bytes it moves, and the median of its seconds."""

    operations: int
    moved: int
    seconds: float


def calibrate(device: str, dtype: torch.dtype, seconds: float) -> Throughput:
    """Measure forward and backward passes of convolutions, norms and activations.

    Args:
        device: "cpu" or "cuda".
        dtype: float32, or bfloat16 for autocast to it.
        seconds: of steps that are counted; each layer makes one at the least.
    """
    share = seconds / len(PRODUCTS + OTHERS)
    products, others = ([_measure(layer, device, dtype, share) for layer in layers] for layers in (PRODUCTS, OTHERS))
    peak, bandwidth = _fit(products)
    return Throughput(peak, bandwidth, sum(one.moved for one in others) / sum(one.seconds for one in others))


def _fit(products: Sequence[Measured]) -> tuple[float, float]:
    """Operations and bytes a second, by least squares of `told / took - 1`."""
    from scipy.optimize import lsq_linear  # takes 0.3 s to import

    rates = np.array([[one.operations / one.seconds, one.moved / one.seconds] for one in products])
    least = 1 / (FASTEST * rates.max(axis=0))
    peak, bandwidth = 1 / lsq_linear(rates, np.ones(len(rates)), (least, np.inf)).x
    return float(peak), float(bandwidth)


def _measure(layer: Layer, device: str, dtype: torch.dtype, seconds: float) -> Measured:
    build, (batch, *shape) = layer
    module = build().to(device)
    image = torch.randn(batch * (GPU_BATCH if device == "cuda" else 1), *shape, device=device, requires_grad=True)
    gradient = torch.randn_like(_forward(module, image, dtype))
    step = partial(_step, module, image, gradient, dtype)
    with Live(module) as live:
        step()
    times: list[float] = []
    while not times or sum(times) < seconds:
        times.append(_seconds(step, device))
    return Measured(live.operations, live.product_bytes + live.other_bytes, median(times))


def _forward(module: nn.Module, image: Tensor, dtype: torch.dtype) -> Tensor:
    autocast: AbstractContextManager = nullcontext()
    if dtype != torch.float32:
        autocast = torch.autocast(image.device.type, dtype)
    with autocast:
        made: Tensor = module(image)
    return made


def _step(module: nn.Module, image: Tensor, gradient: Tensor, dtype: torch.dtype) -> None:
    module.zero_grad(set_to_none=True)
    image.grad = None
    _forward(module, image, dtype).backward(gradient)


def _seconds(step: Callable[[], None], device: str) -> float:
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    wait()
    begin = time.perf_counter()
    step()
    wait()
    return time.perf_counter() - begin

"""The streamed U-Net gives what the plain one gives, and every gradient of it."""

from __future__ import annotations

import copy
import gc

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from megavox.memory.follow import Exercise, follow, peak
from megavox.memory.live import Kind
from megavox.memory.streamed.stream import stream
from megavox.models.unet import UNet, level_strides

TINY = 1  # bytes: a slice at a time
SOME = 200_000


def unet(size: tuple[int, ...], **settings: object) -> UNet:
    torch.manual_seed(0)
    return UNet(len(size), 2, 3, widths=[4, 6, 8], strides=level_strides(size, 3), **settings)  # type: ignore[arg-type]


def both(network: UNet, x: Tensor, slab_bytes: int) -> tuple[list[Tensor], list[Tensor]]:
    """Outputs and gradients of image and parameters, and buffers after, of the network and of it streamed."""
    other = copy.deepcopy(network)
    stream(other, slab_bytes)
    return _all(network, x), _all(other, x)


def _all(network: UNet, x: Tensor) -> list[Tensor]:
    torch.manual_seed(1)
    x = x.clone().requires_grad_()
    found = network(x)
    outputs = found if isinstance(found, list) else [found]
    target = torch.randint(0, 3, (len(x), *x.shape[2:]))
    torch.stack([functional.cross_entropy(one, target[(slice(None), *[slice(None, None, full // n) for full, n in zip(
        target.shape[1:], one.shape[2:], strict=True)])]) for one in outputs]).sum().backward()
    outputs = [one.detach() for one in outputs]
    return [*outputs, x.grad, *(one.grad for one in network.parameters()), *network.buffers()]  # type: ignore[list-item]


def differ(pair: tuple[list[Tensor], list[Tensor]]) -> float:
    """The largest difference of any, relative to its largest number."""
    return max(float((one - two).abs().max() / one.abs().max()) for one, two in zip(*pair, strict=True))


def error(truth: list[Tensor], found: list[Tensor]) -> float:
    """Sum of relative errors."""
    return sum(float((one - two).norm() / one.norm()) for one, two in zip(truth, found, strict=True))


@pytest.mark.parametrize("slab_bytes", [TINY, SOME, 10**9])
@pytest.mark.parametrize("settings", [
    {}, {"norm": "batch"}, {"norm": "group"}, {"kernel": 5}, {"residual_units": 1}, {"residual_units": 2},
    {"dropout": 0.3}, {"deep_supervision": True}, {"norm": "batch", "residual_units": 1, "dropout": 0.2}])
def test_every_form_of_it_is_equal_in_float64(settings: dict, slab_bytes: int) -> None:
    size = (12, 16, 8)
    x = torch.randn(2, 2, *size, dtype=torch.float64)
    assert differ(both(unet(size, **settings).double(), x, slab_bytes)) < 1e-12


def test_pictures_and_thin_volumes() -> None:
    for size in ((16, 24), (5, 16, 24)):
        x = torch.randn(2, 2, *size, dtype=torch.float64)
        assert differ(both(unet(size).double(), x, TINY)) < 1e-12


def test_float32() -> None:
    x = torch.randn(2, 2, 12, 16, 8)
    assert differ(both(unet((12, 16, 8)), x, SOME)) < 1e-4


def test_running_statistics_in_use() -> None:
    network = unet((12, 16, 8), norm="batch").double()
    x = torch.randn(2, 2, 12, 16, 8, dtype=torch.float64)
    network(x)
    assert differ(both(network.eval(), x, TINY)) < 1e-12


def test_under_autocast_it_is_as_near_to_the_truth_as_the_plain_one() -> None:
    network, x = unet((12, 16, 8)), torch.randn(2, 2, 12, 16, 8)
    truth = _all(network, x)
    network.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        plain, other = both(network, x, SOME)
    assert other[0].dtype == plain[0].dtype == torch.bfloat16
    assert error(truth, other) < 1.2 * error(truth, plain)


def test_maps_kept_in_bfloat16_are_nearer_to_the_truth_than_autocast() -> None:
    network, x = unet((12, 16, 8)), torch.randn(2, 2, 12, 16, 8)
    truth = _all(network, x)
    network.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        rounded = _all(network, x)
    network.zero_grad()
    stream(network, SOME, kept=torch.bfloat16)
    kept = _all(network, x)
    assert kept[0].dtype == torch.float32
    assert 0 < error(truth, kept) < error(truth, rounded)


def test_no_tensor_waits_for_the_garbage_collector() -> None:
    network, x = unet((12, 16, 8)), torch.randn(2, 2, 12, 16, 8)
    stream(network, SOME)
    network(x).square().mean().backward()  # the first time imports what may leave something
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        network(x).square().mean().backward()
        gc.collect()
        assert not [one for one in gc.garbage if isinstance(one, Tensor)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


def test_maps_are_told_with_the_module_that_makes_them() -> None:
    def build() -> UNet:
        network = unet((16, 16, 16))
        stream(network, SOME)
        return network

    most = peak(follow(Exercise(build, (2, 2, 16, 16, 16), lambda found: found.square().mean())))
    assert {"decoder.1.0.0", "encoder.0.1.0"} <= {one.module for one in most.largest}
    assert all(one.module for one in most.largest if one.kind == Kind.ACTIVATIONS)

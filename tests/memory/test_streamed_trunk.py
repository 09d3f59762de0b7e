"""The streamed VGG and ResNet give what the plain ones give, and every gradient of them."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from megavox.core.errors import StudyError
from megavox.memory.follow import Exercise, follow, peak
from megavox.memory.live import Kind
from megavox.memory.streamed.stream import stream
from megavox.models.resnet import ResNet
from megavox.models.vgg import VGG

TINY = 1  # bytes: a slice at a time
SOME = 100_000


def vgg(size: tuple[int, ...], **settings: Any) -> nn.Module:
    torch.manual_seed(0)
    return _changed(VGG(**{"depth": 11, "in_channels": 2, "classes": 3, "patch": size, "filters": 4, "hidden": 8}
                        | settings))


def resnet(size: tuple[int, ...], **settings: Any) -> nn.Module:
    torch.manual_seed(0)
    return _changed(ResNet(**{"depth": 18, "dims": len(size), "in_channels": 2, "classes": 3, "filters": 8} | settings))


def _changed(network: nn.Module) -> nn.Module:
    """With norms that change what they see: at their first values, gradients in front of other norms would be noise."""
    for one in network.parameters():
        if one.ndim == 1:
            nn.init.normal_(one)
    return network


def results(network: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """By name: logits, gradients of image and parameters, and buffers after."""
    torch.manual_seed(1)
    x = x.clone().requires_grad_()
    logits = network(x)
    functional.cross_entropy(logits, torch.arange(len(x)) % 3).backward()
    assert x.grad is not None
    found = {name: one.grad for name, one in network.named_parameters() if one.grad is not None}
    return {"logits": logits.detach(), "image": x.grad} | found | dict(network.named_buffers())


def differ(network: nn.Module, x: Tensor, slab_bytes: int) -> float:
    """The largest difference of any between the plain and the streamed one, relative to its largest number."""
    other = copy.deepcopy(network)
    stream(other, slab_bytes)
    plain, streamed = results(network, x), results(other, x)
    assert plain.keys() == streamed.keys()
    return max(float((one - streamed[name]).abs().max() / one.abs().max().clamp_min(1e-9))
               for name, one in plain.items())


def error(truth: dict[str, Tensor], found: dict[str, Tensor]) -> float:
    """Sum of relative errors of logits and gradients of weights."""
    return sum(float((one - found[name]).norm() / one.norm()) for name, one in truth.items()
               if name == "logits" or name.endswith("weight"))


def image(size: tuple[int, ...], batch: int = 4, channels: int = 2) -> Tensor:
    return torch.randn(batch, channels, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("slab_bytes", [TINY, SOME, 10**9])
@pytest.mark.parametrize(("build", "settings", "size"), [
    (vgg, {}, (45, 38)), (vgg, {"norm": "none"}, (45, 38)), (vgg, {"depth": 16, "norm": "none"}, (45, 38)),
    (resnet, {}, (45, 38)), (resnet, {"depth": 34}, (45, 38)), (resnet, {"depth": 50}, (45, 38)),
    (resnet, {"depth": 59, "dropout": 0.2}, (135, 70)), (resnet, {"filters": 4}, (45, 38))])
def test_pictures_of_odd_sizes(build: Any, settings: dict, size: tuple[int, ...], slab_bytes: int) -> None:
    assert differ(build(size, **settings).double(), image(size), slab_bytes) < 1e-12


@pytest.mark.parametrize("slab_bytes", [TINY, SOME])
@pytest.mark.parametrize(("build", "settings", "size"), [
    (vgg, {}, (33, 37, 35)), (vgg, {"norm": "none"}, (33, 37, 35)), (resnet, {}, (33, 37, 35)),
    (resnet, {"depth": 50}, (5, 37, 35)), (resnet, {}, (1, 40, 40))])
def test_volumes_of_odd_sizes(build: Any, settings: dict, size: tuple[int, ...], slab_bytes: int) -> None:
    assert differ(build(size, **settings).double(), image(size), slab_bytes) < 1e-12


@pytest.mark.parametrize("channels", [1, 6])
@pytest.mark.parametrize(("build", "settings"), [(vgg, {}), (vgg, {"norm": "none"}), (resnet, {}),
                                                 (resnet, {"filters": 4})])
def test_images_of_one_channel_and_of_many(build: Any, settings: dict, channels: int) -> None:
    size = (37, 40)
    assert differ(build(size, in_channels=channels, **settings).double(), image(size, channels=channels), SOME) < 1e-12


def test_what_is_kept_lies_as_the_image_does() -> None:
    """One channel is channels-last and is not; narrow ResNets must not be: oneDNN would write past its buffers."""
    for filters in (4, 8):
        network = resnet((37, 40), in_channels=1, filters=filters).double()
        stream(network, SOME)
        inputs: list[Tensor] = []
        network.avgpool.register_forward_pre_hook(lambda _, seen, inputs=inputs: inputs.append(seen[0]))
        network(image((37, 40), channels=1))
        assert inputs[0].is_contiguous(memory_format=torch.channels_last) == (filters == 8)


@pytest.mark.parametrize("build", [vgg, resnet])
def test_running_statistics_in_use(build: Any) -> None:
    network = build((45, 38)).double()
    network(image((45, 38)))
    assert differ(network.eval(), image((45, 38)), TINY) < 1e-12


def test_first_layers_that_do_not_learn() -> None:
    plain = resnet((45, 38)).double()
    for part in (plain.conv1, plain.bn1, plain.layer1):
        part.requires_grad_(False)
    streamed = copy.deepcopy(plain)
    stream(streamed, TINY)
    for network in (plain, streamed):
        network(image((45, 38))).square().sum().backward()
    for (name, one), other in zip(plain.named_parameters(), streamed.parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None) == (name.startswith(("conv1", "bn1", "layer1"))), name
        assert one.grad is None or (one.grad - other.grad).abs().max() < 1e-12 * one.grad.abs().max(), name


@pytest.mark.parametrize("build", [vgg, resnet])
def test_under_autocast_it_is_as_near_to_the_truth_as_the_plain_one(build: Any) -> None:
    network, x = build((64, 64)), image((64, 64))
    streamed = copy.deepcopy(network)
    stream(streamed, SOME)
    truth = results(copy.deepcopy(network).double(), x)
    with torch.autocast("cpu", torch.bfloat16):
        plain, found = results(network, x.float()), results(streamed, x.float())
    assert found["logits"].dtype == plain["logits"].dtype == torch.bfloat16
    assert error(truth, found) < 1.2 * error(truth, plain)


@pytest.mark.parametrize(("build", "settings"), [(vgg, {}), (vgg, {"depth": 16, "norm": "none"}),
                                                 (resnet, {"filters": 16})])
def test_feature_maps_take_a_third_less_or_better(build: Any, settings: dict) -> None:
    def taken(slab_bytes: int | None) -> int:
        def network() -> nn.Module:
            made: nn.Module = build((64, 64, 64), in_channels=1, **settings)
            if slab_bytes is not None:
                stream(made, slab_bytes)
            return made
        found = peak(follow(Exercise(network, (1, 1, 64, 64, 64), lambda logits: logits.square().sum())))
        return found.kinds[Kind.ACTIVATIONS]

    assert taken(SOME) < taken(None) * 2 / 3


def test_other_networks_are_refused_by_name() -> None:
    with pytest.raises(StudyError, match=r"Conv2d cannot .* unet, vgg or resnet"):
        stream(nn.Conv2d(1, 1, 1), SOME)

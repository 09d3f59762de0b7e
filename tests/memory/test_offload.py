"""Activations in main memory: the same bits come back, each storage leaves once, and none of the device's stays."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from megavox.memory.follow import Exercise, follow, go, peak
from megavox.memory.live import Kind, Live
from megavox.memory.offload import offload, offloaded
from megavox.models.unet import UNet

LEAST = 1000
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
IMAGE = torch.randn(2, 1, 16, 16, 16, generator=torch.Generator().manual_seed(1))


def unet() -> nn.Module:
    torch.manual_seed(0)
    return UNet(3, 1, 3, widths=[4, 8, 16], strides=[(2, 2, 2)] * 2)


def moved() -> nn.Module:
    network = unet()
    offload(network, LEAST)
    return network


def square(logits: Tensor) -> Tensor:
    return logits.square().mean()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
@pytest.mark.parametrize("bfloat16", [False, True])
@pytest.mark.parametrize("device", DEVICES)
def test_outputs_and_gradients_are_the_same_bits(layout: torch.memory_format, bfloat16: bool, device: str) -> None:
    found = []
    for network in (unet().to(device), moved().to(device)):
        for _ in range(3):  # memory of the steps before is used again
            network.zero_grad()
            image = IMAGE.to(device).clone(memory_format=layout).requires_grad_()
            with torch.autocast(device, torch.bfloat16, enabled=bfloat16), \
                    torch.backends.cudnn.flags(deterministic=True):
                logits = network(image)
                square(logits.float()).backward()
        found.append([logits, image.grad, *(one.grad for one in network.parameters())])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_copies_and_weights_are_those_of_the_network() -> None:
    network = moved()
    again = copy.deepcopy(network)
    assert list(network.state_dict()) == list(unet().state_dict()) and isinstance(again, UNet)
    assert torch.equal(again(IMAGE), unet()(IMAGE))


class Host:
    """What is copied to main memory while an expression and its backward pass are computed."""

    def __init__(self, weight: Tensor) -> None:
        self.network = nn.ParameterList([weight])

    def sizes(self, compute: object) -> list[int]:
        with Live(self.network) as live:
            with offloaded(self.network, LEAST):
                result = compute()  # type: ignore[operator]
            result.sum().backward()
            del result
        assert sum(size for _, size in live.host_events) == 0, "nothing is left of them"
        return [one.size for one in live.made if one.kind == Kind.HOST]


def test_what_is_saved_twice_is_copied_once_and_parameters_stay() -> None:
    weight = nn.Parameter(torch.rand(40, 40))
    host, image = Host(weight), torch.rand(40, 40)
    plain = torch.autograd.grad(functional.relu(image @ weight).square().sum(), weight)
    # What relu gives is saved by relu, and twice by the product; the transposed weight is a view of a parameter.
    assert host.sizes(lambda: (lambda one: one * one.mT.mT)(functional.relu(image @ weight))) == [6400, 6400]
    assert torch.equal(weight.grad, plain[0])  # type: ignore[arg-type]


def test_each_comes_back_once_and_while_the_one_after_it_is_used() -> None:
    weight = nn.Parameter(torch.rand(40, 40))
    network = nn.ParameterList([weight])
    with Live(network) as live:
        with offloaded(network, LEAST):
            first = (weight + 1) * (weight + 2)  # one operator saves two
            second = first.exp()  # two operators save it
            third = second.square()
        fetched: list[int] = []
        for one in (second, first):
            one.register_hook(lambda _: fetched.append(sum(made.operator == "aten::empty_like" for made in live.made)))
        third.sum().backward()
    assert fetched == [2, 2], "what two saved, and ahead of its use one of the first two"
    assert sum(made.operator == "aten::empty_like" for made in live.made) == 3


def test_small_storages_stay_and_views_bring_their_whole_storage() -> None:
    weight = nn.Parameter(torch.rand(40, 40))
    host = Host(weight)
    assert host.sizes(lambda: weight[:2].exp()) == []
    large = torch.rand(80, 40)
    assert host.sizes(lambda: weight[:2] * large[3:5] + weight[2:4] * large[40:42]) == [80 * 40 * 4]


def test_a_storage_that_was_changed_is_copied_again() -> None:
    weight = nn.Parameter(torch.rand(40, 40))
    first = torch.rand(40, 40)
    kept = first.clone()

    def compute() -> Tensor:
        one = weight * first
        first.add_(1.0)
        return one + weight * first

    assert len(Host(weight).sizes(compute)) == 2
    assert torch.allclose(weight.grad, 2 * kept + 1)  # type: ignore[arg-type]


def test_a_second_backward_pass_and_one_that_is_never_made() -> None:
    network, plain = moved(), unet()
    loss, expected = square(network(IMAGE)), square(plain(IMAGE))
    square(network(IMAGE))
    for one, other in ((loss, expected),) * 2:
        network.zero_grad()
        plain.zero_grad()
        one.backward(retain_graph=True)
        other.backward(retain_graph=True)
        assert all(torch.equal(a.grad, b.grad)  # type: ignore[arg-type]
                   for a, b in zip(network.parameters(), plain.parameters(), strict=True))
    last = list(network.parameters())[-1]
    assert torch.equal(torch.autograd.grad(square(network(IMAGE)), last)[0], last.grad)  # type: ignore[arg-type]


def test_the_estimate_counts_host_copies_apart() -> None:
    shape = (2, 1, 32, 32, 32)
    plain, less = (follow(Exercise(build, shape, square)) for build in (unet, moved))
    told = peak(less)
    assert peak(plain).host == 0 and told.kinds[Kind.HOST] == 0
    assert told.size < 0.5 * peak(plain).size
    assert told.host > 0.5 * peak(plain).kinds[Kind.ACTIVATIONS]
    assert sum(told.kinds.values()) == told.size
    took = peak(go(Exercise(moved, shape, square)))
    assert (took.size, took.host) == (told.size, told.host)


def test_the_device_holds_nothing_of_a_step_that_is_over() -> None:
    left = {build: sum(size for _, size in follow(Exercise(build, (2, 1, 16, 16, 16), square)).events)
            for build in (unet, moved)}
    assert left[unet] == left[moved]


def test_after_the_forward_pass_only_what_is_small_is_on_the_device() -> None:
    network, image = moved(), IMAGE.clone()
    with Live(network) as live:
        live.there([*network.parameters(), image], Kind.WEIGHTS)
        logits = network(image)
        there: dict[int, int] = {}
        for number, size in live.events:
            there[number] = there.get(number, 0) + size
        large = [live.made[number] for number, size in there.items()
                 if size >= LEAST and live.made[number].kind != Kind.WEIGHTS]
        assert [one.size for one in large] == [logits.nbytes]

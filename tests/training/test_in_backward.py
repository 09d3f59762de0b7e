"""Fused steps, and steps within the backward pass: the weights, and the state, are those of plain ones."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from megavox.core.errors import StudyError
from megavox.core.workspace import RunFolder
from megavox.memory.follow import Exercise, follow, go, peak
from megavox.memory.live import Kind
from megavox.memory.offload import offload
from megavox.memory.recompute import recompute
from megavox.memory.streamed.stream import stream
from megavox.models.unet import UNet
from megavox.study.training import OptimiserSection, TrainingSection
from megavox.training.checkpoint import Progress, load_checkpoint, save_checkpoint
from megavox.training.in_backward import InBackward
from megavox.training.optimiser import MovingAverage, build_optimiser, learning_rate

NAMES = ["adam", "adamw", "sgd", "lars", "lamb"]
FUSED = NAMES[:3]
STEPS = 6
IMAGE = torch.randn(2, 1, 16, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def unet() -> nn.Module:
    torch.manual_seed(0)
    return UNet(3, 1, 2, widths=[4, 8], strides=[(2, 2, 2)]).double()


def section(name: str, **settings: Any) -> TrainingSection:
    return TrainingSection(steps=STEPS, optimiser=OptimiserSection(
        name=name, rate=0.03, weight_decay=0.1, clip=None, **settings))  # type: ignore[arg-type]


def plain(network: nn.Module, training: TrainingSection) -> torch.optim.Optimizer:
    """As it is built, but not fused."""
    optimiser = build_optimiser(network, training.optimiser)
    for group in optimiser.param_groups:
        group["fused"] = group["foreach"] = False
    return optimiser


def fused(network: nn.Module, training: TrainingSection) -> torch.optim.Optimizer:
    return build_optimiser(network, training.optimiser)


def within(network: nn.Module, training: TrainingSection) -> torch.optim.Optimizer:
    optimiser = fused(network, training)
    InBackward(network, optimiser, training)
    return optimiser


def steps(network: nn.Module, optimiser: torch.optim.Optimizer, training: TrainingSection, first: int = 0,
          end: int = STEPS) -> dict[str, Tensor]:
    """Make steps of the schedule, and give the weights then."""
    for step in range(first, end):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, STEPS, training.optimiser)
        optimiser.zero_grad(set_to_none=True)
        network(IMAGE).square().mean().backward()
        optimiser.step()
    return {name: value.clone() for name, value in network.state_dict().items()}


def steps_of_drawn_gradients(network: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The weights after steps of gradients that do not depend on the weights."""
    drawn = torch.Generator().manual_seed(2)
    for _ in range(STEPS):
        for one in network.parameters():
            one.grad = torch.randn(one.shape, dtype=one.dtype, generator=drawn)
        optimiser.step()
    return network.state_dict()


def furthest(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    return max(float((value - other[name]).abs().max() / value.abs().max()) for name, value in one.items())


@pytest.mark.parametrize("name", FUSED)
def test_training_with_fused_steps_is_that_with_plain_ones(name: str) -> None:
    training, first = section(name), unet()
    one, other = (steps(network := copy.deepcopy(first), build(network, training), training)
                  for build in (plain, fused))
    assert furthest(one, other) <= 1e-12
    assert furthest(one, first.state_dict()) > 1e-2, "they did learn"


@pytest.mark.parametrize("name", FUSED)
def test_a_fused_step_is_the_plain_one_in_float32(name: str) -> None:
    """Of the same gradients: those of the weights would differ where rounding turns a sign before a rectifier."""
    training, first = section(name), unet().float()
    one, other = (steps_of_drawn_gradients(network := copy.deepcopy(first), build(network, training))
                  for build in (plain, fused))
    assert furthest(one, other) <= 1e-5
    assert furthest(one, first.state_dict()) > 1e-2, "they did step"


@pytest.mark.parametrize("name", NAMES)
def test_a_step_in_the_backward_pass_is_the_same_to_the_bit_with_the_same_state(name: str) -> None:
    training, found = section(name), []
    for build in (fused, within):
        network = unet()
        optimiser = build(network, training)
        found.append((steps(network, optimiser, training), optimiser.state_dict()))
        assert build is fused or all(one.grad is None for one in network.parameters())
    (weights, state), (others, same) = found
    assert furthest(weights, others) == 0.0
    assert state["param_groups"] == same["param_groups"] and state["state"].keys() == same["state"].keys()
    for number, values in state["state"].items():
        assert values.keys() == same["state"][number].keys()
        assert all(torch.equal(value, same["state"][number][key]) for key, value in values.items())


STRATEGIES = {"streamed": partial(stream, slab_bytes=50_000), "recomputed": recompute,
              "offloaded": partial(offload, least_bytes=1000)}


@pytest.mark.parametrize("name", STRATEGIES)
def test_it_goes_with_every_other_strategy(name: str) -> None:
    training, change = section("adamw"), STRATEGIES[name]
    network, other = unet(), unet()
    change(network)
    change(other)
    after = steps(network, fused(network, training), training)
    assert furthest(after, steps(other, within(other, training), training)) <= 1e-12
    truth = unet()
    assert furthest(steps(truth, plain(truth, training), training), after) <= 1e-10


Build = Callable[[nn.Module, TrainingSection], torch.optim.Optimizer]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("before", "afterwards"), [(fused, fused), (fused, within), (within, fused), (plain, plain)])
def test_a_checkpoint_goes_on_bit_for_bit(tmp_path: Path, name: str, before: Build, afterwards: Build) -> None:
    """One that was written by plain steps goes on with plain ones, however it is built."""
    training, network = section(name), unet()
    whole = steps(network, before(network, training), training)
    network, half = unet(), STEPS // 2
    optimiser = before(network, training)
    steps(network, optimiser, training, end=half)
    average = MovingAverage(network, 0.0)
    save_checkpoint(RunFolder(tmp_path), network, average, optimiser, Progress(step=half), keep=1)
    network = unet()
    optimiser = (fused if afterwards is plain else afterwards)(network, training)
    load_checkpoint(RunFolder(tmp_path).step(half), network, average, optimiser)
    assert furthest(steps(network, optimiser, training, first=half), whole) == 0.0


@pytest.mark.parametrize("name", FUSED)
def test_a_first_gradient_may_come_late(name: str) -> None:
    ends = []
    for build in (plain, fused):
        network = nn.ParameterList([torch.ones(3), torch.ones(3)])
        optimiser = build(network, section(name))
        for late in (0.0, 1.0, 1.0):
            optimiser.zero_grad()
            (network[0] + late * network[1] if late else network[0]).sum().backward()
            optimiser.step()
        ends.append(torch.cat([one.detach() for one in network]))
    torch.testing.assert_close(*ends)


def wide() -> nn.Module:
    """Nearly all of its memory is weights."""
    return nn.Sequential(*[nn.Linear(300, 300, bias=False) for _ in range(6)])


ONE = 300 * 300 * 4  # bytes of one of six weights


def exercise(build: Build, name: str) -> Exercise:
    return Exercise(wide, (1, 300), lambda found: found.sum(), lambda network: build(network, section(name)))


@pytest.mark.parametrize(("name", "states"), [("adamw", 2), ("sgd", 1)])
def test_neither_takes_temporaries_and_the_latter_one_gradient(name: str, states: int) -> None:
    sizes = {build: peak(follow(exercise(build, name))).size for build in (plain, fused, within)}
    assert sizes[plain] > (7 + 6 * (1 + states)) * ONE, "a temporary, beside weights, gradients and state"
    assert sizes[fused] == pytest.approx((6 + 6 * (1 + states)) * ONE, rel=0.02)
    assert sizes[within] == pytest.approx((6 + 6 * states + 1) * ONE, rel=0.02), "one gradient at a time"


def test_what_is_told_of_it_is_what_it_takes() -> None:
    told, took = peak(follow(exercise(within, "adamw"))), peak(go(exercise(within, "adamw")))
    assert told == took and told.kinds[Kind.GRADIENTS] == 0


def test_what_needs_all_gradients_is_refused() -> None:
    network = unet()
    for settings, where in (({"optimiser": OptimiserSection(rate=0.1, clip=1.0)}, r"training\.optimiser\.clip: .*norm"),
                            ({"accumulate": 2, "optimiser": OptimiserSection(rate=0.1, clip=None)},
                             r"training\.accumulate: .*2 micro-batches.* Set it to 1")):
        training = TrainingSection(**settings)  # type: ignore[arg-type]
        with pytest.raises(StudyError, match=where):
            within(network, training)
    network(IMAGE).sum().backward()
    assert all(one.grad is not None for one in network.parameters()), "no hook was left"


def test_closed_it_gives_gradients_again() -> None:
    network, training = unet(), section("sgd")
    first = {name: value.clone() for name, value in network.state_dict().items()}
    InBackward(network, fused(network, training), training).close()
    network(IMAGE).sum().backward()
    assert furthest(first, network.state_dict()) == 0.0
    assert all(one.grad is not None for one in network.parameters())

"""What is told of a step without making it is what PyTorch's own allocator says of one that was made."""

from __future__ import annotations

import gc
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile

from megavox.memory.follow import STEPS, Exercise, follow, go, peak
from megavox.memory.layout import lay_out
from megavox.memory.live import Kind
from megavox.memory.workspaces import of_cuda
from megavox.models.unet import UNet
from megavox.study.training import OptimiserSection
from megavox.training.optimiser import build_optimiser


def unet() -> nn.Module:
    return UNet(3, 1, 3, widths=[8, 16, 32], strides=[(2, 2, 2)] * 2)


def classes(logits: Tensor) -> Tensor:
    return functional.cross_entropy(logits, torch.zeros(len(logits), *logits.shape[2:], dtype=torch.long))


def sgd(network: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)


def adam(network: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(network.parameters(), lr=0.01)


TRAINING = Exercise(unet, (2, 1, 32, 32, 32), classes, sgd)


def allocated(work: Callable[[], object]) -> int:
    """The most bytes that PyTorch's CPU allocator had handed out, by its own account, workspaces included."""
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as told:
        work()
    now = most = 0
    events = [one for one in told.profiler.kineto_results.events() if one.name() == "[memory]"]  # type: ignore[union-attr]
    for one in sorted(events, key=lambda one: one.start_ns()):
        now += one.nbytes()
        most = max(most, now)
    return most


def train() -> None:
    network = unet()
    optimiser = sgd(network)
    image = torch.empty(2, 1, 32, 32, 32)
    for _ in range(2):
        optimiser.zero_grad(set_to_none=True)
        classes(network(image)).backward()
        optimiser.step()


@pytest.mark.parametrize("exercise", [
    TRAINING, Exercise(unet, (2, 1, 32, 32, 32), classes, adam, clip=1.0, average=True),
    Exercise(unet, (2, 1, 32, 32, 32)), Exercise(unet, (2, 1, 32, 32, 32), classes, sgd, bfloat16=True)])
def test_fake_tensors_tell_what_real_ones_do(exercise: Exercise) -> None:
    told, took = follow(exercise), go(exercise)
    assert peak(told).size == pytest.approx(peak(took).size, rel=1e-4)
    assert peak(told).operator == peak(took).operator
    assert sum(size for _, size in told.events) < peak(told).size


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd", "lars", "lamb"])
def test_a_training_that_no_machine_has_the_memory_for_is_followed(name: str) -> None:
    """Two linear layers of a terabyte each: nothing of them is made."""
    section = OptimiserSection(name=name, rate=0.1)  # type: ignore[arg-type]
    huge = Exercise(lambda: nn.Sequential(nn.Linear(2**9, 2**29), nn.Linear(2**29, 2**9)), (1, 2**9),
                    lambda found: found.sum(), lambda network: build_optimiser(network, section))
    assert peak(follow(huge)).kinds[Kind.WEIGHTS] > 2e12


def test_it_is_what_the_allocator_says() -> None:
    assert peak(follow(TRAINING)).size == pytest.approx(allocated(train), rel=0.02)


def test_kinds_of_what_is_there() -> None:
    network = unet()
    weights = sum(4 * one.numel() for one in network.parameters())
    most = peak(follow(Exercise(unet, (2, 1, 32, 32, 32), classes, adam, average=True)))
    assert most.kinds[Kind.WEIGHTS] == weights
    assert most.kinds[Kind.INPUT] == 2 * 32**3 * 4
    assert most.kinds[Kind.OPTIMISER] == pytest.approx(3 * weights, rel=1e-2)  # two moments, steps and the average
    assert sum(most.kinds.values()) == most.size
    assert most.module.startswith("decoder.")
    assert most.largest[0].size == max(one.size for one in most.largest)


def test_a_convolution_on_a_gpu_copies_what_it_works_on_with_channels_last_and_filled_up() -> None:
    def build() -> nn.Module:
        return nn.Sequential(nn.Conv3d(3, 8, 3, padding=1, bias=False), nn.ReLU())

    live = follow(Exercise(build, (1, 3, 4, 4, 4), lambda found: found.square().mean()), of_cuda)
    sizes = [one.size for one in live.made if one.kind == Kind.WORKSPACE]
    voxels, taps = 4**3, 3**3
    assert sizes == [16 * voxels + 8 * 16 * taps + 32 * voxels] * 2 * STEPS  # 3 channels of 4 bytes take 16


def test_what_lies_with_channels_last_is_not_copied_but_for_weights() -> None:
    def build() -> nn.Module:
        network = nn.Sequential(nn.Conv3d(4, 8, 3, padding=1, bias=False), nn.ReLU())
        lay_out(network, channels_last=True, device="cuda")
        return network

    live = follow(Exercise(build, (2, 4, 4, 4, 4), lambda found: found.square().mean()), of_cuda)
    assert [one.size for one in live.made if one.kind == Kind.WORKSPACE] == [8 * 16 * 3**3] * 2 * STEPS


def test_what_operators_take_beside_counts_while_they_run() -> None:
    live = follow(TRAINING, lambda operator, *_: 10**9 if operator.name() == "aten::leaky_relu_backward" else 0)
    most = peak(live)
    assert most.kinds[Kind.WORKSPACE] == 10**9 and most.operator == "aten::leaky_relu_backward"
    assert most.size < 10**9 + peak(follow(TRAINING)).size + 1

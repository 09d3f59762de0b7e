"""What every strategy that is called exact promises: outputs, every gradient and every buffer of the plain one."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from megavox.memory.follow import Exercise, follow, peak
from megavox.memory.recompute import recompute
from megavox.memory.streamed.unet import stream
from megavox.models.registry import build_model
from megavox.study.sections import DenseNetModel, ModelSection, ResNetModel, UNetModel, VGGModel

Strategy = Callable[[nn.Module], None]


def unet(**settings: object) -> UNetModel:
    return UNetModel(family="unet", filters=4, levels=3, **settings)  # type: ignore[arg-type]


EXACT: dict[str, tuple[Strategy, list[ModelSection]]] = {
    "streamed": (partial(stream, slab_bytes=50_000), [unet(), unet(norm="batch", dropout=0.3), unet(residual_units=1)]),
    "recomputed": (recompute, [unet(), unet(norm="batch", dropout=0.3), unet(deep_supervision=True),
                               ResNetModel(family="resnet", filters=8), DenseNetModel(family="densenet121"),
                               VGGModel(family="vgg", filters=4, hidden=16, depth=11)]),
}
IMAGE = torch.randn(2, 2, 32, 32, 32, generator=torch.Generator().manual_seed(1))
each = pytest.mark.parametrize(("name", "section"), [
    pytest.param(name, section, id=f"{name}-{section.family}-{number}")
    for name, (_, sections) in EXACT.items() for number, section in enumerate(sections)])


def network_of(section: ModelSection) -> nn.Module:
    torch.manual_seed(0)
    return build_model(section, spatial_dims=3, in_channels=2, out_channels=3, patch=(32, 32, 32))


def results(network: nn.Module, image: Tensor, steps: int = 2) -> dict[str, Tensor]:
    """By name: outputs, gradients and buffers after some steps."""
    optimiser = torch.optim.SGD(network.parameters(), lr=1e-3)
    for step in range(steps):
        torch.manual_seed(step)
        optimiser.zero_grad()
        found = network(image)
        outputs = found if isinstance(found, list) else [found]
        torch.stack([one.square().mean() for one in outputs]).sum().backward()
        optimiser.step()
    return ({f"output {number}": one.detach() for number, one in enumerate(outputs)}
            | {f"gradient of {name}": one.grad for name, one in network.named_parameters() if one.grad is not None}
            | dict(network.named_buffers()))


def differ(plain: dict[str, Tensor], changed: dict[str, Tensor]) -> float:
    """The largest difference, relative to the largest number of the same tensor."""
    assert plain.keys() == changed.keys()
    return max(float((one - changed[name]).abs().max() / one.abs().max().clamp_min(1e-9))
               for name, one in plain.items())


@each
def test_it_is_exact_in_float64(name: str, section: ModelSection) -> None:
    network = network_of(section).double().train()
    other = copy.deepcopy(network)
    EXACT[name][0](other)
    image = IMAGE.double()
    assert differ(results(network, image), results(copy.deepcopy(other), image)) < 1e-12


@each
def test_in_float32_it_is_near_to_the_plain_one_or_to_the_truth(name: str, section: ModelSection) -> None:
    """The plain one may be the farther of the two: PyTorch's norms take variances from sums of squares here."""
    if getattr(section, "dropout", 0):
        section = section.model_copy(update={"dropout": 0.0})  # float64 draws other numbers
    network = network_of(section).train()
    other = copy.deepcopy(network)
    EXACT[name][0](other)
    changed = results(other, IMAGE, steps=1)
    truth = results(copy.deepcopy(network).double(), IMAGE.double(), steps=1)
    assert min(differ(results(network, IMAGE, steps=1), changed), differ(truth, changed)) < 1e-4


@each
def test_weights_have_the_names_they_had(name: str, section: ModelSection) -> None:
    network = network_of(section)
    names = list(network.state_dict())
    EXACT[name][0](network)
    assert list(network.state_dict()) == names


@pytest.mark.parametrize("name", EXACT)
def test_it_takes_less_memory(name: str) -> None:
    section = EXACT[name][1][0]

    def changed() -> nn.Module:
        network = network_of(section)
        EXACT[name][0](network)
        return network

    def loss(found: Tensor | list[Tensor]) -> Tensor:
        return torch.stack([one.square().mean() for one in (found if isinstance(found, list) else [found])]).sum()

    plain, less = (peak(follow(Exercise(build, (4, 2, 32, 32, 32), loss))).size
                   for build in (lambda: network_of(section), changed))
    assert less < 0.9 * plain

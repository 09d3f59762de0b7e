"""Upsampling merged into the convolution after it: the same numbers, borders included."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from megavox.inference.merge import composed, merge_upsampling
from megavox.models.registry import build_model
from megavox.study.sections import UNetModel

openvino = pytest.importorskip("openvino", reason="the extra megavox[cpu] is not installed")
CONV, UP = {2: nn.Conv2d, 3: nn.Conv3d}, {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}


class Joint(nn.Module):
    """Coarse features raised, joined to fine ones in a given order, and convolved."""

    def __init__(self, stride: tuple[int, ...], kernel: int, bias: bool, order: str, pad: int) -> None:
        super().__init__()
        dims = len(stride)
        self.order = order
        self.down = CONV[dims](2, 3, stride, stride)
        self.up = UP[dims](3, 4, stride, stride, bias=bias)
        self.other = CONV[dims](2, 2, 1)
        self.conv = CONV[dims](2 * order.count("f") + 4 * order.count("c"), 5, kernel, padding=pad)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        sides = {"f": self.other(x), "c": self.up(self.down(x))}
        return self.conv(torch.cat([sides[side] for side in self.order], dim=1))


def converted(network: nn.Module, size: tuple[int, ...]) -> tuple[Any, torch.Tensor]:
    x = torch.randn(1, 2, *size)
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return openvino.convert_model(network.eval(), example_input=x, input=[*x.shape]), x


def computed(model: Any, x: torch.Tensor) -> np.ndarray:
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return np.array(compiled(x.numpy())[0])


@settings(max_examples=10)
@given(stride=st.lists(st.integers(1, 3), min_size=2, max_size=3).filter(lambda s: max(s) > 1).map(tuple),
       kernel=st.sampled_from((1, 3, 5)), bias=st.booleans(), order=st.sampled_from(("fc", "cf", "fcf", "cfc")),
       coarse=st.integers(1, 4))
def test_the_numbers_stay(stride: tuple[int, ...], kernel: int, bias: bool, order: str, coarse: int) -> None:
    torch.manual_seed(0)
    network = Joint(stride, kernel, bias, order, kernel // 2)
    model, x = converted(network, tuple(s * (coarse + n) for n, s in enumerate(stride)))
    assert merge_upsampling(model) == 1
    with torch.inference_mode():
        np.testing.assert_allclose(computed(model, x), network(x).numpy(), rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("change", ["no padding", "nothing raised", "nothing fine", "overlap"])
def test_what_is_otherwise_is_left_alone(change: str) -> None:
    network = Joint((2, 2), 3, True, "ff" if change == "nothing raised" else "cc" if change == "nothing fine" else "fc",
                    0 if change == "no padding" else 1)
    if change == "overlap":
        network.up = nn.ConvTranspose2d(3, 4, 4, 2, padding=1)
    model, x = converted(network, (8, 6))
    assert merge_upsampling(model) == 0
    with torch.inference_mode():
        np.testing.assert_allclose(computed(model, x), network(x).numpy(), rtol=1e-4, atol=2e-5)


def test_every_level_of_a_unet_is_merged() -> None:
    torch.manual_seed(0)
    network = build_model(UNetModel(family="unet", filters=4, levels=4), spatial_dims=3, in_channels=2, out_channels=3,
                          patch=(16, 32, 32))
    model, x = converted(network, (16, 32, 32))
    assert merge_upsampling(model) == 3
    with torch.inference_mode():
        wanted = network(x).numpy()
    assert np.abs(computed(model, x) - wanted).max() <= 1e-4 * np.ptp(wanted)


def test_the_composed_kernel_has_the_size_that_it_must_have() -> None:
    found = composed(np.ones((3, 4, 2, 1)), np.ones((5, 4, 3, 3)))
    assert found.shape == (3, 5, 4, 3)
    np.testing.assert_array_equal(found[0, 0, :, 0], 4 * np.array([1, 2, 2, 1]))

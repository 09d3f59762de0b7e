"""The U-Net's levels, strides and sizes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from megavox.core.errors import StudyError
from megavox.models.registry import build_model, multiples, parameter_count
from megavox.models.unet import UNet, level_strides
from megavox.study.sections import UNetModel


def unet(patch: tuple[int, ...], **options: object) -> nn.Module:
    section = UNetModel.model_validate({"family": "unet", "filters": 4, "levels": 3} | options)
    return build_model(section, spatial_dims=len(patch), in_channels=1, out_channels=2, patch=patch)


def test_thin_axes_are_kept() -> None:
    assert level_strides((16, 64, 64), 4) == [(2, 2, 2), (2, 2, 2), (1, 2, 2)]
    assert level_strides((7, 64, 64), 3) == [(1, 2, 2), (1, 2, 2)]
    assert level_strides((1, 32, 48), 2) == [(1, 2, 2)]


@pytest.mark.parametrize("patch", [(1, 16, 16), (5, 32, 16), (16, 32)])
def test_anisotropic_patch_comes_back_whole(patch: tuple[int, ...]) -> None:
    x = torch.randn(1, 1, *patch)
    with torch.no_grad():
        assert unet(patch).eval()(x).shape == (1, 2, *patch)


def test_odd_patch_is_refused_with_the_numbers() -> None:
    with pytest.raises(StudyError, match=r"18 x 32 x 32 cannot be halved 2 times: axis 0 has 9.*multiples of 4"):
        unet((18, 32, 32))


def test_too_many_levels_are_refused() -> None:
    with pytest.raises(StudyError, match=r"model\.levels: 5 levels are too many.*level 4.*at most 3"):
        unet((16, 16, 16), levels=5)


@given(levels=st.integers(2, 5), size=st.lists(st.integers(2, 150), min_size=2, max_size=3))
def test_the_multiples_can_be_halved(levels: int, size: list[int]) -> None:
    section = UNetModel(family="unet", filters=4, levels=levels)
    patch = [factor * max(1, round(n / factor)) for n, factor in zip(size, multiples(section, size), strict=True)]
    try:
        strides = level_strides(patch, levels)
    except StudyError as error:
        assert error.where == "model.levels" and max(patch) < 2 ** (levels + 1)
        return
    assert len(strides) == levels - 1
    size = list(patch)
    for stride in strides:
        assert all((s == 2) == (n >= 8) and n % s == 0 for n, s in zip(size, stride, strict=True))
        size = [n // s for n, s in zip(size, stride, strict=True)]


def test_parameters_by_hand() -> None:
    """f = 4, 8: convolutions without bias, two affine values a channel, one up step, one head."""
    encoder = 9 * (1 * 4 + 4 * 4 + 4 * 8 + 8 * 8) + 2 * (4 + 4 + 8 + 8)
    decoder = (8 * 4 * 4 + 4) + 9 * (8 * 4 + 4 * 4) + 2 * (4 + 4)
    assert parameter_count(unet((16, 16), levels=2)) == encoder + decoder + (4 * 2 + 2)


def test_widths_stop_at_max_filters() -> None:
    model = unet((32, 32), levels=4, filters=8, max_filters=20)
    assert [level[0][0].out_channels for level in model.encoder] == [8, 16, 20, 20]


def test_group_norm_takes_the_largest_divisor() -> None:
    model = unet((16, 16), levels=2, filters=6, norm="group")
    assert [m.num_groups for m in model.encoder[0].modules() if isinstance(m, nn.GroupNorm)] == [6, 6]
    model = unet((16, 16), levels=2, filters=12, norm="group")
    assert [m.num_groups for m in model.encoder[1].modules() if isinstance(m, nn.GroupNorm)] == [8, 8]


def test_instance_norm_is_torchs() -> None:
    """The group norm with a group a channel equals `nn.InstanceNorm3d`."""
    norm = unet((8, 8, 8), levels=2).encoder[0][0][1]
    x = torch.randn(2, 4, 5, 6, 7)
    torch.testing.assert_close(norm(x), nn.InstanceNorm3d(4, affine=True)(x))


def test_deep_supervision_levels() -> None:
    model = unet((8, 32, 16), levels=4, deep_supervision=True)
    x = torch.randn(2, 1, 8, 32, 16)
    outputs = model.train()(x)
    assert [tuple(o.shape) for o in outputs] == [(2, 2, 8, 32, 16), (2, 2, 4, 16, 8), (2, 2, 4, 8, 4)]
    assert isinstance(model.eval()(x), torch.Tensor)


def test_signal_keeps_its_size_at_the_start() -> None:
    """He's initialisation: variance is kept along 10 convolutions without normalisation, within a factor."""
    torch.manual_seed(0)
    model = UNet(2, 16, 16, widths=[16, 32], strides=[(2, 2)], norm="instance")
    for module in model.modules():
        if isinstance(module, nn.Sequential):
            for name, child in module.named_children():
                if isinstance(child, nn.GroupNorm):
                    setattr(module, name, nn.Identity())
    with torch.no_grad():
        out = model(torch.randn(4, 16, 64, 64))
    assert 0.3 < out.square().mean().sqrt() < 3

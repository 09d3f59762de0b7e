"""Channels last: laid out as the study says, whatever the network would do by itself, and refused where it crashes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from megavox.core.errors import StudyError
from megavox.memory.exercise import compute_as
from megavox.models.registry import build_model
from megavox.models.resnet import ResNet
from megavox.study.sections import ModelSection, ResNetModel, UNetModel, VGGModel
from megavox.study.training import MemorySection

UNET, RESNET = UNetModel(family="unet", filters=4, levels=2), ResNetModel(family="resnet", filters=8)
VGG = VGGModel(family="vgg", filters=4, hidden=8, depth=11)


def network_of(section: ModelSection, dims: int) -> nn.Module:
    return build_model(section, spatial_dims=dims, in_channels=2, out_channels=2, patch=(32,) * dims)


@pytest.mark.parametrize("compute", ["plain", "streamed"])
@pytest.mark.parametrize(("section", "dims", "by_itself"), [
    (UNET, 3, True), (UNET, 2, False), (RESNET, 3, True), (RESNET, 2, True), (VGG, 3, False), (VGG, 2, False)])
def test_images_lie_as_the_study_says(section: ModelSection, dims: int, by_itself: bool, compute: str) -> None:
    for asked, lasts in (("auto", by_itself), (True, True), (False, False)):
        network = network_of(section, dims)
        compute_as(network, MemorySection(channels_last=asked, compute=compute), "cpu")  # type: ignore[arg-type]
        seen: list[Tensor] = []
        if compute == "plain":
            first = next(one for one in network.modules() if isinstance(one, (nn.Conv2d, nn.Conv3d)))
            first.register_forward_pre_hook(lambda _, inputs, seen=seen: seen.append(inputs[0]))
        else:
            computed = network.computed
            network.computed = lambda one, x, seen=seen, computed=computed: (seen.append(x), computed(one, x))[1]
        network(torch.zeros(1, 2, *(40,) * dims))
        layout = torch.channels_last if dims == 2 else torch.channels_last_3d
        assert seen[0].is_contiguous(memory_format=layout) == lasts, asked


def test_of_itself_nothing_is_changed_for_other_devices() -> None:
    network = network_of(UNET, 3)
    compute_as(network, MemorySection(), "cuda")
    assert network.channels_last is False


def test_what_crashes_on_a_cpu_is_refused_there() -> None:
    narrow, wide = (ResNet(18, 2, 1, 2, filters=filters) for filters in (4, 8))
    asked = MemorySection(channels_last=True)
    with pytest.raises(StudyError, match=r"layer2\.0\.downsample\.0 is a convolution of one pixel"):
        compute_as(narrow, asked, "cpu")
    compute_as(narrow, asked, "cuda")
    compute_as(wide, asked, "cpu")

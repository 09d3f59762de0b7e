"""Networks of MONAI by name."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from megavox.core.errors import StudyError
from megavox.models.registry import build_model
from megavox.study.sections import DenseNetModel, MonaiModel


def monai(network: str, patch: tuple[int, ...] = (32, 32), **arguments: Any) -> nn.Module:
    section = MonaiModel(family="monai", network=network, arguments=arguments)
    return build_model(section, spatial_dims=len(patch), in_channels=2, out_channels=3, patch=patch)


@pytest.mark.parametrize(("network", "arguments"), [
    ("SwinUNETR", {"feature_size": 12}),  # spatial_dims, in_channels, out_channels
    ("UNETR", {"hidden_size": 24, "mlp_dim": 24, "num_heads": 2, "feature_size": 4}),  # img_size
    ("UNet", {"channels": [4, 8], "strides": [2]}),
])
def test_segmenters(network: str, arguments: dict[str, Any]) -> None:
    model = monai(network, **arguments).eval()
    with torch.no_grad():
        assert model(torch.randn(1, 2, 32, 32)).shape == (1, 3, 32, 32)


@pytest.mark.parametrize(("network", "arguments"), [
    ("EfficientNetBN", {"model_name": "efficientnet-b0"}),  # pretrained=True would go to the network
    ("ResNet", {"block": "basic", "layers": [1, 1, 1, 1], "block_inplanes": [4, 4, 4, 4]}),  # n_input_channels
    ("ViT", {"patch_size": 16, "hidden_size": 24, "mlp_dim": 24, "num_layers": 2, "num_heads": 2,
             "classification": True}),  # num_classes; returns a tuple
    ("Classifier", {"channels": [4, 4], "strides": [2, 2]}),  # in_shape, classes
    ("SENet154", {"layers": [1, 1, 1, 1], "inplanes": 16, "groups": 4}),  # hands arguments on with **kwargs
])
def test_classifiers(network: str, arguments: dict[str, Any]) -> None:
    model = monai(network, **arguments).eval()
    with torch.no_grad():
        assert model(torch.randn(1, 2, 32, 32)).shape == (1, 3)


def test_unknown_name_lists_the_nearest() -> None:
    with pytest.raises(StudyError, match=r"model\.network: .*no class 'SwinUNet'.*SwinUNETR"):
        monai("SwinUNet")
    with pytest.raises(StudyError, match="such as SwinUNETR"):
        monai("zzzzzzzzz")
    with pytest.raises(StudyError, match="no class 'torch'"):
        monai("torch")


def test_unknown_argument_lists_the_valid_ones_with_defaults() -> None:
    with pytest.raises(StudyError, match=r"SegResNet takes no argument 'filters'.*init_filters=8, in_channels=1"):
        monai("SegResNet", filters=8)


def test_refused_argument_tells_why() -> None:
    with pytest.raises(StudyError, match=r"UNet refuses its arguments \(.*channels, strides"):
        monai("UNet")
    with pytest.raises(StudyError, match=r"UNETR refuses its arguments \(.*hidden_size"):
        monai("UNETR", hidden_size=25, num_heads=2)


def test_contradiction_with_the_study() -> None:
    with pytest.raises(StudyError, match=r"model\.arguments\.in_channels: in_channels is 1 .* needs 2"):
        monai("SegResNet", in_channels=1)
    assert monai("SegResNet", in_channels=2, init_filters=8) is not None


def test_densenet_needs_32_voxels() -> None:
    with pytest.raises(StudyError, match=r"16 x 64 x 64 is too small for DenseNet-121"):
        build_model(DenseNetModel(family="densenet121"), spatial_dims=3, in_channels=1, out_channels=2,
                    patch=(16, 64, 64))

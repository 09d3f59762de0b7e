"""Networks of MONAI by name."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import pytest
import torch
from torch import nn

from megavox.core.errors import StudyError
from megavox.models.registry import build_model
from megavox.study.sections import DenseNetModel, MonaiModel

transformer = pytest.mark.skipif(find_spec("einops") is None, reason="MONAI's transformers need einops")


def monai(network: str, patch: tuple[int, ...] = (32, 32), **arguments: Any) -> nn.Module:
    section = MonaiModel(family="monai", network=network, arguments=arguments)
    return build_model(section, spatial_dims=len(patch), in_channels=2, out_channels=3, patch=patch)


@pytest.mark.parametrize(("network", "arguments"), [
    ("UNet", {"channels": [4, 8], "strides": [2]}),
    ("BasicUNetPlusPlus", {"features": [4, 4, 4, 4, 4, 4]}),  # returns a list
    pytest.param("SwinUNETR", {"feature_size": 12}, marks=transformer),
    pytest.param("UNETR", {"hidden_size": 24, "mlp_dim": 24, "num_heads": 2, "feature_size": 4},
                 marks=transformer),  # img_size
])
def test_segmenters(network: str, arguments: dict[str, Any]) -> None:
    model = monai(network, (64, 64), **arguments).eval()
    with torch.no_grad():
        assert model(torch.randn(1, 2, 64, 64)).shape == (1, 3, 64, 64)


@pytest.mark.parametrize(("network", "arguments"), [
    ("EfficientNetBN", {"model_name": "efficientnet-b0"}),  # pretrained=True would go to the network
    ("ResNet", {"block": "basic", "layers": [1, 1, 1, 1], "block_inplanes": [4, 4, 4, 4]}),  # n_input_channels
    pytest.param("ViT", {"patch_size": 16, "hidden_size": 24, "mlp_dim": 24, "num_layers": 2, "num_heads": 2,
                         "classification": True}, marks=transformer),  # num_classes; returns a tuple
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
    with pytest.raises(StudyError, match=r"SegResNet refuses its arguments \(.*mode"):
        monai("SegResNet", upsample_mode="no such mode")


def test_missing_library_is_named() -> None:
    if find_spec("torchvision"):
        pytest.skip("torchvision is installed: nothing is missing")
    with pytest.raises(StudyError, match=r"TorchVisionFCModel needs a library that is not installed.*torchvision"):
        monai("TorchVisionFCModel")


def test_contradiction_with_the_study() -> None:
    with pytest.raises(StudyError, match=r"model\.arguments\.in_channels: in_channels is 1 .* needs 2"):
        monai("SegResNet", in_channels=1)
    assert monai("SegResNet", in_channels=2, init_filters=8) is not None


def test_densenet_needs_32_voxels() -> None:
    with pytest.raises(StudyError, match=r"16 x 64 x 64 is too small for DenseNet-121"):
        build_model(DenseNetModel(family="densenet121"), spatial_dims=3, in_channels=1, out_channels=2,
                    patch=(16, 64, 64))

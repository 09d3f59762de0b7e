"""ResNet 18 to 152 in 2D and 3D (He 2015, arXiv:1512.03385), stride in the 3x3 convolution (v1.5).

ResNet-59, for pictures of 896 x 896, has a fifth stage, and halves in the first as well: 7 x 7 places are left.

Modules bear the names of torchvision's, so that its state dicts fit; in 3D every kernel is cubed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from megavox.models.pretrained import load_torchvision
from megavox.study.sections import ResNetModel

_CONV: dict[int, type[nn.Module]] = {2: nn.Conv2d, 3: nn.Conv3d}
_NORM: dict[int, type[nn.Module]] = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
_MAX_POOL: dict[int, type[nn.Module]] = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
_MEAN_POOL: dict[int, type[nn.Module]] = {2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}


def build(section: ResNetModel, *, spatial_dims: int, in_channels: int, out_channels: int,
          patch: tuple[int, ...]) -> nn.Module:
    """The ResNet of a study; see `registry.build_model`. Any patch fits."""
    model = ResNet(section.depth, spatial_dims, in_channels, out_channels, filters=int(section.filters),
                   dropout=section.dropout)
    if section.weights is not None:
        load_torchvision(model, section.weights)
    return model


def multiples(section: ResNetModel, size: Sequence[float]) -> tuple[int, ...]:
    """1: any size goes."""
    return (1,) * len(size)


class Basic(nn.Module):
    """Two 3x3 convolutions."""

    expansion = 1

    def __init__(self, dims: int, inputs: int, width: int, stride: int, downsample: nn.Module | None) -> None:
        super().__init__()
        self.conv1 = _CONV[dims](inputs, width, 3, stride, 1, bias=False)
        self.bn1 = _NORM[dims](width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = _CONV[dims](width, width, 3, 1, 1, bias=False)
        self.bn2 = _NORM[dims](width)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(x)) + shortcut)


class Bottleneck(nn.Module):
    """1x1 to narrow, 3x3 with the stride, 1x1 to widen."""

    expansion = 4

    def __init__(self, dims: int, inputs: int, width: int, stride: int, downsample: nn.Module | None) -> None:
        super().__init__()
        self.conv1 = _CONV[dims](inputs, width, 1, bias=False)
        self.bn1 = _NORM[dims](width)
        self.conv2 = _CONV[dims](width, width, 3, stride, 1, bias=False)
        self.bn2 = _NORM[dims](width)
        self.conv3 = _CONV[dims](width, 4 * width, 1, bias=False)
        self.bn3 = _NORM[dims](4 * width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        return self.relu(self.bn3(self.conv3(x)) + shortcut)


# oneDNN writes past its buffer (crash, hang, wrong gradients) in the gradient of a 2D 1x1 convolution with stride 2,
# channels last and fewer inputs: its issue 6035.
LEAST_INPUTS = 8

# He 2015, table 1: block and number of blocks in each stage; 59 is ours.
_STAGES: dict[int, tuple[Any, Sequence[int]]] = {
    18: (Basic, (2, 2, 2, 2)),
    34: (Basic, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    59: (Bottleneck, (3, 4, 6, 3, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
    152: (Bottleneck, (3, 8, 36, 3)),
}


class ResNet(nn.Module):
    """Stem, four stages (ResNet-59: five), global mean, one linear layer.

    Args:
        depth: 18, 34, 50, 59, 101 or 152.
        dims: 2 or 3.
        in_channels, classes: of image and logits.
        filters: feature maps of the stem and the first stage; doubled at each later stage.
        dropout: in front of the linear layer, in training.

    Attributes:
        computed: another way to compute the same features; None: as `features` does.
        channels_last: whether images are laid out so on CPUs.
    """

    def __init__(self, depth: int, dims: int, in_channels: int, classes: int, *, filters: int = 64,
                 dropout: float = 0.0) -> None:
        super().__init__()
        block, counts = _STAGES[depth]
        self.channels_last = filters >= LEAST_INPUTS
        self.computed: Callable[[ResNet, Tensor], Tensor] | None = None
        self.conv1 = _CONV[dims](in_channels, filters, 7, 2, 3, bias=False)
        self.bn1 = _NORM[dims](filters)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = _MAX_POOL[dims](3, 2, 1)
        inputs, self.stages = filters, [f"layer{number}" for number in range(1, len(counts) + 1)]
        for number, (name, count) in enumerate(zip(self.stages, counts, strict=True)):
            stride = 1 if number == 0 and len(counts) == 4 else 2
            self.add_module(name, _stage(block, dims, inputs, 2**number * filters, count, stride))
            inputs = 2**number * filters * block.expansion
        self.avgpool = _MEAN_POOL[dims](1)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(inputs, classes)
        for module in self.modules():
            if isinstance(module, _CONV[dims]):
                assert isinstance(module.weight, Tensor)
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """`(B, in_channels, *S)` to logits `(B, classes)`."""
        if self.channels_last and x.device.type == "cpu":  # a step takes 10 to 20 % less so
            x = x.clone(memory_format=torch.channels_last if x.ndim == 4 else torch.channels_last_3d)
        x = self.features(x) if self.computed is None else self.computed(self, x)
        return self.fc(self.dropout(self.avgpool(x).flatten(1)))

    def features(self, x: Tensor) -> Tensor:
        """What the last stage makes of an image: `(B, in_channels, *S)` to `(B, C, *S / 32)`, rounded up."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for name in self.stages:
            x = self.get_submodule(name)(x)
        return x


def _stage(block: Any, dims: int, inputs: int, width: int, count: int, stride: int) -> nn.Sequential:
    outputs = width * block.expansion
    downsample = None
    if stride != 1 or inputs != outputs:
        downsample = nn.Sequential(_CONV[dims](inputs, outputs, 1, stride, bias=False), _NORM[dims](outputs))
    return nn.Sequential(block(dims, inputs, width, stride, downsample),
                         *(block(dims, outputs, width, 1, None) for _ in range(count - 1)))

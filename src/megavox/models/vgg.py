"""VGG 11 to 19 in 2D and 3D (Simonyan 2014, arXiv:1409.1556): what is left of the image goes into linear layers.

In 3D every kernel is cubed, and the first linear layer grows with the volume: for 160 x 384 x 384 voxels it has 1.5
billion weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from megavox.core.errors import StudyError
from megavox.study.sections import VGGModel

SHRINK = 32  # five halvings
WIDTHS = (1, 2, 4, 8, 8)  # of the five stages, in multiples of the first
_CONV: dict[int, type[nn.Module]] = {2: nn.Conv2d, 3: nn.Conv3d}
_NORM: dict[int, type[nn.Module]] = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
_POOL: dict[int, type[nn.Module]] = {2: nn.MaxPool2d, 3: nn.MaxPool3d}

# Simonyan 2014, table 1: convolutions in each of the five stages.
_STAGES = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


def build(section: VGGModel, *, spatial_dims: int, in_channels: int, out_channels: int,
          patch: tuple[int, ...]) -> nn.Module:
    """The VGG of a study, for patches of one size; see `registry.build_model`.

    Raises:
        StudyError: an axis of the patch has fewer than 32 voxels.
    """
    if min(patch) < SHRINK:
        raise StudyError(f"a patch of {' x '.join(map(str, patch))} is too small for VGG", where="batches.patch",
                         expected=f"at least {SHRINK} voxels along every axis",
                         fix="Enlarge batches.patch or take model.family: resnet")
    return VGG(section.depth, in_channels, out_channels, patch, filters=section.filters, hidden=section.hidden,
               norm=section.norm, dropout=section.dropout)


def multiples(section: VGGModel, size: Sequence[float]) -> tuple[int, ...]:
    """32: other sizes go too, but 32 is the least."""
    return (SHRINK,) * len(size)


class VGG(nn.Module):
    """Five stages of convolutions, each halved by a maximum, and three linear layers.

    Args:
        depth: 11, 13, 16 or 19.
        in_channels, classes: of image and logits.
        patch: size of the image in voxels, (z, y, x) or (y, x).
        filters: feature maps of the first stage.
        hidden: width of the two hidden linear layers.
        norm: `batch`, or `none` as in the paper.
        dropout: behind each of them, in training.

    Attributes:
        computed: another way to compute the same features; None: as `features` does.
    """

    def __init__(self, depth: int, in_channels: int, classes: int, patch: Sequence[int], *, filters: int = 64,
                 hidden: int = 4096, norm: str = "batch", dropout: float = 0.5) -> None:
        super().__init__()
        dims, inputs = len(patch), in_channels
        stages = []
        for count, width in zip(_STAGES[depth], WIDTHS, strict=True):
            layers: list[nn.Module] = []
            for _ in range(count):
                layers.append(_CONV[dims](inputs, width * filters, 3, 1, 1, bias=norm == "none"))
                layers += [_NORM[dims](width * filters)] if norm == "batch" else []
                layers.append(nn.ReLU(inplace=True))
                inputs = width * filters
            stages.append(nn.Sequential(*layers, _POOL[dims](2)))
        self.stages = nn.ModuleList(stages)
        self.computed: Callable[[VGG, Tensor], Tensor] | None = None
        left = inputs * torch.Size(n // SHRINK for n in patch).numel()
        self.classifier = nn.Sequential(
            nn.Linear(left, hidden), nn.ReLU(inplace=True), nn.Dropout(dropout),
            nn.Linear(hidden, hidden), nn.ReLU(inplace=True), nn.Dropout(dropout), nn.Linear(hidden, classes))
        for module in self.modules():
            if isinstance(module, (_CONV[dims], nn.Linear)):
                assert isinstance(module.weight, Tensor)
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if isinstance(module.bias, Tensor):
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, in_channels, *patch)` to logits `(B, classes)`."""
        x = self.features(x) if self.computed is None else self.computed(self, x)
        return self.classifier(x.flatten(1))

    def features(self, x: Tensor) -> Tensor:
        """`(B, in_channels, *patch)` to what the linear layers see, `(B, C, *patch / 32)`."""
        for stage in self.stages:
            x = stage(x)
        return x

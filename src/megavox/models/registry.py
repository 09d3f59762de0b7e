"""The network families, by the word that `model.family` in a study takes.

Every model is a plain `torch.nn.Module`: `(B, in_channels, *patch)` to `(B, out_channels, *patch)`
for the families that segment, to `(B, out_channels)` for those that classify; logits in both cases.
In training mode a U-Net with deep supervision returns a list of logits, full resolution first.

A new family is one module with `build` and `multiples` (see `unet.py`), and one line below.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

from megavox.study.sections import ModelSection

if TYPE_CHECKING:
    from torch import nn

FAMILIES = {
    "unet": "megavox.models.unet",
    "resnet": "megavox.models.resnet",
    "densenet121": "megavox.models.densenet",
    "vgg": "megavox.models.vgg",
    "monai": "megavox.models.monai_nets",
}


def _module(section: ModelSection) -> ModuleType:
    return import_module(FAMILIES[section.family])


def build_model(section: ModelSection, *, spatial_dims: int, in_channels: int, out_channels: int,
                patch: Sequence[int]) -> nn.Module:
    """Build the network of a study, with fresh weights from torch's global random state.

    Args:
        section: `model` of the study, with no value left at `auto`.
        spatial_dims: 2 or 3.
        in_channels: image channels.
        out_channels: classes, the background included where there is one.
        patch: voxels of a training patch, (z, y, x) or (y, x).

    Raises:
        StudyError: the section does not fit the patch, or names an unknown network or argument.
        CheckpointError: pretrained weights were asked for and cannot be used.
    """
    assert spatial_dims in (2, 3) and len(patch) == spatial_dims, (spatial_dims, patch)
    return _module(section).build(section, spatial_dims=spatial_dims, in_channels=in_channels,
                                  out_channels=out_channels, patch=tuple(patch))


def multiples(section: ModelSection, size: Sequence[float]) -> tuple[int, ...]:
    """For each axis a number: a patch of about `size` whose sides are multiples of them fits the network.

    Args:
        section: `model` of the study; what it says of depth is not `auto`.
        size: voxels along each axis, (z, y, x) or (y, x).
    """
    return _module(section).multiples(section, size)


def parameter_count(model: nn.Module) -> int:
    """Number of trainable values."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)

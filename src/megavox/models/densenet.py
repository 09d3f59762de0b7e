"""DenseNet-121 (Huang 2017, arXiv:1608.06993), MONAI's implementation, in 2D and 3D."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from megavox.core.errors import StudyError
from megavox.study.sections import DenseNetModel

SMALLEST = 32  # voxels along an axis: five halvings without padding


def build(section: DenseNetModel, *, spatial_dims: int, in_channels: int, out_channels: int,
          patch: tuple[int, ...]) -> nn.Module:
    """The DenseNet of a study; see `registry.build_model`.

    Raises:
        StudyError: an axis of the patch has fewer than 32 voxels.
    """
    from monai.networks.nets import DenseNet121

    if min(patch) < SMALLEST:
        raise StudyError(f"a patch of {' x '.join(map(str, patch))} is too small for DenseNet-121",
                         where="batches.patch", expected=f"at least {SMALLEST} voxels along every axis",
                         fix="Enlarge batches.patch or take model.family: resnet")
    return DenseNet121(spatial_dims, in_channels, out_channels, dropout_prob=section.dropout)


def multiples(section: DenseNetModel, size: Sequence[float]) -> tuple[int, ...]:
    """32: other sizes go too, but 32 is the least."""
    return (SMALLEST,) * len(size)

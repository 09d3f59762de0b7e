"""The modules of a network, walked through with maps instead of tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from megavox.core.over_ranks import ranks_together
from megavox.memory.live import at_work
from megavox.memory.streamed.convolve import keep, remade
from megavox.memory.streamed.maps import Activated, Convolved, Enlarged, Map, Normed, Pooled, Remade, Scaled, Sum, Whole
from megavox.memory.streamed.share import WHOLE, Share
from megavox.memory.streamed.statistics import BATCH, RANKS, statistics
from megavox.models.unet import Residual
from megavox.training.sync_norm import OverRanks

FEW = 4  # channels; what a convolution makes of so many is made again, instead of kept
_CONVOLUTIONS = (nn.Conv2d, nn.Conv3d)
_POOLS = (nn.MaxPool2d, nn.MaxPool3d)
_DROPOUTS = (nn.Dropout2d, nn.Dropout3d)


@dataclass(frozen=True)
class Walk:
    """Through a network's modules.

    Attributes:
        slab_bytes: as of `stream`.
        dtype: of convolutions.
        kept: of maps that are kept, and of gradients.
        rolling: the map that stands for what a convolution makes, where nothing is kept.
        share: of this rank in every map.
    """

    slab_bytes: int
    dtype: torch.dtype
    kept: torch.dtype
    rolling: Callable[[Convolved | Enlarged], Map] | None = None
    share: Share = WHOLE

    def through(self, module: nn.Module, source: Map) -> Map:
        """What a module makes of a map."""
        with at_work(module):
            return self._through(module, source)

    def _through(self, module: nn.Module, source: Map) -> Map:
        if isinstance(module, nn.Sequential):
            for one in module:
                source = self.through(one, source)
            return source
        if isinstance(module, Residual):
            inner = self.through(module.second, self.through(module.first, source))
            return self.through(module.act, Sum(inner, self.through(module.shortcut, source)))
        if isinstance(module, _CONVOLUTIONS):
            return self.made(self.convolved(module, source))
        if isinstance(module, (nn.GroupNorm, _BatchNorm)):
            return self.normed(module, source)
        if isinstance(module, (nn.LeakyReLU, nn.ReLU)):
            return Activated(source, module.negative_slope if isinstance(module, nn.LeakyReLU) else 0.0)
        if isinstance(module, _POOLS):
            return Pooled(source, module.kernel_size, module.stride, module.padding)  # type: ignore[arg-type]
        if isinstance(module, _DROPOUTS) and module.training:
            shape = source.shape
            ones = torch.ones(*shape[:2], *[1] * (len(shape) - 2), device=source.tensors()[0].device,
                              dtype=torch.promote_types(self.dtype, torch.float32))
            return Scaled(source, self.share.firsts(module(ones).flatten(1)))
        assert isinstance(module, (nn.Identity, *_DROPOUTS)), type(module)
        return source

    def made(self, source: Convolved | Enlarged) -> Map:
        """The map that stands for what a convolution, or a transposed one, makes."""
        if self.rolling is not None:
            return self.rolling(source)
        if isinstance(source, Enlarged):
            return source
        if isinstance(source.map, Whole) and source.map.shape[1] <= FEW:
            return self.remade(source)
        return self.whole(source)

    def whole(self, source: Map) -> Whole:
        """A map that is kept."""
        size = source.shape[2]
        return Whole(keep(source, self.slab_bytes, self.kept, self.share), self.share.there(size)[0], size)

    def output(self, source: Map) -> Tensor:
        """A map that other modules see: this rank's own slices."""
        return keep(source, self.slab_bytes, self.dtype, replace(self.share, beside=0))

    def remade(self, source: Map) -> Remade:
        """A map of which the gradient is kept."""
        return remade(source, self.slab_bytes, self.kept, self.share)

    def convolved(self, module: nn.Conv2d | nn.Conv3d, source: Map) -> Convolved:
        """What a convolution makes of a map, not yet whole."""
        return Convolved(source, module.weight, module.bias, module.stride, self.dtype)

    def normed(self, norm: Any, source: Map) -> Map:
        """What a norm makes of a map; batch norms remember what they see in training."""
        shape, groups = source.shape, _groups(norm)
        if groups is None:
            mean, variance = (one.expand(shape[:2]) for one in (norm.running_mean, norm.running_var))
        else:
            mean, variance = statistics(source, groups, self.slab_bytes, self.share)
            if groups in (BATCH, RANKS):
                others = ranks_together() // self.share.ranks if groups == RANKS else 1
                _remember(norm, mean[0], variance[0], others * shape.numel() // shape[1])
        return Normed(source, mean, torch.rsqrt(variance + norm.eps), norm.weight, norm.bias, groups)


def _groups(norm: Any) -> int | None:
    """As of `Normed`."""
    if isinstance(norm, nn.GroupNorm):
        return norm.num_groups
    if not norm.training:
        return None
    return RANKS if isinstance(norm, (OverRanks, nn.SyncBatchNorm)) else BATCH


@torch.no_grad()
def _remember(norm: Any, mean: Tensor, variance: Tensor, count: int) -> None:
    """Running statistics, as PyTorch's batch norms keep them: with the variance of a sample."""
    norm.num_batches_tracked += 1
    norm.running_mean.lerp_(mean.to(norm.running_mean), norm.momentum)
    norm.running_var.lerp_((variance * count / max(count - 1, 1)).to(norm.running_var), norm.momentum)

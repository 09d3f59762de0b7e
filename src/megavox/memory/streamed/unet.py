"""The streamed U-Net: the same modules, walked through with maps instead of tensors."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from megavox.memory.streamed.convolve import keep
from megavox.memory.streamed.maps import Activated, Convolved, Enlarged, Joined, Map, Normed, Remade, Scaled, Sum, Whole
from megavox.memory.streamed.statistics import statistics
from megavox.models.unet import Residual, UNet

FEW = 4  # channels; what a convolution makes of so many is made again, instead of kept
_CONVOLUTIONS = (nn.Conv2d, nn.Conv3d)
_BATCH_NORMS = (nn.BatchNorm2d, nn.BatchNorm3d)
_DROPOUTS = (nn.Dropout2d, nn.Dropout3d)


def stream(network: UNet, slab_bytes: int, kept: torch.dtype | None = None) -> None:
    """From now on this network is computed slab by slab; what it gives is the same.

    Args:
        network: in place.
        slab_bytes: about as much of what is convolved, and of what becomes of it, is there at a time.
        kept: in which maps and their gradients are kept; None: that in which they are computed. A narrower one is not
            exact: it is for devices that are slow in bfloat16.
    """
    network.computed = partial(_streamed, slab_bytes=slab_bytes, kept=kept)


def _streamed(network: UNet, x: Tensor, slab_bytes: int, kept: torch.dtype | None) -> Tensor | list[Tensor]:
    """As `UNet.forward`."""
    kind = x.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
    walk = _Walk(slab_bytes, dtype, kept or dtype)
    with torch.autocast(kind, enabled=False):
        features = walk.features(network, Whole(x))
        heads: list[Any] = [network.head]
        if network.training and network.deep_supervision:
            heads += reversed(network.coarse_heads)
        logits = [keep(walk.convolved(head, one), slab_bytes, dtype)
                  for head, one in zip(heads, reversed(features), strict=False)]
    return logits if len(heads) > 1 else logits[0]


@dataclass(frozen=True)
class _Walk:
    """Through a network's modules.

    Attributes:
        slab_bytes: as of `stream`.
        dtype: of convolutions.
        kept: of maps that are kept.
    """

    slab_bytes: int
    dtype: torch.dtype
    kept: torch.dtype

    def features(self, network: UNet, found: Map) -> list[Map]:
        """What comes out of each level of the decoder, the coarsest first."""
        skips: list[Map] = []
        for level in network.encoder:
            found = self.through(level, found)
            skips.append(found)
        skips.pop()
        features = []
        up: Any
        for up, level in zip(network.up, network.decoder, strict=True):
            found = self.through(level, Joined((Enlarged(found, up.weight, up.bias, up.stride), skips.pop())))
            features.append(found)
        return features

    def through(self, module: nn.Module, source: Map) -> Map:
        """What a module makes of a map."""
        if isinstance(module, nn.Sequential):
            for one in module:
                source = self.through(one, source)
            return source
        if isinstance(module, Residual):
            inner = self.through(module.second, self.through(module.first, source))
            return self.through(module.act, Sum(inner, self.through(module.shortcut, source)))
        if isinstance(module, _CONVOLUTIONS):
            made = self.convolved(module, source)
            if isinstance(source, Whole) and source.shape[1] <= FEW:
                return Remade(made)
            return Whole(keep(made, self.slab_bytes, self.kept))
        if isinstance(module, (nn.GroupNorm, *_BATCH_NORMS)):
            return self.normed(module, source)
        if isinstance(module, nn.LeakyReLU):
            return Activated(source, module.negative_slope)
        if isinstance(module, _DROPOUTS):
            shape = source.shape
            ones = torch.ones(*shape[:2], *[1] * (len(shape) - 2), device=source.tensors()[0].device,
                              dtype=torch.promote_types(self.dtype, torch.float32))
            return Scaled(source, module(ones).flatten(1))
        assert isinstance(module, nn.Identity), type(module)
        return source

    def convolved(self, module: nn.Conv2d | nn.Conv3d, source: Map) -> Convolved:
        """What a convolution makes of a map, not yet whole."""
        return Convolved(source, module.weight, module.bias, module.stride, self.dtype)

    def normed(self, norm: Any, source: Map) -> Map:
        """What a norm makes of a map; batch norms remember what they see in training."""
        shape = source.shape
        groups: int | None = norm.num_groups if isinstance(norm, nn.GroupNorm) else 0 if norm.training else None
        if groups is None:
            mean, variance = (one.expand(shape[:2]) for one in (norm.running_mean, norm.running_var))
        else:
            mean, variance = statistics(source, groups, self.slab_bytes)
            if groups == 0:
                _remember(norm, mean[0], variance[0], shape.numel() // shape[1])
        return Normed(source, mean, torch.rsqrt(variance + norm.eps), norm.weight, norm.bias, groups)


@torch.no_grad()
def _remember(norm: Any, mean: Tensor, variance: Tensor, count: int) -> None:
    """Running statistics, as PyTorch's batch norms keep them: with the variance of a sample."""
    norm.num_batches_tracked += 1
    norm.running_mean.lerp_(mean.to(norm.running_mean), norm.momentum)
    norm.running_var.lerp_((variance * count / max(count - 1, 1)).to(norm.running_var), norm.momentum)

"""Means and variances that norms take over a whole map, of one that is made slab by slab."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from megavox.memory.streamed.maps import Map, Normed, Pieces, slabs, spread


@torch.no_grad()
def statistics(source: Map, groups: int, slab_bytes: int) -> tuple[Tensor, Tensor]:
    """Mean and variance (that of a population) of the values that are normalised together.

    Slabs are joined by the rule of Chan, Golub and LeVeque (1983, doi 10.1080/00031305.1983.10483115), which loses no
    digits as sums of squares do.

    Args:
        source: `(B, C, Z, *S)`.
        groups: of channels that share them; 0: all samples share those of a channel.
        slab_bytes: about as much is there at a time.

    Returns:
        Both `(B, C)`, in float32 or wider.
    """
    count, mean, variance, shape = 0, torch.zeros(()), torch.zeros(()), source.shape
    for low, high in slabs(shape, slab_bytes, 4 * shape.numel() // shape[2]):
        slab = source.slab(low, high, Pieces())
        slab = slab.to(torch.promote_types(slab.dtype, torch.float32))
        its_variance, its_mean = torch.var_mean(slab, tuple(range(2, slab.ndim)), correction=0)
        share = (high - low) / (count + high - low)
        apart = its_mean - mean
        mean = mean + share * apart
        variance = variance + share * (its_variance - variance + (1 - share) * apart**2)
        count += high - low
    shared = _mean_over(mean, groups)
    return shared, _mean_over(variance + (mean - shared)**2, groups)


def gradient_through_statistics(normed: Normed, of_mean: Tensor, of_scale: Tensor) -> Callable[[Tensor], Tensor]:
    """What a map's values owe to mean and scale, which were made from all of them.

    Of N values that share them, `d mean / d y = 1 / N` and `d scale / d y = -scale^3 (y - mean) / N`.

    Args:
        normed: its `groups` are given.
        of_mean, of_scale: gradients of its mean and scale, `(B, C)`.

    Returns:
        Values of a slab to their part of the gradient.
    """
    assert normed.groups is not None
    voxels = normed.map.shape[2:].numel()
    slope = -_mean_over(of_scale, normed.groups) * normed.scale**3 / voxels
    level = _mean_over(of_mean, normed.groups) / voxels - slope * normed.mean

    def through(values: Tensor) -> Tensor:
        wide = values.detach().to(slope.dtype)
        return torch.addcmul(spread(level, wide), wide, spread(slope, wide)).to(values.dtype)

    return through


def _mean_over(found: Tensor, groups: int) -> Tensor:
    """The mean of `(B, C)` over those that are normalised together, for each of them."""
    if groups == 0:
        return found.mean(0, keepdim=True).expand_as(found)
    parts = found.reshape(len(found), groups, -1)
    return parts.mean(2, keepdim=True).expand_as(parts).reshape(found.shape)

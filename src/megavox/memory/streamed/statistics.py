"""Means and variances that norms take over a whole map, of one that is made slab by slab."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from megavox.core.over_ranks import mean_over_ranks
from megavox.memory.streamed.maps import Map, Normed, Pieces, slabs
from megavox.memory.streamed.normalise import spread
from megavox.memory.streamed.share import Share

BATCH, RANKS = 0, -1  # in place of a number of groups


@torch.no_grad()
def statistics(source: Map, groups: int, slab_bytes: int, share: Share) -> tuple[Tensor, Tensor]:
    """Mean and variance (that of a population) of the values that are normalised together.

    Slabs are joined by the rule of Chan, Golub and LeVeque (1983, doi 10.1080/00031305.1983.10483115), which loses no
    digits as sums of squares do.

    Args:
        source: `(B, C, Z, *S)`.
        groups: of channels that share them; BATCH: all samples share those of a channel; RANKS: and those of other
            ranks do, which have as many.
        slab_bytes: about as much is there at a time.
        share: of this rank; those of the ranks are joined.

    Returns:
        Both `(B, C)`, in float32 or wider.
    """
    count, mean, variance, shape = 0, torch.zeros(()), torch.zeros(()), source.shape
    voxels = tuple(range(2, len(shape)))
    for low, high in slabs(*share.own(shape[2]), slab_bytes, 4 * shape.numel() // shape[2]):
        slab = source.slab(low, high, Pieces())
        slab = slab.to(torch.promote_types(slab.dtype, torch.float32))
        its_mean = slab.mean(voxels)  # and then the variance: ten times as fast as `torch.var_mean`
        its_variance = (slab - spread(its_mean, slab)).square_().mean(voxels)
        weight = (high - low) / (count + high - low)
        apart = its_mean - mean
        mean = mean + weight * apart
        variance = variance + weight * (its_variance - variance + (1 - weight) * apart**2)
        count += high - low
    weight, own = count / shape[2], mean
    mean = share.total(weight * own)
    variance = share.total(weight * (variance + (own - mean)**2))
    shared = _mean_over(mean, groups)
    return shared, _mean_over(variance + (mean - shared)**2, groups)


def gradient_through_statistics(normed: Normed, of_mean: Tensor, of_scale: Tensor) -> Callable[[Tensor], Tensor]:
    """What a map's values owe to mean and scale, which were made from all of them.

    Of N values that share them, `d mean / d y = 1 / N` and `d scale / d y = -scale^3 (y - mean) / N`.

    Args:
        normed: its `groups` are given.
        of_mean, of_scale: gradients of its mean and scale, `(B, C)`, from all ranks that share the sample.

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
    if groups in (BATCH, RANKS):
        mean = found.mean(0, keepdim=True)
        return (mean_over_ranks(mean) if groups == RANKS else mean).expand_as(found)
    parts = found.reshape(len(found), groups, -1)
    return parts.mean(2, keepdim=True).expand_as(parts).reshape(found.shape)

"""A norm with given statistics: PyTorch's own take theirs from what they are shown, which here is only a slab."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def normalise(values: Tensor, mean: Tensor, scale: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`(values - mean) * scale * weight + bias`, of `(B, C, *S)`, in the type of the mean.

    Args:
        values: of any type.
        mean, scale: `(B, C)`.
        weight, bias: `(C,)`.
    """
    result: Tensor = _Normalise.apply(values, mean, scale, weight, bias)  # type: ignore[no-untyped-call]
    return result


def spread(small: Tensor, values: Tensor) -> Tensor:
    """`(B, C)` to `(B, C, 1, ...)`, in the type and with as many axes as `values`."""
    return small.reshape(*small.shape, *[1] * (values.ndim - 2)).to(values.dtype)


class _Normalise(torch.autograd.Function):
    """Nothing as large as the values is saved but the values themselves."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, mean: Tensor, scale: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(values, mean, scale, weight)
        wide, factor = values.to(mean.dtype), scale * weight
        return torch.addcmul(spread(bias - mean * factor, wide), wide, spread(factor, wide))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        values, mean, scale, weight = ctx.saved_tensors
        voxels = tuple(range(2, values.ndim))
        total = gradient.sum(voxels)
        centred = (gradient * values).sum(voxels) - mean * total  # sum of gradient * (values - mean)
        factor = scale * weight
        return (gradient.mul(spread(factor, gradient)).to(values.dtype), -factor * total, weight * centred,
                (scale * centred).sum(0), total.sum(0))

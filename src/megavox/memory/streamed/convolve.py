"""A convolution of a map that is never whole, and its backward pass, which makes the map again, slab by slab.

Of a convolution `y = W * z`, with `z` made from kept tensors, the backward pass needs the gradient of `y`, and `z`. So
`z` is made again for each slab, under autograd, which then carries the slab's gradient on to whatever it was made of.
Where slabs overlap, since a kernel looks at the slices beside, gradients add up. Last come the gradients through mean
and variance, in which every voxel had a share.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from megavox.memory.streamed.maps import Convolved, Map, Normed, Pieces, Remade, Slot, slabs
from megavox.memory.streamed.statistics import gradient_through_statistics


def keep(source: Convolved, slab_bytes: int, dtype: torch.dtype) -> Tensor:
    """Make a convolution's output whole.

    Args:
        source: what is to be made.
        slab_bytes: about as much of what is convolved, and of what becomes of it, is there at a time.
        dtype: in which the output is kept.

    Returns:
        `(B, C, Z, *S)`.
    """
    form = source.with_tensors(repeat(Slot()))
    with torch.autocast(source.weight.device.type, enabled=False):
        made: Tensor = _Convolution.apply(form, slab_bytes, dtype, *source.tensors())  # type: ignore[no-untyped-call]
    return made


def _slabs(source: Convolved, slab_bytes: int) -> Iterator[tuple[int, int]]:
    """Of the output."""
    shape = source.shape
    slices = (source.stride[0] * whole.numel() // whole[2] for whole in (source.map.shape, shape))
    return slabs(shape, slab_bytes, source.dtype.itemsize * sum(slices))


class _Convolution(torch.autograd.Function):
    """Saved are the tensors that the source is made of, and nothing else."""

    @staticmethod
    def forward(ctx: Any, form: Convolved, slab_bytes: int, dtype: torch.dtype, *tensors: Tensor) -> Tensor:
        ctx.form, ctx.slab_bytes = form, slab_bytes
        ctx.save_for_backward(*tensors)
        source: Convolved = form.with_tensors(iter(tensors))
        out = torch.empty(source.shape, dtype=dtype, device=source.weight.device,
                          memory_format=_layout(tensors[0]))
        for low, high in _slabs(source, slab_bytes):
            out[:, :, low:high] = source.slab(low, high, Pieces())
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, out: Tensor) -> tuple[Any, ...]:  # type: ignore[override]
        tensors = ctx.saved_tensors
        source: Convolved = ctx.form.with_tensors(iter(tensors))
        gradients = _Gradients(source, tensors, ctx.needs_input_grad[3:], out.dtype, ctx.slab_bytes)
        gradients.carry(source, out)
        return None, None, None, *gradients.finished()


def _layout(like: Tensor) -> torch.memory_format:
    last = {4: torch.channels_last, 5: torch.channels_last_3d}[like.ndim]
    return last if like.is_contiguous(memory_format=last) else torch.contiguous_format


class _Gradients:
    """Of the tensors that a map is made of, gathered slab by slab.

    Args:
        source: the map.
        tensors: it is made of.
        needed: whether the gradient of each is asked for.
        dtype: in which gradients of maps are kept that are made again.
        slab_bytes: as of `keep`.
    """

    def __init__(self, source: Map, tensors: Sequence[Tensor], needed: Sequence[bool], dtype: torch.dtype,
                 slab_bytes: int) -> None:
        self.tensors, self.needed, self.slab_bytes = tensors, needed, slab_bytes
        self.normed = [part for part in source.parts() if isinstance(part, Normed) and part.groups is not None]
        self.remade = [part for part in source.parts() if isinstance(part, Remade)]
        statistics = {id(one) for part in self.normed for one in (part.mean, part.scale)}
        self.sums = {id(one): torch.zeros_like(one) for one, need in zip(tensors, needed, strict=True)
                     if need or id(one) in statistics}
        self.sums |= {id(one): torch.empty(one.shape, dtype=dtype, device=tensors[0].device,
                                           memory_format=_layout(tensors[0])).zero_() for one in self.remade}

    def carry(self, convolved: Convolved, out: Tensor) -> None:
        """Carry the gradient of a convolution's output back to what its source is made of."""
        weight, bias, dtype, dims = convolved.weight, convolved.bias, convolved.dtype, len(convolved.stride)
        for low, high in _slabs(convolved, self.slab_bytes):
            around, leaves = convolved.around(low, high), _Leaves(self.sums)
            with torch.enable_grad():
                values = around.padded(convolved.map.slab(around.low, around.high, leaves).to(dtype))
            back, of_weight, of_bias = torch.ops.aten.convolution_backward(
                out[:, :, low:high].to(dtype), values.detach(), weight.to(dtype), [len(weight)], convolved.stride,
                convolved.padding, [1] * dims, False, [0] * dims, 1,
                [values.requires_grad, True, bias is not None])
            self._add(weight, of_weight)
            if bias is not None:
                self._add(bias, of_bias)
            leaves.add(values, back)

    def finished(self) -> list[Tensor | None]:
        """All that are needed, after what goes through the statistics of norms and through what is made again."""
        for part in self.normed:
            through = gradient_through_statistics(part, self.sums[id(part.mean)], self.sums[id(part.scale)])
            shape = part.map.shape
            for low, high in slabs(shape, self.slab_bytes, part.mean.itemsize * shape.numel() // shape[2]):
                leaves = _Leaves(self.sums)
                with torch.enable_grad():
                    values = part.map.slab(low, high, leaves)
                leaves.add(values, through(values))
        for one in self.remade:
            self.carry(one.map, self.sums.pop(id(one)))
        return [self.sums[id(one)] if need else None for one, need in zip(self.tensors, self.needed, strict=True)]

    def _add(self, tensor: Tensor, gradient: Tensor) -> None:
        if id(tensor) in self.sums:
            self.sums[id(tensor)] += gradient


class _Leaves(Pieces):
    """Pieces from which autograd leads back to where their gradients are gathered."""

    def __init__(self, sums: dict[int, Tensor]) -> None:
        self.sums = sums
        self.taken: list[tuple[Tensor, Tensor]] = []

    def rows(self, kept: Tensor, low: int, high: int) -> Tensor:
        return self._leaf(id(kept), kept[:, :, low:high], slice(low, high))

    def small(self, tensor: Tensor) -> Tensor:
        return self._leaf(id(tensor), tensor)

    def made(self, source: Remade, low: int, high: int) -> Tensor:
        with torch.no_grad():
            values = source.map.slab(low, high, Pieces())
        return self._leaf(id(source), values, slice(low, high))

    def add(self, values: Tensor, gradient: Tensor) -> None:
        """Carry the gradient of values back to what they were made of."""
        if not self.taken:
            return
        found = torch.autograd.grad(values, [leaf for leaf, _ in self.taken], gradient)
        for (_, place), one in zip(self.taken, found, strict=True):
            place += one

    def _leaf(self, key: int, values: Tensor, rows: slice | None = None) -> Tensor:
        if key not in self.sums:
            return values
        leaf = values.detach().requires_grad_()
        self.taken.append((leaf, self.sums[key] if rows is None else self.sums[key][:, :, rows]))
        return leaf

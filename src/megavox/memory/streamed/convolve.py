"""A map that is made whole of maps that are not, and its backward pass, which makes these again, slab by slab.

Of a convolution `y = W * z`, with `z` made from kept tensors, the backward pass needs the gradient of `y`, and `z`. So
`z` is made again for each slab, under autograd, which then carries the slab's gradient on to whatever it was made of.
Where slabs overlap, since a kernel looks at the slices beside, gradients add up. Last come the gradients through mean
and variance, in which every voxel had a share.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import repeat
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from megavox.memory.streamed.halves import convolve_back
from megavox.memory.streamed.maps import Convolved, Map, Normed, Pieces, Remade, Slot, Whole, slabs
from megavox.memory.streamed.share import Share
from megavox.memory.streamed.statistics import gradient_through_statistics


def keep(source: Map, slab_bytes: int, dtype: torch.dtype, share: Share) -> Tensor:
    """Make a map whole, such as a convolution's output; or this rank's share of it, with what is beside.

    Args:
        source: what is to be made.
        slab_bytes: about as much of the largest map on the way, and of what becomes of it, is there at a time.
        dtype: in which the output is kept.
        share: of this rank.

    Returns:
        `(B, C, z, *S)`, with the slices that the share has `there`.
    """
    return _made(source, slab_bytes, dtype, share, True)


def remade(source: Map, slab_bytes: int, dtype: torch.dtype, share: Share) -> Remade:
    """A map that is not kept, and whose gradient is: all that look at it add to that, and it is carried on once.

    Args:
        source: what makes it.
        slab_bytes: as of `keep`.
        dtype: in which the gradient is kept.
        share: of this rank.
    """
    handle = _made(source, slab_bytes, dtype, share, False)
    first, _ = share.there(source.shape[2])
    return Remade(source.with_tensors(one.detach() for one in source.tensors()), handle, first)


def _made(source: Map, slab_bytes: int, dtype: torch.dtype, share: Share, values: bool) -> Tensor:
    form, tensors = source.with_tensors(repeat(Slot())), source.tensors()
    with torch.autocast(tensors[0].device.type, enabled=False):
        made: Tensor = _Made.apply(form, slab_bytes, dtype, share, values, *tensors)  # type: ignore[no-untyped-call]
    return made


def _slabs(source: Map, first: int, last: int, slab_bytes: int) -> Iterator[tuple[int, int]]:
    """Of slices of a map that is made of others."""
    numbers = source.shape.numel() + max(part.shape.numel() for part in source.parts() if part is not source)
    width = max(one.itemsize for one in source.tensors())
    return slabs(first, last, slab_bytes, max(1, width * numbers // source.shape[2]))


class _Made(torch.autograd.Function):
    """Saved are the tensors that the source is made of, and nothing else."""

    @staticmethod
    def forward(ctx: Any, form: Map, slab_bytes: int, dtype: torch.dtype, share: Share, values: bool,
                *tensors: Tensor) -> Tensor:
        ctx.form, ctx.slab_bytes, ctx.share, ctx.values = form, slab_bytes, share, values
        ctx.save_for_backward(*tensors)
        source: Map = form.with_tensors(iter(tensors))
        size, device = source.shape[2], tensors[0].device
        first, last = share.there(size)
        shape = torch.Size((*source.shape[:2], last - first, *source.shape[3:]))
        if not values:
            return torch.empty_strided(shape, [0] * len(shape), dtype=dtype, device=device)
        out = torch.empty(shape, dtype=dtype, device=device, memory_format=_layout(tensors[0]))
        for low, high in _slabs(source, *share.own(size), slab_bytes):
            out[:, :, low - first:high - first] = source.slab(low, high, Pieces())
        share.fill(out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, out: Tensor) -> tuple[Any, ...]:  # type: ignore[override]
        tensors = ctx.saved_tensors
        source: Map = ctx.form.with_tensors(iter(tensors))
        share, size = ctx.share, source.shape[2]
        first, last = share.there(size)
        if ctx.values:  # else the neighbours' slices are made again here, and what they earned is carried on from here
            share.give_back(out)  # in place: it was gathered for this map, and nobody else looks at it
            low, high = share.own(size)
            first, last, out = low, high, out[:, :, low - first:high - first]
        gradients = _Gradients(source, tensors, ctx.needs_input_grad[5:], ctx.slab_bytes, share)
        gradients.carry(source, out, first, last)
        return None, None, None, None, None, *gradients.finished()


def _layout(like: Tensor) -> torch.memory_format:
    last = {4: torch.channels_last, 5: torch.channels_last_3d}[like.ndim]
    lasts = like.stride(1) == 1 and like.is_contiguous(memory_format=last)  # of one channel, either holds of any tensor
    return last if lasts else torch.contiguous_format


class _Gathered:
    """The gradient of a map, from slabs that come in order and may overlap.

    Args:
        shape: `(B, C, Z, *S)`.
        like: a tensor of its type and layout.
        dtype: in which it is kept.
    """

    def __init__(self, shape: torch.Size, like: Tensor, dtype: torch.dtype) -> None:
        self.whole = torch.empty(shape, dtype=dtype, device=like.device, memory_format=_layout(like))
        self.done = 0

    def add(self, low: int, gradient: Tensor) -> None:
        """That of a slab from slice `low` on."""
        high = low + gradient.shape[2]
        self._zeros(low)
        again = min(self.done, high) - low
        self.whole[:, :, low:low + again] += gradient[:, :, :again]
        self.whole[:, :, low + again:high] = gradient[:, :, again:]
        self.done = max(self.done, high)

    def finished(self) -> Tensor:
        """All of it."""
        self._zeros(self.whole.shape[2])
        return self.whole

    def _zeros(self, high: int) -> None:
        """Slices that no slab had."""
        if high > self.done:
            self.whole[:, :, self.done:high] = 0
            self.done = high


class _Gradients:
    """Of the tensors that a map is made of, gathered slab by slab.

    Args:
        source: the map.
        tensors: it is made of.
        needed: whether the gradient of each is asked for.
        slab_bytes, share: as of `keep`.
    """

    def __init__(self, source: Map, tensors: Sequence[Tensor], needed: Sequence[bool], slab_bytes: int,
                 share: Share) -> None:
        self.tensors, self.needed, self.slab_bytes, self.share = tensors, needed, slab_bytes, share
        parts = list(source.parts())
        self.normed = [part for part in parts if isinstance(part, Normed) and part.groups is not None]
        large = {id(part.values) for part in parts if isinstance(part, Whole)}
        large |= {id(part.handle) for part in parts if isinstance(part, Remade)}
        statistics = {id(one) for part in self.normed for one in (part.mean, part.scale)}
        asked = [one for one, need in zip(tensors, needed, strict=True) if need or id(one) in statistics]
        self.maps = {id(one): _Gathered(one.shape, tensors[0], one.dtype) for one in asked if id(one) in large}
        self.small = {id(one): torch.zeros_like(one) for one in asked if id(one) not in large}

    def carry(self, source: Map, out: Tensor, first: int, last: int) -> None:
        """Carry the gradient of slices `first` up to below `last` of a map back to what it is made of."""
        for low, high in _slabs(source, first, last, self.slab_bytes):
            leaves, gradient = _Leaves(self), out[:, :, low - first:high - first]
            if isinstance(source, Convolved):
                values, gradient = self._before(source, low, high, gradient, leaves)
            else:
                with torch.enable_grad():
                    values = source.slab(low, high, leaves)
            leaves.add(values, gradient)

    def _before(self, convolved: Convolved, low: int, high: int, gradient: Tensor,
                leaves: _Leaves) -> tuple[Tensor, Tensor]:
        """What a slab is convolved from and its gradient, without making the convolution again."""
        weight, bias, dtype = convolved.weight, convolved.bias, convolved.dtype
        seen = convolved.around(low, high)
        with torch.enable_grad():
            values = convolved.map.slab(seen.low, seen.high, leaves).to(dtype)
        back, of_weight, of_bias = convolve_back(
            gradient.to(dtype), seen.padded(values.detach()), weight.to(dtype), convolved.stride, convolved.padding,
            (values.requires_grad, True, bias is not None))
        self._add(weight, of_weight)
        if bias is not None:
            self._add(bias, of_bias)
        return values, seen.inside(back) if values.requires_grad else gradient

    def finished(self) -> list[Tensor | None]:
        """All that are needed, after what goes through the statistics of norms."""
        for part in self.normed:
            through = gradient_through_statistics(part, *self.share.total(
                torch.stack([self.small[id(part.mean)], self.small[id(part.scale)]])))
            shape = part.map.shape
            own = self.share.own(shape[2])
            for low, high in slabs(*own, self.slab_bytes, part.mean.itemsize * shape.numel() // shape[2]):
                leaves = _Leaves(self)
                with torch.enable_grad():
                    values = part.map.slab(low, high, leaves)
                leaves.add(values, through(values))
        return [self._of(one) if need else None for one, need in zip(self.tensors, self.needed, strict=True)]

    def _of(self, tensor: Tensor) -> Tensor:
        return self.maps[id(tensor)].finished() if id(tensor) in self.maps else self.small[id(tensor)]

    def _add(self, tensor: Tensor, gradient: Tensor) -> None:
        if id(tensor) in self.small:
            self.small[id(tensor)] += gradient


class _Leaves(Pieces):
    """Pieces from which autograd leads back to where their gradients are gathered."""

    def __init__(self, gradients: _Gradients) -> None:
        self.maps, self.small_ones = gradients.maps, gradients.small
        self.taken: list[tuple[Tensor, Callable[[Tensor], Any]]] = []

    def rows(self, kept: Tensor, low: int, high: int) -> Tensor:
        return self._rows(id(kept), kept[:, :, low:high], low)

    def small(self, tensor: Tensor) -> Tensor:
        if id(tensor) not in self.small_ones:
            return tensor
        return self._leaf(tensor, self.small_ones[id(tensor)].add_)

    def made(self, source: Remade, low: int, high: int) -> Tensor:
        with torch.no_grad():
            values = source.map.slab(low, high, Pieces())
        return self._rows(id(source.handle), values, low - source.first)

    def add(self, values: Tensor, gradient: Tensor) -> None:
        """Carry the gradient of values back to what they were made of, as far as that is asked for."""
        if values.requires_grad:
            found = torch.autograd.grad(values, [leaf for leaf, _ in self.taken], gradient.to(values.dtype))
            for (_, add), one in zip(self.taken, found, strict=True):
                add(one)

    def _rows(self, key: int, values: Tensor, low: int) -> Tensor:
        return self._leaf(values, partial(self.maps[key].add, low)) if key in self.maps else values

    def _leaf(self, values: Tensor, add: Callable[[Tensor], Any]) -> Tensor:
        leaf = values.detach().requires_grad_()
        self.taken.append((leaf, add))
        return leaf

"""Feature maps that are never there as a whole: what makes them is kept, and a slab is made wherever one is needed.

The output of each convolution is kept, but for that of the first, which sees few channels. Everything up to the next
convolution is cheap and is made again for every slab: norm, activation, pooling, sum with a shortcut, dropout,
enlargement, concatenation.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from megavox.memory.streamed.halves import convolve, enlarge
from megavox.memory.streamed.normalise import normalise, spread

_POOL: dict[int, Callable[..., Tensor]] = {4: functional.max_pool2d, 5: functional.max_pool3d}


class Pieces:
    """Gives what a slab is made of: here, as it is."""

    def rows(self, kept: Tensor, low: int, high: int) -> Tensor:
        """Slices `low` up to below `high` along Z of what is there of a kept map."""
        return kept[:, :, low:high]

    def small(self, tensor: Tensor) -> Tensor:
        """A tensor that is no map."""
        return tensor

    def made(self, source: Remade, low: int, high: int) -> Tensor:
        """Slices of a map that is made again."""
        return source.map.slab(low, high, self)


class Slot:
    """Stands for a tensor that is elsewhere."""


@dataclass(frozen=True)
class Map(ABC):
    """A feature map `(B, C, Z, *S)`. Its fields are tensors, numbers, and other maps."""

    @abstractmethod
    def slab(self, low: int, high: int, of: Pieces) -> Tensor:
        """Slices `low` up to below `high` along Z, `(B, C, high - low, *S)`."""

    @property
    @abstractmethod
    def shape(self) -> torch.Size:
        """`(B, C, Z, *S)`."""

    def parts(self) -> Iterator[Map]:
        """This map and all that it is made of."""
        yield self
        for value in self._values():
            if isinstance(value, Map):
                yield from value.parts()

    def tensors(self) -> list[Tensor]:
        """Of this map and of all that it is made of."""
        found: list[Tensor] = []
        for value in self._values():
            found += value.tensors() if isinstance(value, Map) else [value] if isinstance(value, Tensor) else []
        return found

    def with_tensors(self, tensors: Iterator[Tensor | Slot]) -> Any:
        """The same map of other tensors, which come in the order of `tensors()`, or with slots for them."""
        return replace(self, **{field.name: _anew(getattr(self, field.name), tensors) for field in fields(self)})

    def _values(self) -> Iterable[Any]:
        for field in fields(self):
            value = getattr(self, field.name)
            yield from value if isinstance(value, tuple) else (value,)


def _anew(value: Any, tensors: Iterator[Tensor | Slot]) -> Any:
    """Not a function within the method, which would hold on to itself and so to all tensors."""
    if isinstance(value, tuple):
        return tuple(_anew(one, tensors) for one in value)
    return value.with_tensors(tensors) if isinstance(value, Map) else \
        next(tensors) if isinstance(value, (Tensor, Slot)) else value


@dataclass(frozen=True)
class Whole(Map):
    """What is kept whole, such as the image; or, where ranks share a sample, what this rank needs of it.

    Attributes:
        values: `(B, C, z, *S)`.
        first: the slice of the map that they begin with.
        size: slices of the map; None: they are all of it.
    """

    values: Tensor
    first: int = 0
    size: int | None = None

    def slab(self, low: int, high: int, of: Pieces) -> Tensor:
        return of.rows(self.values, low - self.first, high - self.first)

    @property
    def shape(self) -> torch.Size:
        there = self.values.shape
        return torch.Size((*there[:2], there[2] if self.size is None else self.size, *there[3:]))


class Around(NamedTuple):
    """Slices that windows look at: `low` up to below `high` of a map, and how many before and behind them are outside
    of it."""

    low: int
    high: int
    outside: tuple[int, int]

    def padded(self, values: Tensor, value: float = 0.0) -> Tensor:
        """The slices with those that are outside, of one value."""
        lacking = (*[0] * 2 * (values.ndim - 3), *self.outside)
        return functional.pad(values, lacking, value=value) if any(self.outside) else values

    def inside(self, padded: Tensor) -> Tensor:
        """Without them."""
        return padded[:, :, self.outside[0]:padded.shape[2] - self.outside[1]]


def around(low: int, high: int, kernel: int, stride: int, padding: int, size: int) -> Around:
    """What windows `low` up to below `high` look at of a map with so many slices."""
    first, last = low * stride - padding, (high - 1) * stride - padding + kernel
    inside = max(0, first), min(size, last)
    return Around(*inside, (inside[0] - first, last - inside[1]))


@dataclass(frozen=True)
class Convolved(Map):
    """A map after a convolution with `kernel // 2` zeros around it.

    Attributes:
        weight: `(out, C, kernel, ...)`.
        bias: `(out,)`.
        stride: along Z and the other axes.
        dtype: in which it is computed.
    """

    map: Map
    weight: Tensor
    bias: Tensor | None
    stride: tuple[int, ...]
    dtype: torch.dtype

    def around(self, low: int, high: int) -> Around:
        """What is needed of the source for slices `low` up to below `high`."""
        kernel = self.weight.shape[2]
        return around(low, high, kernel, self.stride[0], kernel // 2, self.map.shape[2])

    def slab(self, low: int, high: int, of: Pieces) -> Tensor:
        seen = self.around(low, high)
        values = seen.padded(self.map.slab(seen.low, seen.high, of).to(self.dtype))
        bias = None if self.bias is None else of.small(self.bias).to(self.dtype)
        return convolve(values, of.small(self.weight).to(self.dtype), bias, self.stride, self.padding)

    @property
    def padding(self) -> tuple[int, ...]:
        """Zeros that a convolution of a slab puts around it: none along Z, where they are there already."""
        return (0, *[self.weight.shape[2] // 2] * (len(self.stride) - 1))

    @property
    def shape(self) -> torch.Size:
        large = self.map.shape
        return torch.Size((large[0], len(self.weight),
                           *(-(-n // s) for n, s in zip(large[2:], self.stride, strict=True))))


@dataclass(frozen=True)
class Remade(Map):
    """A map that is made again, slab by slab, wherever it is needed; its gradient is kept whole (`convolve.remade`).

    Attributes:
        map: makes it, of tensors without gradients.
        handle: stands for it in autograd; of the shape of what this rank needs of it, without numbers.
        first: the slice of the map that this begins with.
    """

    map: Map
    handle: Tensor
    first: int = 0

    def parts(self) -> Iterator[Map]:
        yield self  # what it is made of gets its gradient from the handle's

    def slab(self, low: int, high: int, of: Pieces) -> Tensor:
        return of.made(self, low, high)

    @property
    def shape(self) -> torch.Size:
        return self.map.shape


@dataclass(frozen=True)
class Normed(Map):
    """A map, normalised: `(values - mean) * scale * weight + bias`.

    Attributes:
        mean, scale: `(B, C)`, in float32 or wider; scale is one over the standard deviation.
        weight, bias: `(C,)`.
        groups: as of `statistics.statistics`; None: mean and scale are given and do not depend on the values.
    """

    map: Map
    mean: Tensor
    scale: Tensor
    weight: Tensor
    bias: Tensor
    groups: int | None

    def slab(self, low: int, high: int, of: Pieces) -> Tensor:
        return normalise(self.map.slab(low, high, of),
                         *map(of.small, (self.mean, self.scale, self.weight, self.bias)))

    @property
    def shape(self) -> torch.Size:
        return self.map.shape


@dataclass(frozen=True)
class Activated(Map):
    """LeakyReLU of a map; ReLU, where the slope is 0."""

    map: Map
    slope: float

    def slab(self, low: int, high: int, of: Pieces) -> Tensor:
        nobodys = isinstance(self.map, (Normed, Sum))  # else it may be needed again, or be a leaf of autograd
        return functional.leaky_relu(self.map.slab(low, high, of), self.slope, inplace=nobodys)

    @property
    def shape(self) -> torch.Size:
        return self.map.shape


@dataclass(frozen=True)
class Pooled(Map):
    """The maximum of windows, which are the same along every axis; outside of the map it is minus infinity."""

    map: Map
    kernel: int
    stride: int
    padding: int

    def slab(self, low: int, high: int, of: Pieces) -> Tensor:
        seen = around(low, high, self.kernel, self.stride, self.padding, self.map.shape[2])
        values = seen.padded(self.map.slab(seen.low, seen.high, of), -torch.inf)
        beside = (0, *[self.padding] * (values.ndim - 3))
        return _POOL[values.ndim](values, self.kernel, self.stride, beside)

    @property
    def shape(self) -> torch.Size:
        large = self.map.shape
        return torch.Size((*large[:2], *((n + 2 * self.padding - self.kernel) // self.stride + 1 for n in large[2:])))


@dataclass(frozen=True)
class Sum(Map):
    """Of two maps."""

    first: Map
    second: Map

    def slab(self, low: int, high: int, of: Pieces) -> Tensor:
        return self.first.slab(low, high, of) + self.second.slab(low, high, of)

    @property
    def shape(self) -> torch.Size:
        return self.first.shape


@dataclass(frozen=True)
class Scaled(Map):
    """A map times a number for each sample and channel, `(B, C)`: dropout of whole channels."""

    map: Map
    factors: Tensor

    def slab(self, low: int, high: int, of: Pieces) -> Tensor:
        values = self.map.slab(low, high, of)
        return values * spread(self.factors, values)

    @property
    def shape(self) -> torch.Size:
        return self.map.shape


@dataclass(frozen=True)
class Enlarged(Map):
    """A map after a transposed convolution whose stride is its kernel, so that slabs do not overlap.

    Attributes:
        weight: `(C, out, *stride)`.
        bias: `(out,)`.
        stride: along Z and the other axes.
    """

    map: Map
    weight: Tensor
    bias: Tensor
    stride: tuple[int, ...]

    def slab(self, low: int, high: int, of: Pieces) -> Tensor:
        along = self.stride[0]
        first, last = low // along, -(-high // along)
        values = self.map.slab(first, last, of)
        weight, bias = of.small(self.weight).to(values.dtype), of.small(self.bias).to(values.dtype)
        large = enlarge(values, weight, bias, self.stride)
        return large[:, :, low - first * along:high - first * along]

    @property
    def shape(self) -> torch.Size:
        small = self.map.shape
        return torch.Size((small[0], self.weight.shape[1],
                           *(n * s for n, s in zip(small[2:], self.stride, strict=True))))


@dataclass(frozen=True)
class Joined(Map):
    """Maps beside each other, along the channels."""

    maps: tuple[Map, ...]

    def slab(self, low: int, high: int, of: Pieces) -> Tensor:
        return torch.cat([one.slab(low, high, of) for one in self.maps], dim=1)

    @property
    def shape(self) -> torch.Size:
        first = self.maps[0].shape
        return torch.Size((first[0], sum(one.shape[1] for one in self.maps), *first[2:]))


def slabs(first: int, last: int, slab_bytes: int, slice_bytes: int) -> Iterator[tuple[int, int]]:
    """First and last slice, exclusive, of slabs of one thickness (but for the last one), of about so many bytes.

    Thick ones are even: what is enlarged by 2 would be made twice where a slab begins between.
    """
    thick = max(1, slab_bytes // slice_bytes)
    thick += thick % 2 if thick > 1 else 0
    return ((low, min(low + thick, last)) for low in range(first, last, thick))

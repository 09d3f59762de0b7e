"""Feature maps of which only a window that moves along Z is there: slices are made once, in order, and let go of when
nobody will ask for them again.

Whoever reads a rolling map is itself made in order: a convolution that has made its slices up to `done` will next ask
from `done * stride - kernel // 2` on, and never for anything before. So the window is as long as the slowest reader is
behind the fastest. At a skip connection that is what the way down and up again looks ahead: the network's receptive
field decides it, and not the length of the volume.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from megavox.memory.streamed.halves import slow
from megavox.memory.streamed.maps import Convolved, Enlarged, Map, Pieces


@dataclass(frozen=True)
class Read(Map):
    """A map that is read from elsewhere, such as an image in a file.

    Attributes:
        size: `(B, C, Z, *S)`.
        rows: slices `low` up to below `high` along Z, `(B, C, high - low, *S)`.
    """

    size: tuple[int, ...]
    rows: Callable[[int, int], Tensor]

    def slab(self, low: int, high: int, of: Pieces) -> Tensor:
        return self.rows(low, high)

    @property
    def shape(self) -> torch.Size:
        return torch.Size(self.size)


@dataclass(frozen=True)
class Rolling(Map):
    """A map whose slices are asked for in order and made once.

    Attributes:
        window: what is there of it.
    """

    window: Window

    def slab(self, low: int, high: int, of: Pieces) -> Tensor:
        return self.window.slab(low, high, of)

    @property
    def shape(self) -> torch.Size:
        return self.window.shape


class Window:
    """The slices of a map that were made and will be asked for again.

    Args:
        source: makes them; what it is made of learns that it has one reader more.
        thick: about as many slices are made at a time.
    """

    def __init__(self, source: Convolved | Enlarged | Read, thick: int) -> None:
        self.source, self.shape = source, source.shape
        self.together = _together(source)
        self.thick = self._rounded(thick)
        self.first = self.done = 0  # the first slice that is there, and up to which they were made
        self.slabs: list[Tensor] = []
        self.marks: dict[int, int] = {}  # the first slice that each reader may still ask for
        self.sources = [part.window for part in source.parts() if isinstance(part, Rolling)]
        self._tell()

    def slab(self, low: int, high: int, of: Pieces) -> Tensor:
        """Slices `low` up to below `high`; those that were not made yet are made now."""
        assert low >= self.first, "a slice was let go of too early"
        while self.done < high:
            end = min(self.done + self.thick, self._rounded(high), self.shape[2])
            self.slabs.append(self.source.slab(self.done, end, of))
            self.done = end
            self._tell()
        found, start = [], self.first
        for slab in self.slabs:
            end = start + slab.shape[2]
            if low < end and start < high:
                found.append(slab[:, :, max(low - start, 0):high - start])
            start = end
        return found[0] if len(found) == 1 else torch.cat(found, dim=2)

    def had(self, reader: int, up_to: int) -> None:
        """A reader will not ask for slices below `up_to` any more; what no reader will ask for is let go of."""
        self.marks[reader] = up_to
        needed = min(self.marks.values())
        while self.slabs and self.first + self.slabs[0].shape[2] <= needed:
            self.first += self.slabs.pop(0).shape[2]
        if self.slabs and self.first < needed:
            self.slabs[0] = self.slabs[0][:, :, needed - self.first:].clone()  # a view would hold all of it
            self.first = needed

    def _tell(self) -> None:
        """What this is made of: up to where this has had it."""
        for window in self.sources:
            window.had(id(self), self._next())

    def _next(self) -> int:
        """The first slice of the source that will be asked for again."""
        if isinstance(self.source, Enlarged):
            return self.done // self.source.stride[0]
        assert isinstance(self.source, Convolved)
        return self.source.around(self.done, self.done + 1).low

    def _rounded(self, slices: int) -> int:
        return -(-slices // self.together) * self.together


def _together(source: Map) -> int:
    """Slices that are made together: those of one slice enlarged, and pairs where a convolution is fast in halves."""
    if isinstance(source, Enlarged):
        return source.stride[0]
    if isinstance(source, Convolved):
        size, weight = source.map.shape, source.weight
        return 2 if slow(torch.Size((*size[:2], weight.shape[2], *size[3:])), source.dtype, weight.device) else 1
    return 1

"""Micro-batches: finished ones, and raw ones, which the device that trains finishes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from megavox.batches.on_device import carry_out
from megavox.batches.samples import Draw, RawSample, Sample

ALIGNED = 16  # bytes at which arrays begin: any type may be seen there


@dataclass
class Batch:
    """A micro-batch of one rank.

    Attributes:
        image: `(B, C, *patch)` float32.
        target: `(B, *patch)` uint8, or `(B, K)` float32.
        cases: index of each sample's case.
        step: the step that it belongs to.
    """

    image: torch.Tensor
    target: torch.Tensor
    cases: list[int]
    step: int

    @classmethod
    def of(cls, samples: Sequence[Sample], step: int) -> Batch:
        """The batch of these samples."""
        return cls(torch.from_numpy(np.stack([one.image for one in samples])),
                   torch.from_numpy(np.stack([one.target for one in samples])), [one.case for one in samples], step)

    @property
    def shape(self) -> tuple[int, ...]:
        """`(B, C, *patch)`."""
        return tuple(self.image.shape)

    def pin_memory(self) -> Batch:
        """Page-locked copy, which a GPU reads faster."""
        return replace(self, image=self.image.pin_memory(), target=self.target.pin_memory())

    def on(self, device: torch.device) -> Batch:
        """The same on a device."""
        return replace(self, image=self.image.to(device, non_blocking=True),
                       target=self.target.to(device, non_blocking=True))


@dataclass(frozen=True)
class Stored:
    """Where an array lies among the bytes of a batch."""

    begin: int
    end: int
    dtype: str
    shape: tuple[int, ...]

    def within(self, buffer: torch.Tensor) -> torch.Tensor:
        """The array, sharing the memory of the `(bytes,)` uint8 buffer."""
        return buffer[self.begin:self.end].view(getattr(torch, self.dtype)).reshape(self.shape)


@dataclass
class RawBatch:
    """A micro-batch whose augmentations are yet to be carried out.

    Attributes:
        buffer: `(bytes,)` uint8: all that was read, so that it moves as one piece.
        images, targets: where each sample's lie in it.
        draws: what to make of each.
        cases, step: as of `Batch`.
    """

    buffer: torch.Tensor
    images: list[Stored]
    targets: list[Stored]
    draws: list[Draw]
    cases: list[int]
    step: int

    @classmethod
    def of(cls, samples: Sequence[RawSample], step: int) -> RawBatch:
        """The batch of these samples."""
        arrays = [array for one in samples for array in (one.image, one.target)]
        places, end = [], 0
        for array in arrays:
            begin = -(-end // ALIGNED) * ALIGNED
            end = begin + array.nbytes
            places.append(Stored(begin, end, array.dtype.name, array.shape))
        buffer = torch.empty(end, dtype=torch.uint8)
        for array, place in zip(arrays, places, strict=True):
            np.copyto(place.within(buffer).numpy(), array)
        return cls(buffer, places[::2], places[1::2], [one.draw for one in samples], [one.case for one in samples],
                   step)

    @property
    def shape(self) -> tuple[int, ...]:
        """`(B, C, *patch)` of the finished batch."""
        return (len(self.draws), self.images[0].shape[0], *self.draws[0].patch)

    def pin_memory(self) -> RawBatch:
        """Page-locked copy, which a GPU reads faster."""
        return replace(self, buffer=self.buffer.pin_memory())

    def on(self, device: torch.device) -> Batch:
        """The batch, finished on a device."""
        buffer = self.buffer.to(device, non_blocking=True)
        images, targets = [], []
        for image, target, draw in zip(self.images, self.targets, self.draws, strict=True):
            stored = target.within(buffer)
            patch, mask = carry_out(image.within(buffer), stored if stored.dtype == torch.uint8 else None, draw)
            images.append(patch)
            targets.append(stored if mask is None else mask)
        return Batch(torch.stack(images), torch.stack(targets), self.cases, self.step)

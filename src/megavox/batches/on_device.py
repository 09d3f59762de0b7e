"""Carrying out augmentations by PyTorch, on the device that trains; `apply` says what they mean.

Equal to `apply` within 1e-4 of the range of intensities, masks voxel by voxel. The loader's workers drew the
parameters and read the box that the patch looks at, in its stored type; all that follows happens here, the noise
field included. No result depends on the order in which threads come.

Positions are computed in float64, in the order in which SciPy adds them up, and neighbours are looked up by whole
numbers: coordinates of `grid_sample` in float32 are wrong by up to 1e-4 voxel in a box of 1000, and would choose
other voxels of some masks. A device without float64 (Apple's MPS) has positions and noise computed on the CPU.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from megavox.batches.apply import is_permutation
from megavox.batches.parameters import Augmentation
from megavox.batches.samples import Draw

LOW_32 = 0xFFFFFFFF


def carry_out(image: torch.Tensor, mask: torch.Tensor | None,
              draw: Draw) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The patch of one sample, and its mask where there is one.

    Args:
        image: the box that was read, `(C, *box)` of the stored type, on the device.
        mask: of the same box, `box` uint8.
        draw: what to make of them.

    Returns:
        `(C, *patch)` float32, normalised and augmented; `patch` uint8.
    """
    look = _Look(draw, image.shape[1:], image.device)
    patch = change_intensities(look.image(image), draw.augmentation)
    return patch, None if mask is None else look.mask(mask)


class _Look:
    """Where the voxels of a patch look in a box around which lies one voxel of what is outside.

    One is enough: positions further out are brought to it. So every position has its neighbours in the box.
    """

    def __init__(self, draw: Draw, box: Sequence[int], device: torch.device) -> None:
        self.draw, self.box, self.device = draw, tuple(box), device
        self.size = tuple(n + 2 for n in box)
        self.strides = [math.prod(self.size[axis + 1:]) for axis in range(len(box))]
        self.permutes = is_permutation(draw.matrix, draw.first)
        self.positions = self._positions()

    def _positions(self) -> list[torch.Tensor]:
        """`first + matrix @ p` along each axis of the box, from -1 to its length; `patch` float64."""
        matrix, first, patch = self.draw.matrix, self.draw.first, self.draw.patch
        if self.permutes:
            matrix, first = np.rint(matrix), np.rint(first)
        found = []
        for row, begin, length in zip(matrix, first, self.box, strict=True):
            at = torch.full((1,) * len(patch), float(begin), dtype=torch.float64, device=_exact(self.device))
            for axis, (step, size) in enumerate(zip(row, patch, strict=True)):
                along = torch.arange(size, dtype=torch.float64, device=at.device) * float(step)
                at = at + _on_axis(along, axis, len(patch))
            found.append(at.clamp_(-1, length))
        return found

    def image(self, box: torch.Tensor) -> torch.Tensor:
        """See `apply.image_patch`."""
        around = self._around(box, torch.float32, self.draw.outside.tolist())
        inside = around[:, *self._inner]
        for channel, (low, high, middle, width) in enumerate(self.draw.numbers.tolist()):
            inside[channel].clamp_(low, high).sub_(middle).div_(width)
        return self._nearest(around) if self.permutes else self._interpolated(around)

    def mask(self, box: torch.Tensor) -> torch.Tensor:
        """See `apply.mask_patch`."""
        return self._nearest(self._around(box[None], box.dtype, [0]))[0]

    @property
    def _inner(self) -> tuple[slice, ...]:
        return tuple(slice(1, n - 1) for n in self.size)

    def _around(self, box: torch.Tensor, dtype: torch.dtype, outside: Sequence[float]) -> torch.Tensor:
        """The box `(C, *box)` with one voxel of what is outside around it."""
        around = torch.empty((len(box), *self.size), dtype=dtype, device=self.device)
        for channel, value in enumerate(outside):
            around[channel].fill_(value)
        around[:, *self._inner].copy_(box)
        return around

    def _nearest(self, around: torch.Tensor) -> torch.Tensor:
        places = self._places([torch.floor(at + 0.5) for at in self.positions])
        return around.flatten(1).index_select(1, places).reshape(-1, *self.draw.patch)

    def _interpolated(self, around: torch.Tensor) -> torch.Tensor:
        low = [torch.floor(at).clamp_(max=n - 1) for at, n in zip(self.positions, self.box, strict=True)]
        weights = [(at - floor).float().flatten().to(self.device)
                   for at, floor in zip(self.positions, low, strict=True)]
        places, flat = self._places(low), around.flatten(1)

        def between(axis: int, offset: int) -> torch.Tensor:
            if axis == len(weights):
                return flat[:, offset:].index_select(1, places)
            return torch.lerp(between(axis + 1, offset), between(axis + 1, offset + self.strides[axis]), weights[axis])

        return between(0, 0).reshape(-1, *self.draw.patch)

    def _places(self, voxels: list[torch.Tensor]) -> torch.Tensor:
        """Numbers of voxels of the box, given along each axis, in the flattened box with its surroundings."""
        numbers = sum((at.int() + 1) * stride for at, stride in zip(voxels, self.strides, strict=True))
        assert isinstance(numbers, torch.Tensor)
        return numbers.flatten().to(self.device)


def change_intensities(patch: torch.Tensor, augmentation: Augmentation) -> torch.Tensor:
    """See `apply.change_intensities`.

    Args:
        patch: `(C, ...)` float32, normalised.
        augmentation: the parameters.
    """
    if augmentation.blur > 0:
        patch = blurred(patch, augmentation.blur)
    if augmentation.coarsen > 1:
        patch = coarsened(patch, augmentation.coarsen)
    if augmentation.noise > 0:
        patch = patch + augmentation.noise * noise_field(augmentation.noise_seed, patch.shape, patch.device)
    if augmentation.gain != 1 or augmentation.offset != 0:
        patch = patch * augmentation.gain + augmentation.offset
    return bent(patch, augmentation.gamma) if augmentation.gamma != 1 else patch


def noise_field(seed: int, shape: Sequence[int], device: torch.device) -> torch.Tensor:
    """See `apply.noise_field`; its 32-bit hash in int64, since PyTorch computes little in uint32."""
    size = math.prod(shape)
    numbers = torch.arange(size + size % 2, device=_exact(device)) + (seed & LOW_32) & LOW_32
    bits = _mixed(_mixed(numbers) ^ (seed >> 32 & LOW_32)) >> 8
    radius = (-2 * (((bits[::2] >> 1).double() + 0.5) / 2**23).log()).sqrt()
    angle = 2 * math.pi * (bits[1::2].double() + 0.5) / 2**24
    pairs = torch.cat([radius * angle.cos(), radius * angle.sin()])
    return pairs[:size].float().reshape(tuple(shape)).to(device)


def _mixed(x: torch.Tensor) -> torch.Tensor:
    x = (x ^ (x >> 16)) * 0x7FEB352D & LOW_32
    x = (x ^ (x >> 15)) * (0x846CA68B - 2**32) & LOW_32  # less 2^32, which the lower bits do not see: no overflow
    return x ^ (x >> 16)


def bent(patch: torch.Tensor, gamma: float) -> torch.Tensor:
    """See `apply.bent`."""
    axes = tuple(range(1, patch.ndim))
    low, high = patch.amin(axes, keepdim=True), patch.amax(axes, keepdim=True)
    width = (high - low).clamp_(min=1e-6)
    return ((patch - low) / width) ** gamma * width + low


def blurred(patch: torch.Tensor, sigma: float) -> torch.Tensor:
    """See `apply.blurred`."""
    reach = int(3 * sigma + 0.5)
    steps = np.arange(-reach, reach + 1)
    kernel = np.exp(-0.5 * (steps / max(sigma, 1e-6)) ** 2)
    for axis in range(1, patch.ndim):
        size = patch.shape[axis]
        places = np.clip(np.arange(size)[:, None] + steps, 0, size - 1)
        patch = _weighed(patch, axis, places, np.broadcast_to(kernel / kernel.sum(), places.shape))
    return patch


def coarsened(patch: torch.Tensor, factor: float) -> torch.Tensor:
    """See `apply.coarsened`."""
    for axis in range(1, patch.ndim):
        size = patch.shape[axis]
        small = max(2, round(size / factor))
        ends = np.linspace(0, size, small + 1)
        places = np.floor(ends[:-1, None]).astype(int) + np.arange(math.ceil(size / small) + 1)
        shares = np.minimum(ends[1:, None], places + 1) - np.maximum(ends[:-1, None], places)
        shares = np.maximum(shares, 0) * small / size
        patch = _weighed(patch, axis, np.minimum(places, size - 1), shares)
        at = np.clip((np.arange(size) + 0.5) * small / size - 0.5, 0, small - 1)
        low = np.minimum(np.floor(at).astype(int), small - 2)
        patch = _weighed(patch, axis, np.stack([low, low + 1], 1), np.stack([low + 1 - at, at - low], 1))
    return patch


def _weighed(values: torch.Tensor, axis: int, places: np.ndarray, weights: np.ndarray) -> torch.Tensor:
    """Along one axis, `out[n] = sum over k of weights[n, k] * values[places[n, k]]`.

    Not as a product of matrices, which the device may be set to compute in a shorter type.
    """
    places_kn = torch.from_numpy(np.ascontiguousarray(places.T)).to(values.device, non_blocking=True)
    weights_kn = torch.from_numpy(weights.T.astype(np.float32)).to(values.device, non_blocking=True)
    out: torch.Tensor | None = None
    for place, weight in zip(places_kn, weights_kn, strict=True):
        part = values.index_select(axis, place).mul_(_on_axis(weight, axis, values.ndim))
        out = part if out is None else out.add_(part)
    assert out is not None
    return out


def _on_axis(values: torch.Tensor, axis: int, dims: int) -> torch.Tensor:
    return values.reshape([-1 if k == axis else 1 for k in range(dims)])


def _exact(device: torch.device) -> torch.device:
    """Where float64 is computed for this device."""
    return torch.device("cpu") if device.type == "mps" else device

"""Drawing: which case, where, and which augmentation, as a pure function of the place in training.

Everything random about a sample is drawn here, from `(seed, step, position in the global batch)`;
`batches.apply` carries it out without drawing. So a sample can be made again at any time, on any
number of ranks and loader workers.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from megavox.core.randomness import generator
from megavox.study.sections import AugmentSection

AXES = {"left-right": -1, "front-back": -2, "up-down": -3}  # array axes after images are brought to LPS;
# of a picture both of the latter are the rows, whichever way it was taken


@dataclass(frozen=True)
class Augmentation:
    """One draw of all augmentation parameters.

    Attributes:
        mirror: for each spatial axis, whether to flip it.
        quarter_turns: (first axis, second axis, times) of a rotation by 90 degrees, or None.
        affine: (d, d) rotation and scale in mm, or None.
        shift: mm along each axis.
        gain, offset: intensity `x * gain + offset`, after normalisation.
        gamma: exponent over the patch's range; 1 for none.
        noise: standard deviation; 0 for none.
        noise_seed: of the noise field.
        blur: Gaussian sigma in voxels; 0 for none.
        coarsen: factor of the low-resolution simulation; 1 for none.
    """

    mirror: tuple[bool, ...]
    quarter_turns: tuple[int, int, int] | None = None
    affine: np.ndarray | None = None
    shift: tuple[float, ...] = ()
    gain: float = 1.0
    offset: float = 0.0
    gamma: float = 1.0
    noise: float = 0.0
    noise_seed: int = 0
    blur: float = 0.0
    coarsen: float = 1.0


@lru_cache(maxsize=4)
def _epoch_order(seed: int, epoch: int, cases: int) -> np.ndarray:
    return generator(seed, "order", epoch).permutation(cases)


def draw_case(seed: int, step: int, position: int, batch: int, cases: int) -> int:
    """Index of the case: every case once an epoch, in a new order each epoch."""
    epoch, place = divmod(step * batch + position, cases)
    return int(_epoch_order(seed, epoch, cases)[place])


def draw_centre(rng: np.random.Generator, shape: Sequence[int], patch: Sequence[int], positions: np.ndarray | None,
                foreground: float) -> np.ndarray:
    """Centre voxel of the patch, `(d,)` float (voxel centres are whole numbers).

    With probability `foreground` a random voxel of a random class that the case has; else one of class 0 if the case
    has such positions, or anywhere.
    Then it is moved so that the patch stays inside the image, along each axis on which it fits; on
    the others the patch is centred on the image.
    """
    first = 0 if positions is None else bisect_right(positions[:, 0], 0)  # of the foreground's
    row = None
    if positions is not None and len(positions) > first and rng.random() < foreground:
        classes, ends = positions[:, 0], [first]  # of the classes, which lie in order
        while ends[-1] < len(positions):
            ends.append(bisect_right(classes, classes[ends[-1]]))
        chosen = int(rng.random() * (len(ends) - 1))
        row = ends[chosen] + int(rng.random() * (ends[chosen + 1] - ends[chosen]))
    elif first:
        row = int(rng.random() * first)
    if positions is not None and row is not None:
        start = [voxel - p // 2 for voxel, p in zip(positions[row, 1:].tolist(), patch, strict=True)]
    else:
        start = [int(rng.random() * (max(n - p, 0) + 1)) for n, p in zip(shape, patch, strict=True)]
    return np.array([(min(max(a, 0), n - p) if n >= p else (n - p) // 2) + (p - 1) / 2
                     for a, n, p in zip(start, shape, patch, strict=True)])


def draw_augmentation(rng: np.random.Generator, section: AugmentSection, spacing_mm: Sequence[float],
                      patch: Sequence[int]) -> Augmentation:
    """All parameters of one sample, drawn in a fixed order."""
    dims = len(patch)
    if section.copies is not None and rng.random() * (section.copies + 1) < 1:
        return Augmentation(mirror=(False,) * dims, shift=(0.0,) * dims)
    flips = [bool(rng.random() < 0.5) for _ in range(dims)]
    allowed = {max(dims + AXES[name], 0) for name in section.mirror}
    use = {name: bool(rng.random() < getattr(section, name + "_p"))
           for name in ("affine", "intensity", "gamma", "noise", "blur", "low_resolution")}
    affine, shift = _draw_affine(rng, section, spacing_mm, patch) if use["affine"] else (None, (0.0,) * dims)
    turns = _draw_turns(rng, spacing_mm, patch) if section.rotate90 else None
    one = rng.uniform(-1, 1, 5)
    return Augmentation(
        mirror=tuple(flips[axis] and axis in allowed for axis in range(dims)), quarter_turns=turns,
        affine=affine, shift=shift,
        gain=1 + section.intensity_scale * one[0] if use["intensity"] else 1.0,
        offset=section.intensity_offset * one[1] if use["intensity"] else 0.0,
        gamma=1 + section.gamma * one[2] if use["gamma"] else 1.0,
        noise=section.noise * abs(one[3]) if use["noise"] else 0.0, noise_seed=int(rng.integers(2**62)),
        blur=section.blur * abs(one[4]) if use["blur"] else 0.0,
        coarsen=rng.uniform(1, section.low_resolution) if use["low_resolution"] else 1.0)


def _draw_affine(rng: np.random.Generator, section: AugmentSection, spacing_mm: Sequence[float],
                 patch: Sequence[int]) -> tuple[np.ndarray, tuple[float, ...]]:
    dims = len(patch)
    planes = [(-2, -1)] if dims == 2 else [(-2, -1), (-3, -1), (-3, -2)]
    matrix = np.eye(dims)
    for first, second in planes:
        angle = np.deg2rad(section.rotation_deg) * rng.uniform(-1, 1)
        turn = np.eye(dims)
        turn[first, first] = turn[second, second] = np.cos(angle)
        turn[first, second], turn[second, first] = -np.sin(angle), np.sin(angle)
        matrix = matrix @ turn
    factor = (1 + section.scale) ** rng.uniform(-1, 1)  # as often smaller as larger
    reach = section.shift * np.asarray(patch) * np.asarray(spacing_mm)
    return matrix * factor, tuple(float(v) for v in reach * rng.uniform(-1, 1, dims))


def _draw_turns(rng: np.random.Generator, spacing_mm: Sequence[float],
                patch: Sequence[int]) -> tuple[int, int, int] | None:
    dims = len(patch)
    planes = [(a, b) for a in range(dims) for b in range(a + 1, dims)
              if abs(spacing_mm[a] - spacing_mm[b]) <= 0.01 * spacing_mm[b] and patch[a] == patch[b]]
    choice, times = rng.random(), int(rng.random() * 4)
    if not planes or times == 0:
        return None
    first, second = planes[int(choice * len(planes))]
    return first, second, times

"""Star-shaped bodies of an exactly known volume, and how much of each voxel they fill.

A body is an ellipsoid, turned anyhow, whose radius is varied by a few low lobes and then scaled so that its volume
is that of a ball of the stated diameter.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_SPHERE = 2000  # directions over which a body's volume is taken, to about 0.1 %
_SAMPLES = 4  # along each axis of a voxel

Axes = tuple[np.ndarray, np.ndarray, np.ndarray]  # positions in mm of a grid's voxel centres along x, y, z


@dataclass(frozen=True)
class Body:
    """A closed surface.

    Attributes:
        star: `(3,)` x, y, z in mm, from where all of the surface is seen.
        matrix: `(3, 3)`, takes a position relative to `star` to units of the ellipsoid's half-axes.
        lobes: `(K, 4)`, direction and height of each.
    """

    star: np.ndarray
    matrix: np.ndarray
    lobes: np.ndarray


def body(centre: np.ndarray, diameter: float, random: np.random.Generator,
         ratios: tuple[float, float, float] = (1.0, 1.0, 1.0), along: np.ndarray | None = None,
         lobes: float = 0.25) -> Body:
    """A body of the given centre of mass and volume.

    Args:
        centre: `(3,)` mm.
        diameter: mm, of a ball of the same volume.
        ratios: of its half-axes.
        along: `(3,)`, direction of the first half-axis; else it is drawn.
        lobes: largest height of a lobe, as a share of the radius.
    """
    axes = np.linalg.qr(np.column_stack([random.normal(size=3) if along is None else along,
                                         random.normal(size=(3, 2))]))[0]
    half = np.asarray(ratios) / np.cbrt(np.prod(ratios))
    bumps = random.normal(size=(5, 4))
    bumps[:, :3] /= np.linalg.norm(bumps[:, :3], axis=1, keepdims=True)
    bumps[:, 3] = random.uniform(-lobes, lobes, 5)
    directions = _sphere()
    height = _height(directions, bumps)
    scale = diameter / 2 / np.cbrt((height ** 3).mean())  # V = 4/3 pi mean(h^3) abc
    mean = 0.75 * (height ** 4) @ directions / len(directions) / (height ** 3).mean()  # of the star-shaped body
    star = centre - axes @ (half * scale * mean)
    return Body(star, (axes / (half * scale)).T, bumps)


def lay_body(hu: np.ndarray, lump: Body, value: float, axes_mm: Axes) -> None:
    """Raise `hu`, `(Z, Y, X)`, to `value` inside a body, in place; what is brighter stays."""
    box, full = coverage(lump, axes_mm)
    hu[box] += np.maximum(value - hu[box], 0) * full


def coverage(lump: Body, axes_mm: Axes) -> tuple[tuple[slice, ...], np.ndarray]:
    """The share of each voxel that a body fills, by samples inside the voxel.

    Returns:
        The box `(z, y, x)` around the body on the grid, and its `(Z, Y, X)` float32, 0 to 1.
    """
    reach = np.linalg.norm(np.linalg.inv(lump.matrix), axis=1) * _height(_sphere(), lump.lobes).max()
    box, fine = [], []
    for axis, at, far in zip(axes_mm, lump.star, reach, strict=True):
        step = axis[1] - axis[0]
        low, high = axis.searchsorted([at - far - step, at + far + step])
        box.append(slice(int(low), int(high)))
        inside = (np.arange(_SAMPLES) + 0.5) / _SAMPLES - 0.5
        fine.append((axis[low:high, None] + step * inside).ravel() - at)
    x, y, z = fine
    place = np.stack(np.broadcast_arrays(x, y[:, None], z[:, None, None]), axis=-1) @ lump.matrix.T
    away = np.linalg.norm(place, axis=-1)
    near = np.nonzero(away < 2)  # half-axes: no lobe is higher
    full = np.zeros(away.shape, np.float32)
    full[near] = away[near] < _height(place[near] / np.maximum(away[near], 1e-9)[:, None], lump.lobes)
    cut = [side for length in full.shape for side in (length // _SAMPLES, _SAMPLES)]
    return tuple(reversed(box)), full.reshape(cut).mean(axis=(1, 3, 5))


def _height(directions: np.ndarray, lobes: np.ndarray) -> np.ndarray:
    """Of the surface above the star's centre, `(N,)`; a lobe is about 40 degrees wide."""
    return 1 + np.exp(4 * (directions @ lobes[:, :3].T - 1)) @ lobes[:, 3]


def _sphere() -> np.ndarray:
    """Even directions, `(_SPHERE, 3)`: the Fibonacci lattice (Gonzalez 2010, doi 10.1007/s11004-009-9257-x)."""
    number = np.arange(_SPHERE) + 0.5
    z, turn = 1 - 2 * number / _SPHERE, number * np.pi * (3 - np.sqrt(5))
    flat = np.sqrt(1 - z ** 2)
    return np.stack([flat * np.cos(turn), flat * np.sin(turn), z], axis=1)

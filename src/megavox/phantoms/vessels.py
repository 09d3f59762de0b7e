"""Branching tubes: the vessels and the airways of a lung.

A tree grows from its root to points scattered in the lung: again and again the point that is joined at the least cost,
which is the length of the new piece and a share of the way back to the root (the balanced spanning tree of Cuntz 2010,
doi 10.1371/journal.pcbi.1000877). By Murray's law the radius of a stem, raised to a power, is the sum of
its branches'.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from megavox.phantoms.bodies import Axes

_BALANCE = 0.35  # weight of the way to the root
_EXPONENT = 2.8  # of Murray's law, in theory 3


@dataclass(frozen=True)
class Tubes:
    """Balls so close that together they are tubes.

    Attributes:
        centres: `(N, 3)` x, y, z in mm.
        radii: `(N,)` mm.
        directions: `(N, 3)`, unit vectors along the tube.
    """

    centres: np.ndarray
    radii: np.ndarray
    directions: np.ndarray


def tree(root: np.ndarray, ends: np.ndarray, thinnest: float, step: float) -> Tubes:
    """A tree from `root` to all of `ends`.

    Args:
        root: `(3,)` mm.
        ends: `(N, 3)` mm.
        thinnest: radius of the last branches in mm.
        step: mm between balls.
    """
    points = np.vstack([root, ends])
    parents, order = _order(points)
    weight = np.zeros(len(points))
    for child in order[::-1]:
        weight[child] = max(weight[child], 1.0)  # no child of its own: an end
        weight[parents[child]] += weight[child]
    heading = points - points[parents]
    heading[0] = ends.mean(axis=0) - root
    curves = [_bent(points[parents[child]], points[child], heading[parents[child]], heading[child], step)
              for child in order]
    radii = np.repeat(thinnest * weight[order] ** (1 / _EXPONENT), [len(curve) for curve in curves])
    directions = np.concatenate([np.gradient(curve, axis=0) for curve in curves])
    return Tubes(np.concatenate(curves), radii, directions / np.linalg.norm(directions, axis=1, keepdims=True))


def straight(start: np.ndarray, end: np.ndarray, radius: float, step: float) -> Tubes:
    """One straight tube; all lengths in mm."""
    count = 2 + int(np.linalg.norm(end - start) / step)
    way = (end - start) / np.linalg.norm(end - start)
    return Tubes(np.linspace(start, end, count), np.full(count, radius), np.tile(way, (count, 1)))


def joined(tubes: Sequence[Tubes]) -> Tubes:
    """All of them as one."""
    return Tubes(*(np.concatenate([getattr(one, name) for one in tubes]) for name in
                   ("centres", "radii", "directions")))


def _order(points: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """The parent of each point, and the points but the first in the order in which they joined."""
    parents, cost, way = np.zeros(len(points), int), np.full(len(points), np.inf), np.zeros(len(points))
    left, order, newest = np.ones(len(points), bool), [], 0
    left[0] = False
    while left.any():
        length = np.linalg.norm(points - points[newest], axis=1)
        better = left & (length + _BALANCE * way[newest] < cost)
        cost[better], parents[better] = length[better] + _BALANCE * way[newest], newest
        newest = int(np.where(left, cost, np.inf).argmin())
        way[newest] = way[parents[newest]] + np.linalg.norm(points[newest] - points[parents[newest]])
        left[newest] = False
        order.append(newest)
    return parents, order


def _bent(start: np.ndarray, end: np.ndarray, leaves: np.ndarray, arrives: np.ndarray, step: float) -> np.ndarray:
    """A cubic Hermite curve from point to point, leaving it the way its stem was going."""
    length = np.linalg.norm(end - start)
    first, last = (0.8 * length * way / np.linalg.norm(way) for way in (leaves, arrives))
    t = np.linspace(0, 1, 2 + int(length / step))[:, None]
    return ((1 + 2 * t) * (1 - t) ** 2 * start + t * (1 - t) ** 2 * first
            + t ** 2 * (3 - 2 * t) * end + t ** 2 * (t - 1) * last)


def filled(tubes: Tubes, axes_mm: Axes) -> np.ndarray:
    """How much of each voxel the tubes fill, `(Z, Y, X)` float32, 0 to 1.

    The edge is a slope of `width`, one voxel: `clip(1/2 + (radius - distance) / width)` has an area of
    `pi (radius^2 + width^2 / 12)` from a radius of `width / 2` on, and what is more than the tube's is taken off the
    radius; tubes too thin for that have this least radius and are fainter. So every cross-section is right.
    """
    steps = np.array([axis[1] - axis[0] for axis in axes_mm])
    width = np.cbrt(np.prod(steps))
    starts, sizes = np.array([axis[0] for axis in axes_mm]), np.array([len(axis) for axis in axes_mm])
    out = np.zeros(sizes[::-1], np.float32)
    share = np.minimum(1.0, 3 * tubes.radii ** 2 / width ** 2)
    sloped = np.sqrt(np.maximum(tubes.radii ** 2 - width ** 2 / 12, width ** 2 / 4))
    reach = np.ceil((sloped + width / 2) / steps.min() + 0.5).astype(int)
    for far in np.unique(reach):
        of = reach == far
        centres, radii, most = tubes.centres[of], sloped[of], share[of]
        nearest = np.rint((centres - starts) / steps).astype(int)
        around = np.stack(np.meshgrid(*[np.arange(-far, far + 1)] * 3), axis=-1).reshape(-1, 3)
        farthest = radii.max() + (width + np.linalg.norm(steps)) / 2
        for offset in around[np.linalg.norm(around * steps, axis=1) <= farthest]:
            voxel = nearest + offset
            distance = np.linalg.norm(starts + voxel * steps - centres, axis=1)
            value = most * np.clip(0.5 + (radii - distance) / width, 0, 1)
            use = (value > 0) & (voxel >= 0).all(axis=1) & (voxel < sizes).all(axis=1)
            x, y, z = voxel[use].T
            np.maximum.at(out, (z, y, x), value[use].astype(np.float32))
    return out

"""A chest without what is inside the lungs: skin, fat, muscle, bones, heart, vessels, belly, and where the lungs are.

Every part is a signed distance in mm, negative inside, laid over the ones before with an edge one voxel wide. Positions
are in mm from the middle of the field: x to the patient's left, y to the back, z to the head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from megavox.phantoms.bodies import Axes

AIR, FAT, SOFT = -1000.0, -95.0, 45.0  # HU
_PITCH = 23.0  # mm from rib to rib, and from vertebra to vertebra
WALL_MM = 1.5  # from the ribcage's inner face to the lung
_ROUND = 2.5  # mm, radius of the lungs' edges


@dataclass(frozen=True)
class Thorax:
    """Images and distances are `(Z, Y, X)` float32.

    Attributes:
        hu: without the lungs, which are as the tissue around them.
        lungs: mm from their surface, negative inside.
        ribcage: mm from its inner face, negative inside.
        half: `(2,)`, half the ribcage's width and depth in mm.
        hila: `(2, 3)`, where vessels enter the right and the left lung.
        carina: `(3,)`, where the windpipe parts.
    """

    hu: np.ndarray
    lungs: np.ndarray
    ribcage: np.ndarray
    half: np.ndarray
    hila: np.ndarray
    carina: np.ndarray


def thorax(axes_mm: Axes, random: np.random.Generator, texture: np.random.Generator) -> Thorax:
    """Draw one.

    Args:
        axes_mm: x, y and z of the grid.
        random: for the shape, which so does not depend on the grid.
        texture: for the fat among the organs.
    """
    x, y, z = (axis.astype(np.float32).reshape([-1] + [1] * number) for number, axis in enumerate(axes_mm))
    width = float(np.cbrt(np.prod([axis[1] - axis[0] for axis in axes_mm])))
    outer = random.uniform((137.0, 97.0), (150.0, 106.0))
    inner = outer - random.uniform((24.0, 22.0), (32.0, 29.0))
    skin = np.broadcast_to(ellipsoid((x, y), outer), np.broadcast_shapes(x.shape, y.shape, z.shape))
    ribcage = _ribcage(x, y, z, inner, random)
    spine_y = inner[1] - random.uniform(20.0, 24.0)
    heart = _heart(x, y, z, random)
    middle = _middle(x, y, z, spine_y, random)
    diaphragm = _diaphragm(x, y, z, random)
    lungs = _smooth_highest([ribcage + WALL_MM, -_smooth_lowest([heart, middle]), diaphragm])

    hu = np.full(ribcage.shape, AIR, np.float32)
    lay(hu, skin, FAT, width)
    lay(hu, skin + random.uniform(5.0, 16.0), SOFT, width)
    fatty = gaussian_filter(texture.standard_normal(hu.shape, np.float32), 5.0 / width, truncate=2.5)
    fatty = np.clip(fatty / fatty.std() * 1.5 + random.uniform(-1.5, 0.0), 0, 1)
    between = (ribcage < 14) & (heart > 1)
    hu[between] += (FAT - SOFT) * fatty[between]
    lay(hu, np.maximum(heart, ribcage), random.uniform(30, 60), width)
    liver = np.maximum(np.maximum(ribcage, 4 - diaphragm), x - 20)
    lay(hu, liver, random.uniform(50, 70), width)
    _lay_bones(hu, x, y, z, ribcage, inner, spine_y, width)
    hila = np.array([[-36.0, 4.0, 4.0], [38.0, 6.0, 8.0]]) + random.uniform(-4, 4, (2, 3))
    return Thorax(hu, lungs, ribcage, inner, hila, np.array([0.0, 8.0, 26.0]) + random.uniform(-4, 4, 3))


def ellipsoid(place: Sequence[np.ndarray], half: Sequence[float] | Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
    """Distance from the surface of an ellipsoid or ellipse, right to first order near it.

    Source: iquilezles.org/articles/ellipsoids.
    """
    scaled = [at / length for at, length in zip(place, half, strict=True)]
    tiny = 1e-6  # keeps the very middle inside
    inside = np.sqrt(tiny + sum(at ** 2 for at in scaled))
    slope = np.sqrt(tiny / half[0] ** 2 + sum((at / length) ** 2 for at, length in zip(scaled, half, strict=True)))
    return (inside * (inside - 1) / slope).astype(np.float32)


def lay(hu: np.ndarray, distance: np.ndarray, value: float | np.ndarray, width: float) -> None:
    """Give `value` to what lies inside, in place; the edge is a slope of `width` mm, as of a voxel filled in part."""
    hu += (value - hu) * np.clip(0.5 - distance / width, 0, 1, dtype=np.float32)


def _smooth_lowest(distances: list[np.ndarray]) -> np.ndarray:
    """Union, with rounded creases."""
    lowest = np.minimum.reduce(distances)
    return lowest - _ROUND * np.log(sum(np.exp((lowest - one) / _ROUND) for one in distances))


def _smooth_highest(distances: list[np.ndarray]) -> np.ndarray:
    """Intersection, with rounded edges."""
    return -_smooth_lowest([-one for one in distances])


def _ribcage(x: np.ndarray, y: np.ndarray, z: np.ndarray, half: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """An elliptic tube that closes to a dome above."""
    shoulder, top = random.uniform(-15.0, 5.0), random.uniform(90.0, 98.0)
    up = np.clip((z - shoulder) / (top - shoulder), 0, 0.999)
    scale = (1 - up ** 2.4) ** (1 / 2.4) * (1 - 0.0006 * np.clip(z, 0, None))
    steep = np.gradient(scale[:, 0, 0], z[:, 0, 0])[:, None, None] * np.sqrt(np.prod(half))
    return ellipsoid((x, y), (half[0] * scale, half[1] * scale)) / np.sqrt(1 + steep ** 2)


def _heart(x: np.ndarray, y: np.ndarray, z: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """An ellipsoid whose tip points to the left and down."""
    left, front, down = random.uniform((14, 18, 34), (22, 26, 44))
    cos, sin = np.cos(0.5), np.sin(0.5)
    along, across = (x - left) * cos - (z + down) * sin, (x - left) * sin + (z + down) * cos
    return ellipsoid((along, y + front, across), random.uniform((54, 38, 38), (66, 46, 48)))


def _middle(x: np.ndarray, y: np.ndarray, z: np.ndarray, spine_y: float,
            random: np.random.Generator) -> np.ndarray:
    """Mediastinum without the heart: spine, great vessels, hila, and the wall between the lungs."""
    arch = random.uniform(32, 42)
    parts = [ellipsoid((x, y - spine_y - 6), (21.0, 30.0)),
             ellipsoid((x, y + 8), (random.uniform(22, 28), 48.0)) + np.clip(60 - z, 0, None) * 0.04,
             ellipsoid((x - 20, y - spine_y + 20), (13.0, 13.0)) + np.clip(z - arch, 0, None),
             ellipsoid((x - 20, y - 8, z - arch), (15.0, 36.0, 14.0)),
             ellipsoid((x + 30, y - 2, z - 2), (16.0, 17.0, 24.0)),
             ellipsoid((x - 32, y - 4, z - 6), (15.0, 17.0, 22.0)),
             np.abs(x - random.uniform(-3, 6)) - 2.5]
    return _smooth_lowest([np.broadcast_to(part, np.broadcast_shapes(x.shape, y.shape, z.shape)).astype(np.float32)
                           for part in parts])


def _diaphragm(x: np.ndarray, y: np.ndarray, z: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Two domes, the right one higher; negative above them."""
    tops = random.uniform((-42, -52), (-24, -34))
    sides = []
    for side, top in zip((-1, 1), tops, strict=True):
        across, along = x - side * random.uniform(56, 64), y + random.uniform(0, 12)
        dome = top - 52 * ((across / 88) ** 2 + (along / 74) ** 2)
        slope = 104 * np.hypot(across / 88 ** 2, along / 74 ** 2)
        sides.append((dome - z) / np.sqrt(1 + slope ** 2))
    return np.where(x < 0, *sides).astype(np.float32)


def _lay_bones(hu: np.ndarray, x: np.ndarray, y: np.ndarray, z: np.ndarray, ribcage: np.ndarray, half: np.ndarray,
               spine_y: float, width: float) -> None:
    """Ribs, breastbone and spine, each a shell of cortex around marrow."""
    at = np.nonzero(np.abs(ribcage - 6) < 9)
    here_x, here_y, here_z = x[at[2]], y[at[1], 0], z[at[0], 0, 0]
    around = np.arctan2(np.abs(here_x) / half[0], here_y / half[1]) / np.pi  # 0 behind, 1 in front
    off = (here_z + 80 * around ** 1.2 + _PITCH / 2) % _PITCH - _PITCH / 2
    out = ribcage[at] - 6
    rib = (np.hypot(out / 3.8, off / 6.0) - 1) * 3.8
    breastbone = np.maximum(np.maximum(np.abs(out) - 5, np.abs(here_x) - 15), -45 - here_z)
    wall = hu[at]
    for distance in (rib + 100 * (around > 0.8), np.where(around > 0.5, breastbone, 100)):
        lay(wall, distance, 560.0, width)
        lay(wall, distance + 2.2, 230.0, width)
    lay(wall, rib + 100 * (around <= 0.8), 110.0, width)  # cartilage
    hu[at] = wall

    disc = np.abs((z + 5) % _PITCH - _PITCH / 2) - 3
    vertebra = np.maximum(ellipsoid((x, y - spine_y), (17.0, 14.0)), -disc)
    arch = np.minimum(np.abs(ellipsoid((x, y - spine_y - 22), (12.0, 11.0))) - 2.5,
                      np.maximum(np.abs(x) - 3.5, np.abs(y - spine_y - 33) - 6))
    lay(hu, ellipsoid((x, y - spine_y), (16.0, 13.0)) + 0 * z, 80.0, width)
    for distance in (vertebra, np.maximum(arch, -disc - 4)):
        lay(hu, distance, 450.0, width)
        lay(hu, distance + 2.5, 190.0, width)
    lay(hu, ellipsoid((x, y - spine_y - 22), (9.5, 8.5)) + 0 * z, 30.0, width)

"""A chest CT with nodules that were put there, among vessels that look like them.

Vessels, airways and their walls branch through both lungs; some vessels are thick over a short way, and there are
scars and plaques. All of these are as bright as a nodule, and in one slice as round: only the shape in space tells.
The shape of the body depends on `(seed, number)` alone; vessels, findings, texture and noise on the grid as well.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import gaussian_filter

from megavox.core.randomness import generator
from megavox.images.geometry import Geometry
from megavox.phantoms.bodies import Axes
from megavox.phantoms.lumps import Finding, lay_findings, lay_look_alikes
from megavox.phantoms.thorax import Thorax, lay, thorax
from megavox.phantoms.vessels import Tubes, filled, joined, straight, tree

SPACING_MM = (1.85, 2.25)  # in the plane and from slice to slice: all of a chest in 2 million voxels
FIELD_MM = (316.0, 232.0, 216.0)  # extent of the image along world x, y, z
_LUMEN, _WALL = -970.0, -250.0  # HU of the airways


@dataclass(frozen=True)
class Chest:
    """One phantom.

    Attributes:
        image: `(Z, Y, X)` int16, HU.
        geometry: its grid.
        findings: what lies in it; those that count, and those that do not.
        lungs: `(Z, Y, X)` bool, with the vessels and nodules in them.
    """

    image: np.ndarray
    geometry: Geometry
    findings: tuple[Finding, ...]
    lungs: np.ndarray


def chest(seed: int, number: int, spacing_mm: tuple[float, float] = SPACING_MM,
          noise_hu: tuple[float, float] = (20.0, 45.0)) -> Chest:
    """Phantom `number` of `seed`.

    Args:
        spacing_mm: in the plane and from slice to slice, varied by up to 7 % from phantom to phantom.
        noise_hu: the standard deviation of the noise lies between these.
    """
    grid, shape = generator(seed, "chest", number, "grid"), generator(seed, "chest", number, "shape")
    spacing = np.array([spacing_mm[0], *spacing_mm]) * grid.uniform(0.93, 1.07, 2)[[0, 0, 1]]
    size = np.rint(FIELD_MM / spacing).astype(int)
    axes = tuple((np.arange(n) - (n - 1) / 2) * mm for n, mm in zip(size, spacing, strict=True))
    texture = generator(seed, "chest", number, "texture")
    made = thorax(axes, shape, texture)
    hu = made.hu
    lay(hu, made.lungs, _parenchyma(axes, made, shape, texture), float(np.cbrt(spacing.prod())))
    vessels = _lay_tubes(hu, axes, made, shape)
    lumps = generator(seed, "chest", number, "lumps")
    lay_look_alikes(hu, axes, made, vessels, lumps)
    findings = lay_findings(hu, axes, made, vessels, lumps)
    noise = gaussian_filter(texture.standard_normal(hu.shape, np.float32), (0.7, 0.9, 0.9) / spacing[::-1])
    hu += noise * (grid.uniform(*noise_hu) / noise.std())
    return _placed(np.clip(np.rint(hu), -1024, 3071).astype(np.int16), made.lungs < 0, findings, spacing, grid)


def _parenchyma(axes_mm: Axes, made: Thorax, shape: np.random.Generator, texture: np.random.Generator) -> np.ndarray:
    """HU of the lungs between the vessels: denser behind and below, mottled, with a fissure in each, `(Z, Y, X)`."""
    x, y, z = (axis.astype(np.float32).reshape([-1] + [1] * number) for number, axis in enumerate(axes_mm))
    spacing = np.array([axis[1] - axis[0] for axis in reversed(axes_mm)])
    hu = shape.uniform(-885, -835) + shape.uniform(0.2, 0.6) * y - shape.uniform(0.0, 0.2) * z + 0 * x
    for size_mm, strength in ((2.0, 22.0), (9.0, 18.0)):
        mottle = gaussian_filter(texture.standard_normal(hu.shape, np.float32), size_mm / spacing, truncate=3.0)
        hu += mottle * (strength / mottle.std())
    level, fall, bow = shape.uniform(-10, 15), shape.uniform(0.6, 0.9), shape.uniform(-8, 8)
    fissure = (z - level - fall * y - bow * np.cos(x / 25)) / np.sqrt(1 + fall ** 2)
    width = float(np.cbrt(spacing.prod()))
    return hu + 450 / width * np.clip(1 - np.abs(fissure) / width, 0, 1)  # half a millimetre thick


def _lay_tubes(hu: np.ndarray, axes_mm: Axes, made: Thorax, random: np.random.Generator) -> Tubes:
    """Arteries, veins and airways of both lungs, drawn into `hu`; gives the vessels."""
    step = float(min(axis[1] - axis[0] for axis in axes_mm)) / 2
    inside = np.nonzero(made.lungs < -2)
    places = np.stack([axis[index] for axis, index in zip(axes_mm, reversed(inside), strict=True)], axis=1)
    vessels, airways = [], [_windpipe(made, step)]
    for hilum, side in zip(made.hila, (-1, 1), strict=True):
        here = places[side * places[:, 0] > 0]
        for offset, count, thinnest in (((0, -5, 6), 440, 0.75), ((0, 4, -6), 320, 0.75)):
            vessels.append(tree(hilum + offset, random.choice(here, count, replace=False), thinnest, step))
        airways.append(tree(hilum, random.choice(here, 45, replace=False), 0.9, step))
    blood, air = joined(vessels), joined(airways)
    hu += np.maximum(random.uniform(10, 60) - hu, 0) * filled(blood, axes_mm)
    wall = Tubes(air.centres, 1.25 * air.radii + 0.3, air.directions)
    hu += np.maximum(_WALL - hu, 0) * filled(wall, axes_mm)
    hu += np.minimum(_LUMEN - hu, 0) * filled(air, axes_mm)
    return blood


def _windpipe(made: Thorax, step: float) -> Tubes:
    """Trachea and main bronchi."""
    top = made.carina + np.array([0.0, -4.0, 90.0])
    pieces = [(top, made.carina, 8.5), *((made.carina, hilum, 6.0) for hilum in made.hila)]
    return joined([straight(start, end, radius, step) for start, end, radius in pieces])


def _placed(image: np.ndarray, lungs: np.ndarray, findings: tuple[Finding, ...], spacing: np.ndarray,
            random: np.random.Generator) -> Chest:
    """In the world, as scanners do: the middle anywhere, and one in five with x and y the other way."""
    middle = random.uniform((-10, -190, -260), (10, -150, -60))
    turn = -1.0 if random.random() < 0.2 else 1.0
    if turn < 0:
        image, lungs = (np.ascontiguousarray(array[:, ::-1, ::-1]) for array in (image, lungs))
    z, y, x = image.shape
    affine = np.eye(4)
    affine[:3, :3] = np.diag(spacing * (turn, turn, 1.0))
    affine[:3, 3] = middle - affine[:3, :3] @ (np.array([x, y, z]) - 1) / 2
    moved = []
    for one in findings:
        left, back, up = (float(at) for at in middle + one.centre_mm)
        moved.append(replace(one, centre_mm=(left, back, up)))
    return Chest(image, Geometry.from_affine(affine, (x, y, z)), tuple(moved), lungs)

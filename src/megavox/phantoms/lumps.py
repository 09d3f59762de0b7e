"""What is found in a lung: nodules that count, findings that do not, and what only looks like them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from megavox.phantoms.bodies import Axes, body, lay_body
from megavox.phantoms.thorax import WALL_MM, Thorax
from megavox.phantoms.vessels import Tubes

KINDS = ("solid", "part-solid", "juxtapleural", "on a vessel")
EXCLUDED = ("micronodule", "granuloma", "opacity")
_COUNTS = (0.15, 0.25, 0.25, 0.17, 0.11, 0.07)  # share of chests with 0, 1, ... nodules
_SHARES = (0.4, 0.15, 0.25, 0.2)  # of `KINDS`
_MEDIAN_MM, _SPREAD = 6.5, 0.55  # of the log-normal diameters: most are small, as in LIDC
_SIZES_MM = {"solid": (3.0, 30.0), "part-solid": (6.0, 30.0), "juxtapleural": (4.0, 30.0), "on a vessel": (3.0, 20.0),
             "micronodule": (1.6, 2.9), "granuloma": (3.0, 6.0), "opacity": (5.0, 15.0)}
_HU = {"solid": (-20.0, 60.0), "part-solid": (-650.0, -500.0), "granuloma": (250.0, 600.0), "opacity": (-720.0, -600.0)}
_APART_MM = 6.0  # between the surfaces of two findings
_TRIES = 200


@dataclass(frozen=True)
class Finding:
    """What a reader would mark.

    Attributes:
        centre_mm: world LPS, centre of mass.
        diameter_mm: of a ball of its volume; of a juxtapleural one, with the part in the pleura.
        kind: one of `KINDS`, or of `EXCLUDED`.
        counts: whether it is to be found; false for what is neither right nor wrong to mark.
    """

    centre_mm: tuple[float, float, float]
    diameter_mm: float
    kind: str
    counts: bool


def lay_findings(hu: np.ndarray, axes_mm: Axes, chest: Thorax, vessels: Tubes,
                 random: np.random.Generator) -> tuple[Finding, ...]:
    """Draw the findings of a chest into `hu`, `(Z, Y, X)`; their centres are in mm from the middle of the field.

    One for which no room is found is left out.
    """
    room = _Room(axes_mm, chest, vessels)
    found: list[Finding] = []
    count = random.choice(len(_COUNTS), p=_COUNTS)
    kinds = [KINDS[k] for k in random.choice(len(KINDS), size=count, p=_SHARES)]
    for kind in kinds + [EXCLUDED[k] for k in random.integers(len(EXCLUDED), size=random.poisson(2.0))]:
        diameter = _diameter(kind, random)
        for centre in room.places(kind, diameter / 2, random):
            gaps = [np.linalg.norm(centre - one.centre_mm) - (diameter + one.diameter_mm) / 2 for one in found]
            if min(gaps, default=np.inf) > _APART_MM:
                _lay(hu, axes_mm, kind, centre, diameter, random)
                x, y, z = (float(at) for at in centre)
                found.append(Finding((x, y, z), diameter, kind, kind in KINDS))
                break
    return tuple(found)


def lay_look_alikes(hu: np.ndarray, axes_mm: Axes, chest: Thorax, vessels: Tubes, random: np.random.Generator) -> None:
    """Draw into `hu` what no reader would mark: short thick pieces of vessels, scars, and plaques on the pleura."""
    room = _Room(axes_mm, chest, vessels)
    for _ in range(random.integers(30, 50)):
        radius = random.uniform(1.6, 3.6)
        ball = next(room.on_vessels(radius, random))
        lay_body(hu, body(vessels.centres[ball], 2 * radius, random, (random.uniform(1.6, 3.2), 1.0, 1.0),
                          vessels.directions[ball]), random.uniform(*_HU["solid"]), axes_mm)
    for _ in range(random.integers(10, 20)):
        diameter = random.uniform(3.5, 8.0)
        centre = next(room.inside(diameter / 2, random))
        lay_body(hu, body(centre, diameter, random, (random.uniform(1.8, 3.0), random.uniform(1.0, 1.8), 0.8)),
                 random.uniform(*_HU["solid"]), axes_mm)
    for _ in range(random.integers(2, 6)):
        centre = next(room.at_the_ribs(3.0, random))
        lay_body(hu, body(centre, random.uniform(6.0, 12.0), random, (0.25, 1.0, 1.0), room.outward(centre)),
                 random.uniform(0, 80), axes_mm)


class _Room:
    """Where in the lungs something fits; places in mm are drawn, `_TRIES` at the most."""

    def __init__(self, axes_mm: Axes, chest: Thorax, vessels: Tubes) -> None:
        at = np.nonzero(chest.lungs < 0)
        self.depth = -chest.lungs[at]
        self.place = np.stack([axis[index] for axis, index in zip(axes_mm, reversed(at), strict=True)], axis=1)
        self.outer = np.abs(chest.lungs[at] - chest.ribcage[at] - WALL_MM) < 0.5  # no other wall is near
        self.half = chest.half
        self.vessels = vessels
        ends = [np.clip(np.rint((centres - axis[0]) / (axis[1] - axis[0])).astype(int), 0, len(axis) - 1)
                for centres, axis in zip(vessels.centres.T, axes_mm, strict=True)]
        self.depth_of_ball = -chest.lungs[ends[2], ends[1], ends[0]]

    def places(self, kind: str, radius: float, random: np.random.Generator) -> Iterator[np.ndarray]:
        """For the centre of a finding."""
        if kind == "juxtapleural":
            yield from self.at_the_ribs(radius, random)
        elif kind == "on a vessel":
            for ball in self.on_vessels(radius, random):
                aside = np.cross(self.vessels.directions[ball], random.normal(size=3))
                aside *= (0.5 * radius + self.vessels.radii[ball]) / np.linalg.norm(aside)
                yield self.vessels.centres[ball] + aside
        else:
            yield from self.inside(radius, random)

    def inside(self, radius: float, random: np.random.Generator) -> Iterator[np.ndarray]:
        """All of a ball in the lung, and not on a vessel that is thick beside it."""
        thick = self.vessels.radii > 0.3 * radius
        for place in _drawn(np.flatnonzero(self.depth > radius + 1.5), random):
            gaps = np.linalg.norm(self.vessels.centres[thick] - self.place[place], axis=1) - self.vessels.radii[thick]
            if gaps.min(initial=np.inf) > radius:
                yield self.place[place]

    def at_the_ribs(self, radius: float, random: np.random.Generator) -> Iterator[np.ndarray]:
        """On the pleura, or a little way in."""
        for place in _drawn(np.flatnonzero(self.outer & (self.depth < 0.3 * radius)), random):
            yield self.place[place]

    def on_vessels(self, radius: float, random: np.random.Generator) -> Iterator[int]:
        """Balls of vessels that are thinner than what is to lie on them."""
        fits = (self.depth_of_ball > 2 * radius + 1) & (self.vessels.radii < max(0.6 * radius, 1.0))
        yield from _drawn(np.flatnonzero(fits), random)

    def outward(self, place: np.ndarray) -> np.ndarray:
        """The normal of the ribcage at a place on it."""
        return np.append(place[:2] / self.half ** 2, 0.0)


def _drawn(numbers: np.ndarray, random: np.random.Generator) -> Iterator[int]:
    for _ in range(_TRIES if len(numbers) else 0):
        yield numbers[random.integers(len(numbers))]


def _diameter(kind: str, random: np.random.Generator) -> float:
    low, high = _SIZES_MM[kind]
    while kind in KINDS:
        drawn = float(random.lognormal(np.log(_MEDIAN_MM), _SPREAD))
        if low <= drawn <= high:
            return drawn
    return float(random.uniform(low, high))


def _lay(hu: np.ndarray, axes_mm: Axes, kind: str, centre: np.ndarray, diameter: float,
         random: np.random.Generator) -> None:
    lump = body(centre, diameter, random, tuple(random.uniform(0.85, 1.2, 3)))
    lay_body(hu, lump, random.uniform(*_HU.get(kind, _HU["solid"])), axes_mm)
    if kind == "part-solid":
        core = body(centre + random.uniform(-0.1, 0.1, 3) * diameter, diameter * random.uniform(0.25, 0.5), random)
        lay_body(hu, core, random.uniform(*_HU["solid"]), axes_mm)

"""From a map of probabilities to candidates: where something was found, how sure it is, and how large.

Peaks are peeled off one after the other, the highest first: a candidate is the connected region (26 neighbours) around
its peak in which the probability is above a share of the peak's. So a faint finding beside a sure one is found too, and
no threshold has to be chosen: FROC sweeps the scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from megavox.images.geometry import Geometry

FAINTEST = 0.01  # no peak is lower
SHARE = 0.4  # of the peak, above which a voxel belongs to its candidate
LEAST_MM3 = 10.0  # a ball of 2.7 mm; LUNA16 counts nodules from 3 mm
MOST = 100  # of a case
SPECKS = 20  # smaller peaks that are passed over, for each candidate
NEAREST_MM = 5.0  # centres nearer than this, or than the larger one's radius, are one finding
_ALL_NEIGHBOURS = np.ones((3, 3, 3), dtype=bool)


@dataclass(frozen=True)
class Candidates:
    """Of one case, the surest first.

    Attributes:
        scores: `(N,)`, the highest probability of each.
        centres_mm: `(N, 3)`, LPS world, the mean of its voxels by their probability.
        diameters_mm: `(N,)`, of a ball of its volume.
    """

    scores: np.ndarray
    centres_mm: np.ndarray
    diameters_mm: np.ndarray

    def rows(self) -> list[list[float]]:
        """x, y, z, diameter in mm and score of each, rounded as tables have them."""
        return [[*(round(float(v), 3) for v in (*centre, diameter)), round(float(score), 9)] for centre, diameter, score
                in zip(self.centres_mm, self.diameters_mm, self.scores, strict=True)]

    @classmethod
    def of(cls, rows: Sequence[Sequence[float]]) -> Candidates:
        """Inverse of `rows`."""
        table = np.array(rows, dtype=float).reshape(-1, 5)
        return cls(table[:, 4], table[:, :3], table[:, 3])


def candidates(probability: np.ndarray, geometry: Geometry, most: int = MOST) -> Candidates:
    """Candidates of a case.

    Args:
        probability: `(Z, Y, X)`, 0 to 1.
        geometry: of its grid.
        most: how many, at the most.
    """
    found = []
    fewest = LEAST_MM3 / geometry.voxel_mm3
    regions, count = ndimage.label(probability >= SHARE * FAINTEST, _ALL_NEIGHBOURS)
    highest = ndimage.maximum(probability, regions, np.arange(1, count + 1))
    for number, box in enumerate(ndimage.find_objects(regions), 1):
        if highest[number - 1] < FAINTEST:
            continue
        inside = np.where(regions[box] == number, probability[box], 0.0)
        first = np.array([part.start for part in box])
        found += [(score, where + first, voxels) for score, where, voxels in _peeled(inside, most, fewest)]
    found.sort(key=lambda one: -one[0])
    matrix = geometry.affine()
    centres = np.array([matrix[:3, :3] @ where[::-1] + matrix[:3, 3] for _, where, _ in found]).reshape(-1, 3)
    diameters = np.array([(6 * voxels * geometry.voxel_mm3 / np.pi) ** (1 / 3) for _, _, voxels in found])
    kept = _apart(centres, diameters)[:most]
    return Candidates(np.array([score for score, _, _ in found])[kept], centres[kept], diameters[kept])


def _peeled(probability: np.ndarray, most: int, fewest: float) -> list[tuple[float, np.ndarray, int]]:
    """Score, centre in voxels (z, y, x) and number of voxels of each peak of a region, if not fewer than that."""
    left = probability.astype(np.float64)
    found: list[tuple[float, np.ndarray, int]] = []
    for _ in range(SPECKS * most):
        peak = tuple(map(int, np.unravel_index(left.argmax(), left.shape)))
        score = float(left[peak])
        if score < FAINTEST or len(found) == most:
            break
        members = _around(left, SHARE * score, peak)
        weights = left[members]
        if len(weights) >= fewest:
            found.append((score, np.array([weights @ axis for axis in members]) / weights.sum(), len(weights)))
        left[members] = 0.0
    return found


def _around(values: np.ndarray, least: float, peak: Sequence[int]) -> tuple[np.ndarray, ...]:
    """Indices of the connected voxels around a peak with at least such a value; only as much is looked at as has to
    be."""
    reach = 8
    while True:
        low = [max(0, at - reach) for at in peak]
        box = values[tuple(slice(first, at + reach + 1) for first, at in zip(low, peak, strict=True))] >= least
        labels, _ = ndimage.label(box, _ALL_NEIGHBOURS)
        members = np.nonzero(labels == labels[tuple(at - first for at, first in zip(peak, low, strict=True))])
        whole = all((first == 0 or axis.min() > 0) and (first + size == full or axis.max() < size - 1)
                    for axis, first, size, full in zip(members, low, box.shape, values.shape, strict=True))
        if whole:
            return tuple(axis + first for axis, first in zip(members, low, strict=True))
        reach *= 2


def _apart(centres_mm: np.ndarray, diameters_mm: np.ndarray) -> np.ndarray:
    """Numbers of those that lie beside no surer one."""
    kept: list[int] = []
    for number, centre in enumerate(centres_mm):
        near = np.maximum(NEAREST_MM, np.maximum(diameters_mm[kept], diameters_mm[number]) / 2)
        if not kept or (np.linalg.norm(centres_mm[kept] - centre, axis=1) >= near).all():
            kept.append(number)
    return np.array(kept, dtype=int)

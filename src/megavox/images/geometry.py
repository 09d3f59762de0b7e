"""Where the voxels of an image lie in the patient.

World coordinates are LPS millimetres (x grows to the patient's left, y to the back, z to the head),
as in DICOM and ITK. Index coordinates and the fields of `Geometry` are in the order (x, y, z);
arrays are `(C, Z, Y, X)`, so array axes are the index axes reversed. A 2D image has a `Geometry`
too: one slice, 1 mm thick unless the file says otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np


@dataclass(frozen=True)
class Geometry:
    """A regular grid: `world = origin + direction @ (spacing * index)`.

    Attributes:
        size: voxels along x, y, z.
        spacing: mm between voxel centres along x, y, z.
        origin: world position in mm of the centre of voxel (0, 0, 0).
        direction: 3x3, row-major, columns are the unit vectors of the index axes in the world.
        calibrated: false where the file gave no spacing (a PNG): lengths are then in pixels.
    """

    size: tuple[int, int, int]
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)
    direction: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    calibrated: bool = True

    @property
    def shape(self) -> tuple[int, int, int]:
        """Array shape `(Z, Y, X)`."""
        x, y, z = self.size
        return (z, y, x)

    @property
    def spacing_zyx(self) -> tuple[float, float, float]:
        """Spacing in mm in array order."""
        x, y, z = self.spacing
        return (z, y, x)

    @property
    def voxel_mm3(self) -> float:
        """Volume of one voxel in mm^3."""
        return float(np.prod(self.spacing))

    def affine(self) -> np.ndarray:
        """4x4 float64 matrix from index (x, y, z) to LPS world in mm."""
        matrix = np.eye(4)
        matrix[:3, :3] = np.reshape(self.direction, (3, 3)) * np.asarray(self.spacing)
        matrix[:3, 3] = self.origin
        return matrix

    def index_of(self, world_mm: Sequence[float]) -> np.ndarray:
        """Index `(x, y, z)`, with fractions, of a world position in mm."""
        return np.asarray(np.linalg.solve(self.affine(), [*world_mm, 1.0])[:3])

    @classmethod
    def from_affine(cls, affine: np.ndarray, size: Sequence[int], calibrated: bool = True) -> Geometry:
        """Geometry from a 4x4 index-to-LPS matrix and the size along x, y, z."""
        matrix = np.asarray(affine, dtype=np.float64)
        spacing = np.linalg.norm(matrix[:3, :3], axis=0)
        direction = matrix[:3, :3] / np.where(spacing > 0, spacing, 1.0)
        return cls(size=_three(size, int), spacing=_three(spacing, float),
                   origin=_three(matrix[:3, 3], float),
                   direction=tuple(float(v) for v in direction.ravel()), calibrated=calibrated)

    def corners(self) -> np.ndarray:
        """World positions in mm of the eight corner voxel centres, `(8, 3)`."""
        ends = [(0, max(n - 1, 0)) for n in self.size]
        index = np.array([(*corner, 1) for corner in product(*ends)], dtype=np.float64)
        return (index @ self.affine().T)[:, :3]

    def distance_mm(self, other: Geometry) -> float:
        """Largest distance in mm between corresponding corners of two grids."""
        return float(np.linalg.norm(self.corners() - other.corners(), axis=1).max())

    def axis_codes(self) -> str:
        """Nearest anatomical directions in which x, y, z grow, e.g. "LPS"."""
        return "".join("LPS"[a] if s > 0 else "RAI"[a] for a, s in self.closest_axes())

    def closest_axes(self) -> list[tuple[int, int]]:
        """For each index axis the world axis it runs along (each used once) and its sign."""
        matrix = np.reshape(self.direction, (3, 3))
        along = [sum(abs(matrix[p[i], i]) for i in range(3)) for p in _PERMUTATIONS]
        # Of equally close ones the first, which is "as they are": rounding must not decide.
        best = next(p for p, value in zip(_PERMUTATIONS, along, strict=True) if value > max(along) - 1e-9)
        return [(best[i], 1 if matrix[best[i], i] >= 0 else -1) for i in range(3)]

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        return {"size": list(self.size), "spacing_mm": list(self.spacing),
                "origin_mm": list(self.origin), "direction": list(self.direction),
                "calibrated": self.calibrated}

    @classmethod
    def from_dict(cls, value: dict[str, object]) -> Geometry:
        """Inverse of `to_dict`."""
        return cls(size=_three(value["size"], int), spacing=_three(value["spacing_mm"], float),
                   origin=_three(value["origin_mm"], float),
                   direction=tuple(float(v) for v in value["direction"]),  # type: ignore[attr-defined]
                   calibrated=bool(value["calibrated"]))


_PERMUTATIONS = [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]


def _three(values: object, kind: type) -> tuple:
    x, y, z = list(values)  # type: ignore[call-overload]
    return (kind(x), kind(y), kind(z))

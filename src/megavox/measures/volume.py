"""Volumes of labelled regions in mm^3: voxels counted, times the volume of one voxel."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def voxel_volume_mm3(spacing_zyx: Sequence[float]) -> float:
    """Volume of one voxel in mm^3.

    Args:
        spacing_zyx: mm between voxel centres, `(z, y, x)`; or `(y, x)` for an image of one slice,
            which is then taken as 1 mm thick, as `Geometry` does.
    """
    assert len(spacing_zyx) in (2, 3) and all(step > 0 for step in spacing_zyx), spacing_zyx
    return math.prod(float(step) for step in spacing_zyx)


def volumes_mm3(labels: np.ndarray, spacing_zyx: Sequence[float],
                classes: Sequence[str]) -> dict[str, float]:
    """Volume of every class.

    Args:
        labels: integer labels `(Z, Y, X)` or `(Y, X)`; 0 is background, k is `classes[k - 1]`.
            Other labels (an ignored region) are in no class.
        spacing_zyx: mm between voxel centres in array order.
        classes: class names, without the background.

    Returns:
        mm^3 for each class name; 0.0 for a class that does not occur.
    """
    voxel_mm3 = voxel_volume_mm3(spacing_zyx)
    return {name: int(np.count_nonzero(labels == label)) * voxel_mm3
            for label, name in enumerate(classes, start=1)}

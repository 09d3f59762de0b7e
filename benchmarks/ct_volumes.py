"""CT-like volumes with smooth masks, the same for every peer: 512 x 512 x 200 voxels of 1 mm, int16."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy import ndimage

from megavox.core.files import write_array
from megavox.images.geometry import Geometry
from megavox.images.intensity import intensity_statistics
from megavox.store.layout import POSITIONS, Record, shard_files, write_arrays
from megavox.store.pack import class_positions
from megavox.store.read import CaseReader

SHAPE = (200, 512, 512)  # z, y, x


def ct_volume(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A body with sixty organs in air, noise of 20 HU; the mask has two classes of organs, as large as tumours.

    Returns:
        image `(Z, Y, X)` int16 in HU and mask `(Z, Y, X)` uint8.
    """
    rng = np.random.default_rng(seed)
    z, y, x = np.ogrid[:SHAPE[0], :SHAPE[1], :SHAPE[2]]
    body = ((y - 256) / 200) ** 2 + ((x - 256) / 230) ** 2 < 1
    image = np.where(np.broadcast_to(body, SHAPE), 40, -1000).astype(np.float32)
    mask = np.zeros(SHAPE, np.uint8)
    for number in range(60):
        centre, axes = rng.uniform((0, 120, 100), (200, 390, 410)), rng.uniform(8, 50, 3)
        organ = sum(((a - c) / r) ** 2 for a, c, r in zip((z, y, x), centre, axes, strict=True)) < 1
        image[organ] = rng.uniform(-800, 600)
        if number >= 56:
            mask[organ] = 1 + number % 2
    image = ndimage.gaussian_filter(image, 0.7)
    image += rng.normal(0, 8, SHAPE) + (image > -900) * rng.normal(0, 20, SHAPE)
    return image.clip(-1024, 3071).astype(np.int16), mask


def pack_volume(folder: Path, image: np.ndarray, mask: np.ndarray) -> CaseReader:
    """Pack a volume into a case's folder as `megavox pack` does."""
    geometry = Geometry((SHAPE[2], SHAPE[1], SHAPE[0]))
    write_arrays(folder, image[None], mask, geometry)
    write_array(folder / POSITIONS, class_positions(mask, range(1, 3), np.random.default_rng(0)))
    record = Record(
        folder.name, (1, *SHAPE), geometry, geometry, intensity_statistics(image[None]), "",
        voxels=tuple(int((mask == k).sum()) for k in (1, 2)),
        bytes=tuple((path.relative_to(folder).as_posix(), path.stat().st_size) for path in shard_files(folder)))
    return CaseReader(folder, record, folder.name)

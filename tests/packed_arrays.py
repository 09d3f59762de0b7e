"""Packed cases made of given arrays, for tests of what is drawn from them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from megavox.batches.samples import Samples
from megavox.core.files import write_array
from megavox.images.geometry import Geometry
from megavox.images.intensity import intensity_statistics, normaliser
from megavox.store.layout import POSITIONS, Record, shard_files, write_arrays
from megavox.store.pack import class_positions
from megavox.store.read import CaseReader
from megavox.study.sections import AugmentSection, BatchesSection

STILL = AugmentSection(mirror=[], affine_p=0, intensity_p=0, gamma_p=0, noise_p=0, blur_p=0, low_resolution_p=0)
WILD = AugmentSection(mirror=["left-right", "front-back", "up-down"], rotate90=True, affine_p=0.8, rotation_deg=40,
                      scale=0.3, shift=0.2, intensity_p=0.5, gamma_p=0.5, noise_p=0.5, blur_p=0.5, low_resolution_p=0.5)


def packed(folder: Path, image: np.ndarray, mask: np.ndarray | None = None,
           spacing: tuple[float, ...] = (1.0, 1.0, 1.0), classes: int = 2,
           labels: tuple[int, ...] = (0,)) -> CaseReader:
    """A case of the store with `image` `(C, ...)`, and either `mask` or the numbers of its classes."""
    size = (*reversed(image.shape[1:]), 1, 1)[:3]
    geometry = Geometry(size, (*reversed(spacing), 1.0, 1.0)[:3])
    write_arrays(folder, image, mask, geometry)
    if mask is not None:
        write_array(folder / POSITIONS, class_positions(mask, range(1, classes + 1), np.random.default_rng(0)))
    record = Record(
        folder.name, image.shape, geometry, geometry, intensity_statistics(image), "", classes=labels,
        bytes=tuple((path.relative_to(folder).as_posix(), path.stat().st_size) for path in shard_files(folder)))
    return CaseReader(folder, record, f"case {folder.name}")


def samples_of(readers: list[CaseReader], patch: tuple[int, ...], batch: int = 4, augment: AugmentSection = STILL,
               foreground: float = 0.5, seed: int = 0, classes: int = 0, mode: str = "zscore") -> Samples:
    """Samples of these cases, each normalised by itself."""
    numbers = [normaliser(mode, reader.record.intensities) for reader in readers]
    section = BatchesSection(foreground=foreground, augment=augment)
    return Samples(readers, numbers, patch=patch, batch=batch, section=section, seed=seed, classes=classes)


def three_cases(folder: Path) -> list[CaseReader]:
    """Three small volumes of different shapes and spacings, with masks of two classes."""
    rng = np.random.default_rng(0)
    kinds = (((20, 24, 22), (1.0, 1.0, 1.0)), ((9, 30, 31), (3.0, 0.7, 0.7)), ((14, 12, 40), (1.2, 1.5, 0.8)))
    return [packed(folder / f"k{n}", rng.normal(100, 20, (1, *shape)).astype(np.float32),
                   rng.integers(0, 3, shape).astype(np.uint8), spacing) for n, (shape, spacing) in enumerate(kinds)]

"""One training sample: from `(step, position in the global batch)` to a patch and its target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from megavox.batches import fused
from megavox.batches.apply import spatial_matrix
from megavox.batches.parameters import Augmentation, draw_augmentation, draw_case, draw_centre
from megavox.core.randomness import generator
from megavox.images.intensity import outside_value
from megavox.store.read import CachedArrays, CaseReader
from megavox.study.sections import BatchesSection


@dataclass(frozen=True)
class Sample:
    """A patch and what should be said of it.

    Attributes:
        image: `(C, *patch)` float32, normalised and augmented.
        target: `(*patch)` uint8 class numbers to segment; `(K,)` float32 of 0, 1 or NaN (unknown) to
            classify.
        case: index of the case among the training cases.
    """

    image: np.ndarray
    target: np.ndarray
    case: int


class Samples:
    """All samples of a training; holds no state that a draw depends on.

    Args:
        readers: the training cases.
        numbers: each case's normalisation, `(C, 4)` from `images.intensity.normaliser`.
        patch: patch size in voxels.
        batch: size of the global batch.
        section: the study's batches section.
        seed: the study's seed.
        classes: number of classes of a classify task; 0 to segment.
    """

    def __init__(self, readers: Sequence[CaseReader], numbers: Sequence[np.ndarray], *, patch: Sequence[int],
                 batch: int, section: BatchesSection, seed: int, classes: int = 0) -> None:
        self.readers, self.numbers, self.patch, self.batch = list(readers), list(numbers), tuple(patch), batch
        self.section, self.seed, self.classes = section, seed, classes
        self._cache = CachedArrays()

    def case_name(self, step: int, position: int) -> str:
        """Name of the case that a sample comes from."""
        return self.readers[self._case(step, position)].name

    def sample(self, step: int, position: int) -> Sample:
        """Make the sample at `position` of the global batch of `step`."""
        case = self._case(step, position)
        reader = self.readers[case]
        spacing = reader.record.spacing_mm
        rng = generator(self.seed, "sample", step, position)
        positions = None if self.classes else self._cache.positions(reader)
        centre = draw_centre(rng, reader.record.shape[1:], self.patch, positions, self.section.foreground)
        augmentation = draw_augmentation(rng, self.section.augment, spacing, self.patch)
        image, target = self.apply(case, centre, augmentation)
        return Sample(image, target, case)

    def apply(self, case: int, centre: np.ndarray, augmentation: Augmentation) -> tuple[np.ndarray, np.ndarray]:
        """Carry out a draw: image `(C, *patch)` and target."""
        reader, numbers = self.readers[case], self.numbers[case]
        record = reader.record
        matrix = spatial_matrix(augmentation, record.spacing_mm)
        if augmentation.affine is not None:
            centre = centre + np.asarray(augmentation.shift) / record.spacing_mm
        centre = _on_voxels(matrix, centre, self.patch)
        image = fused.image_patch(lambda a, b: self._cache.box(reader, "image", a, b), matrix, centre, self.patch,
                                  record.shape[1:], numbers, outside_value(record.intensities, numbers))
        image = fused.change_intensities(image, augmentation)
        if self.classes:
            return image, class_target(record.classes or (), record.unknown, self.classes)
        return image, fused.mask_patch(lambda a, b: self._cache.box(reader, "mask", a, b), matrix, centre, self.patch,
                                       record.shape[1:])

    def _case(self, step: int, position: int) -> int:
        return draw_case(self.seed, step, position, self.batch, len(self.readers))


def class_target(classes: Sequence[int], unknown: Sequence[int], count: int) -> np.ndarray:
    """`(count,)` float32: 1 for classes that hold, NaN for unknown ones, else 0."""
    target = np.zeros(count, np.float32)
    target[list(classes)] = 1
    target[list(unknown)] = np.nan
    return target


def _on_voxels(matrix: np.ndarray, centre: np.ndarray, patch: Sequence[int]) -> np.ndarray:
    """For a signed permutation, the nearest centre that puts patch voxels on image voxels."""
    if np.abs(matrix - np.rint(matrix)).max() > 1e-9:
        return centre
    half = np.abs(matrix) @ ((np.asarray(patch) - 1) / 2)
    return np.floor(centre - half + 0.5) + half

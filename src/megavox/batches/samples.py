"""One training sample: from `(step, position in the global batch)` to a patch and its target."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from megavox.batches.apply import source_box, spatial_matrix
from megavox.batches.fused import Look, change_intensities
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


@dataclass(frozen=True)
class Draw:
    """What to make of a box that was read.

    Attributes:
        matrix: `(d, d)`, from `apply.spatial_matrix`.
        first: `(d,)`: patch voxel p looks at box position `first + matrix @ p`.
        patch: size in voxels.
        numbers: `(C, 4)` of the normalisation.
        outside: `(C,)`, normalised value outside the image.
        augmentation: of which the intensities are to be changed.
    """

    matrix: np.ndarray
    first: np.ndarray
    patch: tuple[int, ...]
    numbers: np.ndarray
    outside: np.ndarray
    augmentation: Augmentation


@dataclass(frozen=True)
class RawSample:
    """A sample that was drawn and read, but not carried out.

    Attributes:
        image: `(C, *box)` in its stored type.
        target: of the same box, uint8 class numbers to segment; `(K,)` as of `Sample` to classify.
        draw: what to make of them.
        case: index of the case among the training cases.
    """

    image: np.ndarray
    target: np.ndarray
    draw: Draw
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
        classes: number of classes of a classify task; 0 to segment and detect.
        hard: case -> `(N, 1 + d)` positions of class 0, which stand for all others of it in the share of
            `section.hard`.
    """

    def __init__(self, readers: Sequence[CaseReader], numbers: Sequence[np.ndarray], *, patch: Sequence[int],
                 batch: int, section: BatchesSection, seed: int, classes: int = 0,
                 hard: Mapping[int, np.ndarray] | None = None) -> None:
        self.readers, self.numbers, self.patch, self.batch = list(readers), list(numbers), tuple(patch), batch
        self.section, self.seed, self.classes = section, seed, classes
        self._cache, self._hard = CachedArrays(), hard or {}
        self._outside: dict[int, np.ndarray] = {}

    def case_name(self, step: int, position: int) -> str:
        """Name of the case that a sample comes from."""
        return self.readers[self._case(step, position)].name

    def sample(self, step: int, position: int) -> Sample:
        """Make the sample at `position` of the global batch of `step`."""
        case, centre, augmentation = self._draw(step, position)
        image, target = self.apply(case, centre, augmentation)
        return Sample(image, target, case)

    def raw(self, step: int, position: int) -> RawSample:
        """The same sample, to be carried out elsewhere."""
        case, centre, augmentation = self._draw(step, position)
        reader, numbers = self.readers[case], self.numbers[case]
        record = reader.record
        matrix, centre = self._place(case, centre, augmentation)
        start, stop = source_box(matrix, centre, self.patch, record.shape[1:])
        first = centre - matrix @ ((np.asarray(self.patch) - 1) / 2) - start
        draw = Draw(matrix, first, self.patch, numbers, self._outside_of(case), augmentation)
        box = start.tolist(), stop.tolist()
        target = (class_target(record.classes or (), record.unknown, self.classes) if self.classes
                  else self._cache.box(reader, "mask", *box))
        return RawSample(self._cache.box(reader, "image", *box), target, draw, case)

    def apply(self, case: int, centre: np.ndarray, augmentation: Augmentation) -> tuple[np.ndarray, np.ndarray]:
        """Carry out a draw: image `(C, *patch)` and target."""
        reader, numbers = self.readers[case], self.numbers[case]
        record = reader.record
        matrix, centre = self._place(case, centre, augmentation)
        look = Look(matrix, centre, self.patch, record.shape[1:])
        image = look.image(lambda *box: self._cache.box(reader, "image", *box), numbers, self._outside_of(case))
        image = change_intensities(image, augmentation)
        if self.classes:
            return image, class_target(record.classes or (), record.unknown, self.classes)
        return image, look.mask(lambda *box: self._cache.box(reader, "mask", *box))

    def _draw(self, step: int, position: int) -> tuple[int, np.ndarray, Augmentation]:
        """Case, centre and augmentation of a sample."""
        case = self._case(step, position)
        reader = self.readers[case]
        rng = generator(self.seed, "sample", step, position)
        positions = None if self.classes else self._cache.positions(reader)
        if case in self._hard and self.section.hard is not None and rng.random() < self.section.hard.share:
            positions = np.concatenate([self._hard[case], positions[positions[:, 0] > 0]])  # type: ignore[index]
        centre = draw_centre(rng, reader.record.shape[1:], self.patch, positions, self.section.foreground)
        return case, centre, draw_augmentation(rng, self.section.augment, reader.record.spacing_mm, self.patch)

    def _place(self, case: int, centre: np.ndarray, augmentation: Augmentation) -> tuple[np.ndarray, np.ndarray]:
        """Matrix and centre of a draw, as of `apply.sample_patch`."""
        spacing = self.readers[case].record.spacing_mm
        matrix = spatial_matrix(augmentation, spacing)
        if augmentation.affine is not None:
            centre = centre + np.asarray(augmentation.shift) / spacing
        return matrix, _on_voxels(matrix, centre, self.patch)

    def _outside_of(self, case: int) -> np.ndarray:
        found = self._outside.get(case)
        if found is None:
            found = self._outside[case] = outside_value(self.readers[case].record.intensities, self.numbers[case])
        return found

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
    rows = matrix.tolist()
    if any(abs(value - round(value)) > 1e-9 for row in rows for value in row):
        return centre
    half = [sum(abs(value) * (p - 1) / 2 for value, p in zip(row, patch, strict=True)) for row in rows]
    return np.array([math.floor(c - h + 0.5) + h for c, h in zip(centre.tolist(), half, strict=True)])

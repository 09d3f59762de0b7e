"""Looking into the files of a folder, to guess what the study file should say.

All masks are read for the classes, since a rare class may stand in a single one; beyond `MOST_MASKS` an
evenly spread choice of so many is, and `MaskValues` says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from megavox.cohort.layouts.listing import some
from megavox.core.errors import CohortError, ImageError
from megavox.core.progress import track
from megavox.images.formats import read_image

T = TypeVar("T")
MOST_MASKS = 500
MOST_CLASSES = 250  # masks are stored in one byte


@dataclass(frozen=True)
class MaskValues:
    """Whole values other than 0 that were found in masks.

    Attributes:
        counts: value -> masks that have it, in order of value.
        looked: masks that were opened.
        unreadable: how many of these could not be read.
        of: masks there are.
    """

    counts: dict[int, int]
    looked: int
    unreadable: int
    of: int

    def classes(self, where: Path) -> dict[str, int]:
        """A class for each value, named after it.

        Raises:
            CohortError: too many values; `where` is the folder of the masks.
        """
        if len(self.counts) > MOST_CLASSES:
            raise CohortError(f"the masks have {len(self.counts)} different values besides 0, too many for classes",
                              where=where, expected=f"at most {MOST_CLASSES}: a whole number a class, as masks have",
                              fix="Check that these are masks and not images, or were not saved as JPEG")
        return {f"class {value}": value for value in self.counts}

    @property
    def comment(self) -> str:
        """Where the classes come from, for the study file."""
        looked = f"all {self.of}" if self.looked == self.of else f"{self.looked} of {self.of}"
        spread = "" if self.looked == self.of else ", evenly spread"
        broken = f" ({self.unreadable} could not be read)" if self.unreadable else ""
        masks = some([f"{value} in {count}" for value, count in self.counts.items()], 30)
        return f"the values found in {looked} masks{spread}{broken}; masks with each: {masks}. Give them names"

    @property
    def remarks(self) -> list[str]:
        """That not all masks were read, if so."""
        if self.looked == self.of:
            return []
        return [f"only {self.looked} of {self.of} masks were read for the classes, evenly spread: a class that "
                "stands in none of these is missing from task.classes"]


def values_in(masks: Sequence[Path]) -> MaskValues:
    """Values of all masks, or of `MOST_MASKS` evenly spread ones; one mask is in memory at a time."""
    counts: Counter[int] = Counter()
    chosen, unreadable = evenly(masks, MOST_MASKS), 0
    for path in track(chosen, "reading masks", total=len(chosen)):
        try:
            counts.update(_whole_values(read_image(path).array))
        except ImageError:
            unreadable += 1  # the catalogue's check of every image sets it aside with its reason
    return MaskValues(dict(sorted(counts.items())), len(chosen), unreadable, len(masks))


def _whole_values(mask: np.ndarray) -> set[int]:
    found: set[int] = set()
    for plane in mask.reshape(-1, *mask.shape[-2:]):  # sorting planes is fast, and copies no volume
        values = np.unique(plane)
        found.update(int(value) for value in values[np.isfinite(values)] if value == int(value))
    return found - {0}


def evenly(items: Sequence[T], most: int) -> list[T]:
    """At most `most` of `items`, evenly spaced, first and last included."""
    if len(items) <= most:
        return list(items)
    return [items[int(place)] for place in np.linspace(0, len(items) - 1, most).round()]


def in_colour(pictures: Sequence[Path], most: int = 5) -> bool:
    """Whether any of a few pictures has colour: RGB channels that differ by more than JPEG noise (8 of 255)."""
    for path in evenly(pictures, most):
        try:
            array = read_image(path).array
        except ImageError:
            continue
        if len(array) >= 3 and array.dtype == np.uint8:
            spread = np.ptp(array[:3].astype(np.int16), axis=0)
            if float(spread.mean()) > 8:
                return True
    return False

"""Looking into a few files of a folder, to guess what the study file should say."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from megavox.core.errors import ImageError
from megavox.images.formats import read_image

T = TypeVar("T")


def values_in(masks: Sequence[Path], most: int) -> list[int]:
    """Whole values other than 0 in an evenly spaced choice of at most `most` masks; unreadable ones are skipped."""
    found: set[int] = set()
    for path in evenly(masks, most):
        try:
            values = np.unique(read_image(path).array)
        except ImageError:
            continue  # the catalogue's check of every image sets it aside with its reason
        found |= {int(value) for value in values if np.isfinite(value) and value == int(value)}
    return sorted(found - {0})


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

"""Masks that show one class each: when a cohort has them, and where such a mask is drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from megavox.study.cohort import CohortSection
    from megavox.study.sections import SegmentTask


def one_mask_a_class(section: CohortSection, task: SegmentTask) -> bool:
    """Whether `Case.masks` holds a mask for each class in order, rather than one whose values are the classes.

    So in BIDS with as many mask suffixes as classes. A single suffix for a single class counts as
    such when the class has the value 1: its mask may be 0/1, 0/255 or soft.
    """
    if section.layout != "bids" or len(section.masks) != len(task.classes):
        return False
    return len(task.classes) > 1 or next(iter(task.classes.values())) in (1, [1])


def drawn(mask: np.ndarray) -> np.ndarray:
    """Where a mask of one class is drawn: at least half of the mask's own maximum. Same shape, bool.

    Masks of one class come as 0/1, as 0/255, with grey anti-aliased edges, or as a share of the voxel
    (soft masks): half of the maximum is the edge in all of them. An empty mask draws nothing.
    """
    top = float(mask.max(initial=0))
    return mask * 2.0 >= top if top > 0 else np.zeros(mask.shape, bool)

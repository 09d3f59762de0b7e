"""What a layout is: how it recognises a folder, and how it lists the cases in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from megavox.cohort.case import Catalogue


@dataclass
class Guess:
    """The sections of a study file for a folder that a layout recognised.

    Attributes:
        cohort: the `cohort:` section.
        task: the `task:` section.
        images: the `images:` section (only what the folder tells).
        comments: key path, such as "cohort.subject_column" -> what was guessed and why. Nothing is
            guessed silently: whoever writes the study file writes these beside the keys.
        remarks: what the guess rests on that may mislead, for the table of what is odd.
    """

    cohort: dict[str, Any]
    task: dict[str, Any]
    images: dict[str, Any] = field(default_factory=dict)
    comments: dict[str, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Layout:
    """One way of laying images and targets out in a folder.

    Attributes:
        name: value of `cohort.layout`.
        looks_for: what makes a folder this layout, for the message when nothing fits.
        recognise: folder -> Guess, or None where the folder is laid out otherwise. A `CohortError`
            means: it is this layout, but something must be mended first.
        catalogue: (cohort section, task section) -> Catalogue, without opening pixel data.
    """

    name: str
    looks_for: str
    recognise: Callable[[Path], Guess | None]
    catalogue: Callable[[Any, Any], Catalogue]

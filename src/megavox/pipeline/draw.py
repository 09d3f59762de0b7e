"""draw: phantoms as files, to try Megavox on."""

from __future__ import annotations

from pathlib import Path

from megavox.core.errors import StudyError
from megavox.core.progress import busy
from megavox.phantoms import COHORTS


def draw(kind: str, folder: Path, cases: int, seed: int) -> None:
    """Write a cohort of phantoms.

    Args:
        kind: one of `phantoms.COHORTS`.
        folder: where it goes.
        cases: images, or patients with one to three of them.
        seed: equal seeds give equal bytes.

    Raises:
        StudyError: there is no such kind.
    """
    if kind not in COHORTS:
        raise StudyError(f"found {kind}", where="KIND", expected="one of " + ", ".join(COHORTS))
    with busy("drawing"):
        COHORTS[kind](folder, cases, seed)  # type: ignore[operator]

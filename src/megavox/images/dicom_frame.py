"""A frame: one picture inside a DICOM file, whatever kind of file it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Frame:
    """One picture inside a file.

    Attributes:
        position: LPS mm of the centre of its first voxel; None where the file does not say.
        orientation: directions of increasing column and row index (DICOM order), or None.
        spacing: mm between columns (x) and between rows (y), or None.
        thickness: mm to the next slice as far as the header says, else 0.
        keys: what may tell it from other frames at its place, e.g. {"echo time": 20.0}.
        corner: row and column of its first voxel in the stored picture (mosaic), else (0, 0).
    """

    path: Path
    number: int
    uid: str
    shape: tuple[int, int]
    position: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    spacing: tuple[float, float] | None
    thickness: float
    keys: dict[str, float | str]
    instance: float = 0.0
    corner: tuple[int, int] = (0, 0)

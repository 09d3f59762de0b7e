"""Layouts: ways in which images and targets are laid out in a folder.

A new layout is one file with a `LAYOUT`, and one line here. They are asked in this order, so a
layout that is easily mistaken for another stands after it.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from megavox.cohort.layouts import bids, decathlon, dicom, folders, luna16, table
from megavox.cohort.layouts.guess import Guess, Layout
from megavox.cohort.layouts.listing import files_in, folders_in, need_given_folder, some
from megavox.core.errors import CohortError

LAYOUTS: dict[str, Layout] = {module.LAYOUT.name: module.LAYOUT
                              for module in (decathlon, bids, luna16, table, folders, dicom)}

__all__ = ["LAYOUTS", "Guess", "Layout", "recognise_folder"]


def recognise_folder(folder: Path) -> tuple[str, Guess]:
    """Name of the layout of `folder` and the study sections guessed from it.

    Raises:
        CohortError: there is no such folder, no layout fits, or the one that does needs something mended first.
    """
    need_given_folder(folder)
    almost: list[CohortError] = []
    for name, layout in LAYOUTS.items():
        try:
            guess = layout.recognise(folder)
        except CohortError as error:  # another layout may still fit
            almost.append(error)
        else:
            if guess is not None:
                return name, guess
    if almost:
        raise almost[0]
    inner = _inner(folder)
    looked = "; ".join(f"{name}: {layout.looks_for}" for name, layout in LAYOUTS.items())
    raise CohortError(f"no known layout ({_contents(folder)})", where=folder, expected=looked,
                      fix=f"The sub-folder {inner[0].name} is laid out as {inner[1]}: name it instead" if inner else
                          "Bring the images into one of these, name a folder further up or down, or write "
                          "cohort.layout in the study file by hand. Images without targets can only be predicted, "
                          "with a run of another study: megavox predict STUDY --input FOLDER")


def _inner(folder: Path) -> tuple[Path, str] | None:
    """The first of a few sub-folders that a layout recognises, and the layout's name."""
    for place in folders_in(folder)[:20]:
        for name, layout in LAYOUTS.items():
            try:
                if layout.recognise(place) is not None:
                    return place, name
            except CohortError:
                continue
    return None


def _contents(folder: Path) -> str:
    """Counts of sub-folders and of file endings, for the message."""
    endings = Counter("".join(path.suffixes[-2:]) if path.name.endswith(".gz") else path.suffix or "no ending"
                      for path in files_in(folder, deep=True))
    files = some([f"{count} {ending}" for ending, count in endings.most_common()], 8) or "no files"
    places = some([path.name for path in folders_in(folder)], 8)
    return f"found {files}" + (f" in the sub-folders {places}" if places else "")

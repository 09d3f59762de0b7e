"""Files and names: which files are images, what a case may be called, what is nearest to a typo.

Listing goes by file name alone and opens nothing. Hidden files, and the `._x` twins that macOS
leaves on foreign disks, are never images.
"""

from __future__ import annotations

import difflib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from megavox.core.errors import CohortError
from megavox.core.files import text_hash

VOLUMES = (".nii.gz", ".nii", ".mha", ".mhd")
PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
IMAGES = VOLUMES + PICTURES
LONGEST = 120  # letters of a case's name
TWICE = "another file of the same name, but another ending, was taken. Remove one of them."


def is_image(name: str, endings: tuple[str, ...] = IMAGES) -> bool:
    """Whether a file name is that of an image (not hidden, known ending)."""
    return not name.startswith(".") and name.lower().endswith(endings)


def stem(name: str) -> str:
    """File name without its image ending: `a.b.nii.gz` -> `a.b`."""
    lower = name.lower()
    for ending in IMAGES:
        if lower.endswith(ending):
            return name[:-len(ending)]
    return name


def files_in(folder: Path, deep: bool = False) -> list[Path]:
    """Files directly in `folder`, or anywhere below it, in order of name; hidden ones are skipped."""
    if not deep:
        return sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    found: list[Path] = []
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(place, name) for name in names if not name.startswith(".")]
    return sorted(found)


def images_in(folder: Path, deep: bool = False, endings: tuple[str, ...] = IMAGES) -> list[Path]:
    """The image files of `files_in`."""
    return [path for path in files_in(folder, deep) if is_image(path.name, endings)]


def folders_in(folder: Path) -> list[Path]:
    """Sub-folders in order of name; hidden ones are skipped."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def need_folder(folder: Path, what: str) -> Path:
    """`folder` itself, which a study file names.

    Raises:
        CohortError: it is not there, or is a file; names what is there instead.
    """
    if folder.is_dir():
        return folder
    there, near = _instead_of(folder)
    raise CohortError(f"{what} {'is a file' if folder.exists() else 'is not there'}", where=folder,
                      expected=f"a folder; {there}", fix=near or "Correct cohort.folder in the study file")


def need_given_folder(folder: Path) -> None:
    """Check a folder that the user gave by hand: there is no study file that could be corrected.

    Raises:
        CohortError: it is not there, or is a file.
    """
    if folder.is_dir():
        return
    if folder.exists():
        raise CohortError("this is a file, not a folder", where=folder, expected="a folder with images",
                          fix=f"Give the folder that holds it: {folder.parent}")
    there, near = _instead_of(folder)
    raise CohortError("there is no such folder", where=folder, expected=f"a folder with images; {there}",
                      fix=near or "Check the path")


def _instead_of(folder: Path) -> tuple[str, str]:
    """What the nearest folder above a missing one holds, and a hint if one of these has a similar name."""
    parent = next(place for place in folder.parents if place.is_dir())
    there = [path.name for path in folders_in(parent)]
    return (f"{parent} holds {some(there) or 'no folders'}",
            did_you_mean(folder.relative_to(parent).parts[0], there))


def did_you_mean(word: str, words: Iterable[str]) -> str:
    """A hint with the nearest of `words`, or ""."""
    near = difflib.get_close_matches(word, list(words), 1)
    return f"Did you mean {near[0]!r}" if near else ""


def some(words: Sequence[str], most: int = 12) -> str:
    """A list for a message, cut after `most` words."""
    text = ", ".join(words[:most])
    return text + (f" and {len(words) - most} more" if len(words) > most else "")


def safe_name(text: str) -> str:
    """`text` with only letters, digits, `.`, `_` and `-`, and not too long: fit for a file name on any system."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", plain).strip("-.") or "case"
    return safe if len(safe) <= LONGEST else f"{safe[:LONGEST - 9]}-{text_hash(safe)[:8]}"


def unique_names(stems: Sequence[str], longer: Sequence[str]) -> list[str]:
    """Safe case names: the stem where it is unique, else the `longer` name, else that with a number.

    Compared without regard to case, since some file systems do not tell `A` from `a`.
    """
    names = [safe_name(name) for name in stems]
    count = Counter(name.lower() for name in names)
    names = [name if count[name.lower()] == 1 else safe_name(more)
             for name, more in zip(names, longer, strict=True)]
    taken: set[str] = set()
    for place, name in enumerate(names):
        number = 1
        while names[place].lower() in taken:
            number += 1
            names[place] = f"{name}-{number}"
        taken.add(names[place].lower())
    return names


def subject_pattern(pattern: str | None) -> re.Pattern[str] | None:
    """The study's `cohort.subject_pattern`, compiled.

    Raises:
        CohortError: it is no regular expression, or has no group.
    """
    if pattern is None:
        return None
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise CohortError(f"cohort.subject_pattern is not a regular expression ({error})", where=pattern,
                          expected=r"one such as (person\d+)_") from None
    if compiled.groups < 1:
        raise CohortError("cohort.subject_pattern has no group", where=pattern,
                          expected=r"parentheses around the subject, such as (person\d+)_")
    return compiled


def subject_of(pattern: re.Pattern[str], name: str) -> str | None:
    """What the pattern's first group that fits takes out of `name`; None where it does not fit."""
    match = pattern.search(name)
    return next((group for group in match.groups() if group), None) if match else None

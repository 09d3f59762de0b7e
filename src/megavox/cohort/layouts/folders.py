"""A folder per class, images inside."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from megavox.cohort.case import Case, Catalogue, Rejected
from megavox.cohort.layouts.guess import Guess, Layout
from megavox.cohort.layouts.listing import (
    PICTURES,
    did_you_mean,
    folders_in,
    images_in,
    need_folder,
    some,
    stem,
    subject_of,
    subject_pattern,
    unique_names,
)
from megavox.cohort.layouts.samples import in_colour
from megavox.core.errors import CohortError

if TYPE_CHECKING:
    from megavox.study.cohort import FoldersCohort
    from megavox.study.sections import ClassifyTask

MOST_CLASSES = 100
_PARTS = {"train", "training", "test", "testing", "val", "valid", "validation"}
_NOT_CLASSES = re.compile(r"images?(tr|ts)?|labels?(tr|ts)?|masks?|segmentations?|annotations?|derivatives|"
                          r"(patient|subject|sub|person|case|pat|p|study|series|ses|visit|subset)[-_ ]?\d+.*",
                          re.IGNORECASE)
_NEGATIVE = {"normal", "healthy", "benign", "negative", "control", "no", "none", "0"}
# Ways in which public collections write the subject into a file name (Kermany 2018, TCGA, BIDS, ...).
_SUBJECTS = (r"(?<![a-z])(?:patient|subject|person|participant)[-_]?\d+", r"sub-[a-z0-9]+",
             r"(?:NORMAL2-)?IM-\d+(?=-\d)", r"^TCGA-\w{2}-\w{4}")
_ENOUGH = 0.8  # share of the files that a guessed pattern must fit


def recognise(folder: Path) -> Guess | None:
    """Two sub-folders or more with images directly inside, named like classes.

    Raises:
        CohortError: the sub-folders are train and test parts.
    """
    if not folder.is_dir():
        return None
    images = {place.name: images_in(place) for place in folders_in(folder)}
    images = {name: files for name, files in images.items() if files}
    nested = [place.name for place in folders_in(folder) if place.name.lower() in _PARTS
              and sum(1 for inner in folders_in(place) if images_in(inner)) >= 2]
    if nested and not images:
        raise CohortError(f"the sub-folders {some(nested)} are parts of a split, not classes", where=folder,
                          expected="a folder whose sub-folders are the classes",
                          fix=f"Name {folder / nested[0]} instead (Megavox splits by subject itself), or put "
                              "the parts together first")
    if not 2 <= len(images) <= MOST_CLASSES or any(_NOT_CLASSES.fullmatch(name) for name in images):
        return None
    if any(images_in(place, deep=True) for place in folders_in(folder) if place.name not in images):
        return None  # some sub-folders hold images further down: a collection of cohorts, not of classes
    classes = sorted(images, key=lambda name: (name.lower() not in _NEGATIVE, name))
    counts = ", ".join(f"{name} {len(images[name])}" for name in classes[:12])
    comments = {"task.classes": f"the sub-folders and their numbers of images ({counts})"}
    cohort: dict[str, Any] = {"layout": "folders", "folder": str(folder)}
    files = [path for name in classes for path in images[name]]
    pattern, comments["cohort.subject_pattern"] = _subject_pattern(files)
    if pattern:
        cohort["subject_pattern"] = pattern
    guess = Guess(cohort, {"kind": "classify", "classes": classes}, {}, comments)
    masks = [path for path in files if _MASK_NAME.search(stem(path.name))]
    if masks:
        guess.remarks.append(f"{len(masks)} of {len(files)} files look like masks by their names, e.g. "
                             f"{masks[0].name}; as this study stands they are images to classify. Move them out if not")
    if in_colour([path for path in files if path.name.lower().endswith(PICTURES)]):
        guess.images["grey"] = False
        comments["images.grey"] = "the pictures are coloured"
    return guess


_MASK_NAME = re.compile(r"(?i)[_-](g?m?seg|gmseg|wmseg|mask|label|labels|labeled|manual|lesion|roi)([_-]|\d|$)")


def _subject_pattern(files: list[Path]) -> tuple[str | None, str]:
    """A pattern that fits the file names, and the comment that goes with it (or with its absence)."""
    warning = "images of one subject must not stand on two sides of the split"
    used = [pattern for pattern in _SUBJECTS if any(re.search(f"(?i){pattern}", path.name) for path in files)]
    pattern = f"(?i)({'|'.join(used)})"
    subjects = [subject_of(re.compile(pattern), path.name) for path in files] if used else []
    fits = sum(1 for subject in subjects if subject)
    if not used or fits < _ENOUGH * len(files):
        return None, ("the file names do not tell the subject, so every image is taken for a subject of its own. "
                      f"If that is wrong, give a regular expression with one group: {warning}")
    rest = f"; the other {len(files) - fits} would be set aside" if fits < len(files) else ""
    return pattern, (f"guessed from file names such as {files[-1].name}: it fits {fits} of {len(files)} files{rest} "
                     f"and gives {len(set(filter(None, subjects)))} subjects. Check it: {warning}")


def catalogue(section: FoldersCohort, task: ClassifyTask) -> Catalogue:
    """One case an image; its class is the sub-folder it stands in (or below).

    Raises:
        CohortError: no folder for a class, or a subject_pattern that is no regular expression with a group.
    """
    folder = need_folder(section.folder, "the cohort's folder")
    pattern = subject_pattern(section.subject_pattern)
    places = {place.name: place for place in folders_in(folder)}
    class_of = {name: task.values.get(name, name) for name in places}
    for name in task.classes:
        if name not in class_of.values():
            raise CohortError(f"there is no folder for the class {name!r}", where=folder,
                              expected=f"one of {some(list(places))}",
                              fix=did_you_mean(name, places) or "Correct task.classes in the study file")
    files = [(class_of[name], path) for name, place in places.items() if class_of[name] in task.classes
             for path in images_in(place, deep=True)]
    names = unique_names([stem(path.name) for _, path in files],
                         [stem(path.relative_to(folder).as_posix()) for _, path in files])
    found = Catalogue()
    for name, (label, path) in zip(names, files, strict=True):
        subject = subject_of(pattern, path.name) if pattern else name
        if subject is None:
            found.rejected.append(Rejected(name, "", str(path), "missing subject",
                                           "cohort.subject_pattern does not fit this file name. Rename it, or "
                                           "widen the pattern."))
        else:
            found.cases.append(Case(name, subject, "", ((path,),), labels=(label,)))
    if not pattern:
        found.remarks.append("no subject pattern: every image is taken for a subject of its own")
    for name, place in places.items():
        if class_of[name] not in task.classes and (left := len(images_in(place, deep=True))):
            found.remarks.append(f"the folder {name} ({left} images) is no class of the study and is left out")
    return found


LAYOUT = Layout("folders", "a sub-folder per class with images inside", recognise, catalogue)

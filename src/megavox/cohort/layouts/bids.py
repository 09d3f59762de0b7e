"""BIDS: `sub-*/[ses-*/]<datatype>/` images with masks under `derivatives/labels`.

A mask has the name of its image with `_<mask suffix>` added (`sub-1_T1w.nii.gz`,
`sub-1_T1w_seg-manual.nii.gz`). The mask suffixes of the study are the classes, in order, or one
suffix whose values are the classes.

A mask of one class counts where it is at least half of its own maximum (`megavox.cohort.drawn`), so
that 0/1, 0/255 and anti-aliased masks mean the same.

Source: https://bids-specification.readthedocs.io/en/stable/common-principles.html and the
`derivatives/labels` custom of ivadomed (https://ivadomed.org/data.html).
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from megavox.cohort.case import Case, Catalogue, Rejected
from megavox.cohort.layouts.guess import Guess, Layout
from megavox.cohort.layouts.listing import (
    TWICE,
    VOLUMES,
    did_you_mean,
    folders_in,
    images_in,
    is_image,
    need_folder,
    safe_name,
    some,
    stem,
)
from megavox.cohort.layouts.samples import values_in
from megavox.core.errors import CohortError

if TYPE_CHECKING:
    from megavox.study.cohort import BidsCohort
    from megavox.study.sections import SegmentTask

LABELS = Path("derivatives", "labels")


@dataclass(frozen=True)
class _Listing:
    """Images and masks by their place in the tree.

    Attributes:
        images: (folder below the top, entities such as sub-1_ses-2) -> suffix -> file.
        masks: (folder below derivatives/labels, image stem) -> mask suffix -> file.
        others: masks whose image is not there.
        twice: images and masks that differ from one above in the ending alone, with their suffix.
    """

    images: dict[tuple[str, str], dict[str, Path]]
    masks: dict[tuple[str, str], dict[str, Path]]
    others: list[Path]
    twice: list[tuple[str, Path]]


def _list(folder: Path) -> _Listing:
    images: dict[tuple[str, str], dict[str, Path]] = {}
    twice: list[tuple[str, Path]] = []
    for subject in _subjects(folder):
        for path in _volumes_first(subject):
            entities, _, suffix = stem(path.name).rpartition("_")
            if entities:
                place = path.parent.relative_to(folder).as_posix()
                if images.setdefault((place, entities), {}).setdefault(suffix, path) is not path:
                    twice.append((suffix, path))
    stems = {(place, f"{entities}_{suffix}") for (place, entities), files in images.items() for suffix in files}
    masks: dict[tuple[str, str], dict[str, Path]] = {}
    others: list[Path] = []
    for path in _volumes_first(folder / LABELS) if (folder / LABELS).is_dir() else []:
        place = path.parent.relative_to(folder / LABELS).as_posix()
        image, suffix = _longest_prefix(place, stem(path.name), stems)
        if image:
            if masks.setdefault((place, image), {}).setdefault(suffix, path) is not path:
                twice.append((suffix, path))
        else:
            others.append(path)
    return _Listing(images, masks, others, twice)


def _volumes_first(folder: Path) -> list[Path]:
    """Images below a folder; a picture beside a volume of the same name is a preview of it."""
    return sorted(images_in(folder, deep=True), key=lambda path: not is_image(path.name, VOLUMES))


def _longest_prefix(place: str, name: str, stems: set[tuple[str, str]]) -> tuple[str, str]:
    """Image stem and mask suffix of a mask's name, or "" where no image fits."""
    parts = name.split("_")
    for end in range(len(parts) - 1, 0, -1):
        image = "_".join(parts[:end])
        if (place, image) in stems:
            return image, "_".join(parts[end:])
    return "", ""


def _subjects(folder: Path) -> list[Path]:
    return [place for place in folders_in(folder) if place.name.startswith("sub-")]


def _session(place: str) -> str:
    return next((part for part in place.split("/") if part.startswith("ses-")), "")


# ------------------------------------------------------------------ recognising


def recognise(folder: Path) -> Guess | None:
    """Folders sub-* with images, and masks of them under derivatives/labels."""
    if not folder.is_dir() or not _subjects(folder):
        return None
    listing = _list(folder)
    if not listing.masks:
        return None
    per_image = Counter(image.rpartition("_")[2] for _, image in listing.masks)
    image_suffix = per_image.most_common(1)[0][0]
    comments = {}
    if len(per_image) > 1:
        counts = ", ".join(f"{suffix} {count}" for suffix, count in per_image.most_common())
        comments["cohort.image_suffixes"] = (f"the images that most masks belong to ({counts}). For several "
                                             "channels of one grid, list them; the masks are those of the first")
    files: dict[str, list[Path]] = {}
    for (_, image), masks in sorted(listing.masks.items()):
        for suffix, path in masks.items():
            if image.endswith(f"_{image_suffix}"):
                files.setdefault(suffix, []).append(path)
    unions = _unions(list(files))
    kept = [suffix for suffix in sorted(files) if suffix not in unions]
    task: dict[str, Any] = {"kind": "segment"}
    values = values_in(files[kept[0]]) if len(kept) == 1 else None
    if values and len(values.counts) > 1 and max(values.counts) < 127:
        task["classes"] = values.classes(folder / LABELS)
        comments["task.classes"] = f"{values.comment} (masks {kept[0]!r})"
    else:
        names = [_class_name(suffix) for suffix in kept]
        names = [name if names.count(name) == 1 else suffix for name, suffix in zip(names, kept, strict=True)]
        task["classes"] = {name: number for number, name in enumerate(names, 1)}
        comments["task.classes"] = ("one mask a class, drawn where it is at least half of its own maximum (0/1, "
                                    "0/255 and grey edges alike); where masks overlap, a later one overwrites")
    if unions:
        comments["cohort.masks"] = f"left out as their names are unions of others: {some(sorted(unions))}"
    return Guess({"layout": "bids", "folder": str(folder), "image_suffixes": [image_suffix], "masks": kept},
                 task, {"channels": [image_suffix]}, comments, values.remarks if values else [])


def _class_name(suffix: str) -> str:
    """`seg-axon-manual` -> `axon`; what is left when the words for "mask" and "by hand" are gone."""
    words = [word for word in re.split(r"[-_]", suffix)
             if word.lower() not in ("seg", "label", "labels", "mask", "manual", "dseg", "desc")]
    return "-".join(words) or "structure"


def _unions(suffixes: list[str]) -> set[str]:
    names = {_class_name(suffix).lower(): suffix for suffix in suffixes}
    return {names[first + second] for first in names for second in names
            if first != second and first + second in names}


# ------------------------------------------------------------------ listing cases


def catalogue(section: BidsCohort, task: SegmentTask) -> Catalogue:
    """One case for each image of the first image suffix.

    Raises:
        CohortError: folder or sub-* folders missing, no image of a suffix, or masks and classes that do
            not go together.
    """
    folder = need_folder(section.folder, "the cohort's folder")
    need_folder(folder / LABELS, "the folder of the masks")
    if len(section.masks) not in (1, len(task.classes)):
        raise CohortError(f"{len(section.masks)} masks for {len(task.classes)} classes", where="cohort.masks",
                          expected="one mask a class, or one mask whose values are the classes",
                          fix="Correct cohort.masks or task.classes in the study file")
    listing = _list(folder)
    suffixes = sorted({suffix for files in listing.images.values() for suffix in files})
    for suffix in section.image_suffixes:
        if suffix not in suffixes:
            raise CohortError(f"no image has the suffix {suffix!r}", where=folder,
                              expected=f"one of {some(suffixes) or 'none: there are no sub-* folders with images'}",
                              fix=did_you_mean(suffix, suffixes) or "Correct cohort.image_suffixes")
    there = sorted({suffix for masks in listing.masks.values() for suffix in masks})
    for suffix in section.masks:
        if suffix not in there:
            raise CohortError(f"no mask has the suffix {suffix!r}", where=folder / LABELS,
                              expected=f"one of {some(there) or 'none'}",
                              fix=did_you_mean(suffix, there) or "Correct cohort.masks")
    found = Catalogue()
    for (place, entities), images in sorted(listing.images.items()):
        if any(suffix in images for suffix in section.image_suffixes):
            masks = listing.masks.get((place, f"{entities}_{section.image_suffixes[0]}"), {})
            _add(found, section, place, entities, images, masks)
    for path in listing.others:
        found.rejected.append(Rejected(safe_name(stem(path.name)), stem(path.name).split("_")[0], str(path),
                                       "missing image", "this mask has no image of its name. Add the image, "
                                       "or remove the mask."))
    for suffix, path in listing.twice:
        if suffix in (*section.image_suffixes, *section.masks):
            found.rejected.append(Rejected(safe_name(stem(path.name)), stem(path.name).split("_")[0], str(path),
                                           "duplicate", TWICE))
    return found


def _add(found: Catalogue, section: BidsCohort, place: str, entities: str, images: dict[str, Path],
         masks: dict[str, Path]) -> None:
    subject = place.split("/")[0]
    name = safe_name(f"{entities}_{section.image_suffixes[0]}")
    first = str(next(iter(images.values())))
    lacking = [suffix for suffix in section.image_suffixes if suffix not in images]
    undrawn = [suffix for suffix in section.masks if suffix not in masks]
    if lacking:
        found.rejected.append(Rejected(name, subject, first, "missing image",
                                       f"the channel {some(lacking)} is not there. Add it, or take it out of "
                                       "cohort.image_suffixes."))
    elif undrawn:
        found.rejected.append(Rejected(name, subject, first, "missing target",
                                       f"the mask {some(undrawn)} is not there. Add it (an empty one if there "
                                       "is nothing to draw), or remove the image."))
    else:
        found.cases.append(Case(name, subject, _session(place),
                                tuple((images[suffix],) for suffix in section.image_suffixes),
                                tuple(masks[suffix] for suffix in section.masks)))


LAYOUT = Layout("bids", "folders sub-* with images, and masks of them under derivatives/labels",
                recognise, catalogue)

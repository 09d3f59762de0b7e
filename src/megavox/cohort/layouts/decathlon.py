"""`imagesTr`/`labelsTr` folders: Medical Segmentation Decathlon and nnU-Net.

Decathlon: one file a case, its channels along the fourth axis (`imagesTr/x.nii.gz`). nnU-Net: one
file a channel (`imagesTr/x_0000.nii.gz`). Both: the mask is `labelsTr/x.nii.gz`.

The folders say which cases there are; dataset.json says what the values mean, and which files ought
to be there. So neither a file that was dropped in by hand nor one that went missing is overlooked.
`imagesTs` is never a part of training.

Source: https://github.com/MIC-DKFZ/nnUNet/blob/master/documentation/dataset_format.md and
http://medicaldecathlon.com (Antonelli et al. 2022, doi:10.1038/s41467-022-30695-9).
"""

from __future__ import annotations

import json
import re
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from megavox.cohort.case import Case, Catalogue, Files, Rejected
from megavox.cohort.layouts.guess import Guess, Layout
from megavox.cohort.layouts.listing import TWICE, files_in, images_in, is_image, need_folder, safe_name, some, stem
from megavox.cohort.layouts.samples import values_in
from megavox.core.errors import CohortError

if TYPE_CHECKING:
    from megavox.study.cohort import DecathlonCohort
    from megavox.study.sections import SegmentTask

_VISIT = re.compile(r"(.+?)[_-]((?:visit|ses|session|tp|timepoint|v)[_-]?\d+|ses-[A-Za-z0-9]+)", re.IGNORECASE)
_CHANNEL = re.compile(r"(.+)_(\d{4})")


def recognise(folder: Path) -> Guess | None:
    """A folder with imagesTr and labelsTr, with or without dataset.json."""
    if not (folder / "imagesTr").is_dir() or not (folder / "labelsTr").is_dir():
        return None
    said = _dataset_json(folder)
    comments: dict[str, str] = {}
    remarks: list[str] = []
    task: dict[str, Any] = {"kind": "segment"}
    if "labels" in said:
        task["classes"], ignore, notes = _classes(said["labels"], folder / "dataset.json")
        if ignore:
            task["ignore"] = ignore
            comments["task.ignore"] = "the label `ignore` of dataset.json: these voxels teach nothing"
        if notes:
            comments["task.classes"] = notes
    else:
        values = values_in(images_in(folder / "labelsTr"))
        if not values.counts:
            raise CohortError("neither dataset.json nor a mask says which classes there are",
                              where=folder, expected="dataset.json with `labels`, or masks in labelsTr",
                              fix="Add dataset.json, or write task.classes in the study file by hand")
        task["classes"] = values.classes(folder / "labelsTr")
        comments["task.classes"] = f"there is no dataset.json with labels: these are {values.comment}"
        remarks += values.remarks
    images: dict[str, Any] = {}
    names = _channel_names(said)
    if names:
        images["channels"] = names
    visits = sum(1 for name in _cases(folder)[0] if _VISIT.fullmatch(name))
    if visits:
        comments["cohort.layout"] = (f"{visits} case names end in a visit (such as _visit2 or _V1): what "
                                     "stands before it is taken for the subject, and splits keep it together")
    return Guess({"layout": "decathlon", "folder": str(folder)}, task, images, comments, remarks)


def catalogue(section: DecathlonCohort, task: SegmentTask) -> Catalogue:
    """List imagesTr and labelsTr.

    Raises:
        CohortError: a folder is missing, or dataset.json is damaged.
    """
    folder = need_folder(section.folder, "the cohort's folder")
    for name in ("imagesTr", "labelsTr"):
        need_folder(folder / name, "a folder of the decathlon layout")
    images, masks, rejected = _cases(folder)
    found = Catalogue(rejected=rejected)
    channels = sorted({channel for files in images.values() for channel in files})
    for name in sorted(set(images) | set(masks)):
        subject, session = _subject(name)
        problem = _problem(name, images.get(name, {}), masks.get(name), channels)
        if problem:
            found.rejected.append(Rejected(safe_name(name), subject, *problem))
            continue
        files: tuple[Files, ...] = tuple((images[name][channel],) for channel in channels)
        found.cases.append(Case(safe_name(name), subject, session, files, (masks[name],)))
    found.rejected += _listed_but_absent(folder, set(images), set(masks))
    found.remarks += _remarks(folder, found)
    return found


def _cases(folder: Path) -> tuple[dict[str, dict[str, Path]], dict[str, Path], list[Rejected]]:
    """Case name -> channel -> file, case name -> mask, and files that stand twice (x.nii and x.nii.gz)."""
    rejected: list[Rejected] = []
    masks: dict[str, Path] = {}
    for path in images_in(folder / "labelsTr"):
        if masks.setdefault(stem(path.name), path) is not path:
            rejected.append(_twice(path))
    files = images_in(folder / "imagesTr")
    per_channel = _one_file_a_channel(folder, files, set(masks))
    images: dict[str, dict[str, Path]] = {}
    for path in files:
        match = _CHANNEL.fullmatch(stem(path.name)) if per_channel else None
        name, channel = (match[1], match[2]) if match else (stem(path.name), "0000")
        if images.setdefault(name, {}).setdefault(channel, path) is not path:
            rejected.append(_twice(path))
    return images, masks, rejected


def _twice(path: Path) -> Rejected:
    name = stem(path.name)
    return Rejected(safe_name(name), _subject(name)[0], str(path), "duplicate", TWICE)


def _one_file_a_channel(folder: Path, files: list[Path], masks: set[str]) -> bool:
    """nnU-Net's `_0000` endings: as dataset.json says, else what makes more masks find their image."""
    said = _dataset_json(folder)
    if "channel_names" in said or "file_ending" in said:
        return True
    stems = {stem(path.name) for path in files}
    short = {match[1] for name in stems if (match := _CHANNEL.fullmatch(name))}
    return len(short & masks) > len(stems & masks) or (not stems & masks and len(short) == len(stems) > 0)


def _problem(name: str, images: dict[str, Path], mask: Path | None,
             channels: list[str]) -> tuple[str, str, str] | None:
    """File, reason and message where a case cannot be used."""
    if not images:
        return str(mask), "missing image", (f"this mask has no image {name} in imagesTr. Add the image, or "
                                            "remove the mask.")
    first = str(next(iter(images.values())))
    if mask is None:
        return first, "missing target", (f"this image has no mask {name} in labelsTr. Add the mask, or remove "
                                         "the image (imagesTs is for images without masks).")
    lacking = [channel for channel in channels if channel not in images]
    if lacking:
        return first, "missing image", (f"channel {some(lacking)} is not there; other cases have "
                                        f"{some(channels)}.")
    return None


def _subject(name: str) -> tuple[str, str]:
    match = _VISIT.fullmatch(name)
    return (match[1], match[2]) if match else (name, "")


def _remarks(folder: Path, found: Catalogue) -> list[str]:
    remarks = []
    visits = sum(1 for case in found.cases if case.session)
    if visits:
        remarks.append(f"{visits} case names end in a visit; the part before it is taken for the subject")
    for name in ("imagesTr", "labelsTr"):
        other = [path.name for path in files_in(folder / name) if not is_image(path.name)]
        if other:
            remarks.append(f"{name} holds {len(other)} files that are not images, e.g. {other[0]}")
    if not (folder / "dataset.json").exists():
        remarks.append("there is no dataset.json: the meaning of the mask values comes from the study file alone")
    return remarks


# ------------------------------------------------------------------ dataset.json


def _dataset_json(folder: Path) -> dict[str, Any]:
    path = folder / "dataset.json"
    if not path.exists():
        return {}
    try:
        said = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise CohortError(f"dataset.json cannot be read ({error})", where=path, expected="a JSON object",
                          fix="Correct it, or move it away: the classes are then read from the masks") from None
    if not isinstance(said, dict):
        raise CohortError("dataset.json is not a JSON object", where=path, expected='{"labels": ...}')
    return said


def _listed_but_absent(folder: Path, images: set[str], masks: set[str]) -> list[Rejected]:
    """Lines of dataset.json's `training` of which no file is there.

    Where one of the two is there, the folders have told of the other already.
    """
    rejected = []
    training = _dataset_json(folder).get("training", [])
    for item in training if isinstance(training, list) else []:
        listed = item.get("image", "") if isinstance(item, dict) else str(item)
        name = stem(PurePosixPath(str(listed)).name)
        if not name or name in images or name in masks:
            continue
        rejected.append(Rejected(safe_name(name), _subject(name)[0], str(folder / listed), "missing image",
                                 "dataset.json lists this image, but neither it nor its mask is there. "
                                 "Add them, or take the line out."))
    return rejected


def _channel_names(said: dict[str, Any]) -> list[str]:
    names = said.get("channel_names", said.get("modality", {}))
    if not isinstance(names, dict) or not all(str(key).isdigit() for key in names):
        return []
    return [str(names[key]) for key in sorted(names, key=int)]


def _classes(labels: Any, where: Path) -> tuple[dict[str, int | list[int]], list[int], str]:
    """Classes, values to ignore, and a note, from `labels` in either style.

    `{"0": "background", "1": "Anterior"}` (Decathlon) or `{"background": 0, "Anterior": 1}` (nnU-Net),
    where a list of values is a region. Regions that do not overlap are plain classes; of overlapping
    ones each value goes to the smallest region that has it, and the note says so.
    """
    try:
        if all(str(key).isdigit() for key in labels):
            regions = {str(name): {int(value)} for value, name in labels.items()}
        else:
            regions = {str(name): {int(v) for v in (value if isinstance(value, list) else [value])}
                       for name, value in labels.items()}
    except (TypeError, ValueError, AttributeError):
        raise CohortError(f"`labels` is neither value -> name nor name -> value: {labels!r}", where=where,
                          expected='{"0": "background", "1": "name"} or {"background": 0, "name": 1}') from None
    ignore = sorted(regions.pop("ignore", set()))
    regions = {name: values - {0} for name, values in regions.items() if values - {0}}
    if not regions:
        raise CohortError("`labels` names no class but the background", where=where)
    values = set().union(*regions.values())
    smallest = {value: min((name for name in regions if value in regions[name]), key=lambda n: len(regions[n]))
                for value in values}
    note = ""
    if sum(len(region) for region in regions.values()) > len(values):
        note = ("the regions of dataset.json overlap, which is not supported: each value goes to the smallest "
                "region that has it, and `rest` marks what a larger one keeps")
    classes: dict[str, int | list[int]] = {}
    for name, region in sorted(regions.items(), key=lambda item: (min(item[1]), -len(item[1]))):
        own = sorted(value for value in region if smallest[value] == name)
        if own:
            classes[name if len(own) == len(region) else f"{name} rest"] = own if len(own) > 1 else own[0]
    return classes, ignore, note


LAYOUT = Layout("decathlon", "folders imagesTr and labelsTr", recognise, catalogue)

"""A tree of DICOM series, with masks or a table beside it, or neither to predict only.

A series is a case, wherever its files lie; its name is the one that `megavox.images.find` gives it.
Its subject is the PatientID and its session the StudyDate, as they stand in the files: whoever
writes them out replaces them first.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from megavox.cohort.case import Case, Catalogue, Rejected
from megavox.cohort.layouts.guess import Guess, Layout
from megavox.cohort.layouts.listing import VOLUMES, folders_in, images_in, is_image, need_folder, safe_name, some, stem
from megavox.cohort.layouts.rows import Labeller, Row, Table, read_table
from megavox.cohort.layouts.samples import values_in
from megavox.cohort.layouts.table_guess import guess_target
from megavox.core.errors import CohortError, LabelError
from megavox.images import dicom as dicom_format
from megavox.images.find import Found, find_images

if TYPE_CHECKING:
    from megavox.study.cohort import DicomCohort
    from megavox.study.sections import ClassifyTask, SegmentTask

_MASK_FOLDERS = ("masks", "labels", "segmentations")
_KEYS = ("series", "subject")


def recognise(folder: Path) -> Guess | None:
    """A tree with at least one DICOM file; masks in `masks/` or a CSV with `series` or `subject`, if any."""
    first = _first_dicom(folder)
    if first is None:
        return None
    cohort: dict[str, Any] = {"layout": "dicom", "folder": str(folder)}
    comments = {"cohort.layout": f"there are DICOM files, e.g. {first.relative_to(folder)}"}
    for place in folders_in(folder):
        masks = images_in(place, endings=VOLUMES)
        if place.name.lower() in _MASK_FOLDERS and (values := values_in(masks)).counts:
            cohort["masks"] = str(place)
            comments["cohort.masks"] = f"{len(masks)} masks; each must be called as its series"
            comments["task.classes"] = values.comment
            return Guess(cohort, {"kind": "segment", "classes": values.classes(place)}, {}, comments, values.remarks)
    for path in sorted(folder.glob("*.csv")):
        table = read_table(path)
        if key := _key(table):
            target = guess_target(table, {key})
            cohort |= {"table": str(path), "class_columns": target.columns}
            comments["cohort.table"] = f"a table with a column {key!r}"
            comments["cohort.class_columns"] = target.why
            return Guess(cohort, target.task, {}, comments)
    comments["cohort.masks"] = ("PLEASE FILL IN: no target was found. Give `masks` (a folder with one "
                                "<series>.nii.gz a series) to segment, or `table` and `class_columns` (a CSV with "
                                "a column series or subject) to classify")
    comments["task.classes"] = "PLEASE FILL IN: a stand-in, as there are no masks to read classes from"
    return Guess(cohort, {"kind": "segment", "classes": {"structure": 1}}, {}, comments)


def _first_dicom(folder: Path) -> Path | None:
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(place, name)
            if not name.startswith(".") and not is_image(name) and dicom_format.recognise(path):
                return path
    return None


def _key(table: Table) -> str | None:
    return next((key for key in _KEYS if key in table.columns), None)


def catalogue(section: DicomCohort, task: SegmentTask | ClassifyTask) -> Catalogue:
    """One case a series. Opens headers only.

    Raises:
        CohortError: folder, masks or table missing; no DICOM series at all; a table without a column
            `series` or `subject`.
    """
    folder = need_folder(section.folder, "the cohort's folder")
    search = find_images(folder)
    series = [found for found in search.images if found.kind == dicom_format.name]
    if not series:
        raise CohortError(f"no DICOM series among {len(search.images)} images and {len(search.unusable)} other "
                          "files", where=folder, fix="Name the top of the tree in cohort.folder")
    catalogue = Catalogue(rejected=[Rejected.from_error(error, file=str(path)) for path, error in search.unusable])
    nameless = sum(1 for found in series if not found.subject)
    if nameless:
        catalogue.remarks.append(f"{nameless} series have no PatientID; each is taken for a subject of its own")
    masks = section.folder / section.masks if section.masks else None
    other = [found for found in search.images if found.kind != dicom_format.name
             and (masks is None or masks not in found.paths[0].parents)]
    if other:
        catalogue.remarks.append(f"{len(other)} images that are not DICOM are left out, e.g. {other[0].paths[0].name}")
    if task.kind == "segment":
        _with_masks(catalogue, section, series)
    else:
        _with_table(catalogue, section, task, series)
    return catalogue


def _case(found: Found, masks: tuple[Path, ...] = (), labels: tuple[str, ...] | None = None,
          unknown: tuple[str, ...] = ()) -> Case:
    return Case(found.name, found.subject or found.name, found.session, (found.paths,), masks, labels, unknown)


def _missing(found: Found, what: str) -> Rejected:
    return Rejected(found.name, found.subject, str(found.paths[0]), "missing target", what)


def _with_masks(catalogue: Catalogue, section: DicomCohort, series: list[Found]) -> None:
    if section.masks is None:
        catalogue.remarks.append("no masks: these series can be predicted, not learnt from")
        catalogue.cases += [_case(found) for found in series]
        return
    folder = need_folder(section.folder / section.masks, "the folder of the masks (cohort.masks)")
    masks = {stem(path.name): path for path in images_in(folder, endings=VOLUMES)}
    for found in series:
        if found.name in masks:
            catalogue.cases.append(_case(found, (masks[found.name],)))
        else:
            catalogue.rejected.append(_missing(found, f"this series has no mask {found.name}.nii.gz in {folder}. "
                                                      "Add it, or move the series away."))
    names = {found.name for found in series}
    for name in sorted(set(masks) - names):
        catalogue.rejected.append(Rejected(safe_name(name), "", str(masks[name]), "missing image",
                                           f"no series is called so; there are {some(sorted(names))}. Rename "
                                           "or remove the mask."))


def _with_table(catalogue: Catalogue, section: DicomCohort, task: ClassifyTask, series: list[Found]) -> None:
    if section.table is None:
        catalogue.remarks.append("no table: these series can be predicted, not learnt from")
        catalogue.cases += [_case(found) for found in series]
        return
    table = read_table(section.folder / section.table)
    key = _key(table)
    if key is None:
        raise CohortError("the table has no column `series` or `subject`", where=table.path,
                          expected=f"one of them among {some(table.columns, 40)}")
    labels_of = Labeller(table, section.class_columns, task)
    rows = _rows_by(table, key)
    names = {_name(found, key) for found in series}
    for found in series:
        row = rows.get(_name(found, key))
        if row is None:
            catalogue.rejected.append(_missing(found, f"the table has no row for the {key} of this series. Add "
                                                      "it, or move the series away."))
            continue
        try:
            labels, unknown = labels_of(row)
        except LabelError as error:
            catalogue.rejected.append(Rejected.from_error(error, found.name, found.subject, str(found.paths[0])))
        else:
            catalogue.cases.append(_case(found, labels=labels, unknown=unknown))
    for name in sorted(set(rows) - names):
        catalogue.rejected.append(Rejected(safe_name(name), name if key == "subject" else "", str(table.path),
                                           "missing image", f"no DICOM series has this {key}. Add it, or take "
                                           "the row out."))


def _name(found: Found, key: str) -> str:
    return found.name if key == "series" else found.subject


def _rows_by(table: Table, key: str) -> dict[str, Row]:
    rows: dict[str, Row] = {}
    for row in table.rows:
        if rows.setdefault(row[key], row) != row:
            raise CohortError(f"the {key} {row[key]!r} stands in two rows that differ", where=table.path,
                              expected=f"one row a {key}",
                              fix="Take one out, or give a column `series` with a row a series")
    return rows


LAYOUT = Layout("dicom", "a tree with DICOM files", recognise, catalogue)

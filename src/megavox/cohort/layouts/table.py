"""A CSV table with one row an image; guessing its columns is `table_guess`'s work."""

from __future__ import annotations

import posixpath
from pathlib import Path
from typing import TYPE_CHECKING

from megavox.cohort.case import Case, Catalogue, Rejected
from megavox.cohort.layouts.guess import Layout
from megavox.cohort.layouts.listing import images_in, need_folder, stem, unique_names
from megavox.cohort.layouts.rows import Labeller, Row, read_table
from megavox.cohort.layouts.table_guess import recognise
from megavox.core.errors import CohortError, LabelError

if TYPE_CHECKING:
    from megavox.study.cohort import TableCohort
    from megavox.study.sections import ClassifyTask


def catalogue(section: TableCohort, task: ClassifyTask) -> Catalogue:
    """One case a row.

    Raises:
        CohortError: folder, table or column missing; a name that leads out of the images' folder.
    """
    folder = need_folder(section.folder, "the cohort's folder")
    table = read_table(folder / section.table)
    images = need_folder(folder / section.images, "the images' folder (cohort.images)")
    table.need(section.image_column, "cohort.image_column")
    if section.subject_column:
        table.need(section.subject_column, "cohort.subject_column")
    if section.session_column:
        table.need(section.session_column, "cohort.session_column")
    labels_of = Labeller(table, section.class_columns, task)

    there = {path.relative_to(images).as_posix(): path for path in images_in(images, deep=True)}
    names = [_inside(row[section.image_column], section.suffix, table.path) for row in table.rows]
    cases = unique_names([stem(Path(name).name) for name in names], [stem(name) for name in names])
    used = [*section.class_columns, *filter(None, (section.subject_column, section.session_column))]
    doubles = _doubles(names, table.rows, used)
    found = Catalogue()
    for place, (name, case, row) in enumerate(zip(names, cases, table.rows, strict=True)):
        if doubles.get(place) == "same":
            continue
        subject = row[section.subject_column] if section.subject_column else case
        session = row[section.session_column] if section.session_column else ""
        try:
            _check_row(section, there, name, subject, doubles.get(place, ""))
            labels, unknown = labels_of(row)
        except LabelError as error:
            found.rejected.append(Rejected.from_error(error, case, subject, str(images / name)))
        else:
            found.cases.append(Case(case, subject, session, ((there[name],),), labels=labels, unknown=unknown))
    found.remarks += _remarks(section, sorted(set(there) - set(names)), list(doubles.values()).count("same"))
    return found


def _check_row(section: TableCohort, there: dict[str, Path], name: str, subject: str, double: str) -> None:
    """Raises `LabelError` where the row is of no use, whatever its class."""
    if not name:
        raise LabelError(f"the cell of {section.image_column!r} is blank", reason="missing image",
                         fix="Fill it in, or take the row out")
    if name not in there:
        raise LabelError("the table names this image, but it is not there", reason="missing image",
                         fix="Add it, or take the row out")
    if not subject:
        raise LabelError(f"the cell of {section.subject_column!r} is blank", reason="missing subject",
                         expected="whose image it is", fix="Fill it in, or take the row out")
    if double:
        raise LabelError("several rows name this image and say different things of it", reason="duplicate",
                         expected="one row an image", fix="Take the wrong rows out")


def _doubles(names: list[str], rows: list[Row], used: list[str]) -> dict[int, str]:
    """Places of rows whose image stands in an earlier row too ("same"), or in rows that differ ("differ")."""
    places: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        if name:
            places.setdefault(name, []).append(place)
    marks: dict[int, str] = {}
    for group in places.values():
        said = {tuple(rows[place][column] for column in used) for place in group}
        if len(said) > 1:
            marks.update(dict.fromkeys(group, "differ"))
        else:
            marks.update(dict.fromkeys(group[1:], "same"))
    return marks


def _remarks(section: TableCohort, unnamed: list[str], same: int) -> list[str]:
    remarks = []
    if unnamed:
        remarks.append(f"{len(unnamed)} images stand in no row of {section.table}, e.g. {unnamed[0]}")
    if same:
        remarks.append(f"{same} rows of {section.table} repeat an earlier one")
    if not section.subject_column:
        remarks.append("no subject column: every image is taken for a subject of its own")
    return remarks


def _inside(cell: str, suffix: str, table: Path) -> str:
    """The image's path relative to the images' folder; "" for a blank cell."""
    if not cell:
        return ""
    name = cell.replace("\\", "/") + suffix
    normal = posixpath.normpath(name)
    if posixpath.isabs(name) or normal.split("/")[0] == ".." or ":" in name.split("/")[0]:
        raise CohortError(f"the image {cell!r} leads out of the images' folder", where=table,
                          expected="a path below cohort.images",
                          fix="Put the images below one folder and name it in cohort.images")
    return normal


LAYOUT = Layout("table", "a CSV table (labels.csv, data.csv or the only one) with a column of image names",
                recognise, catalogue)

__all__ = ["LAYOUT", "catalogue", "recognise"]

"""Guessing what the columns of a table mean.

Names decide first, then values: an image column is one whose values are files that are there, a
finding is a column of 0 and 1, a class is a text column of that name with few values. Every choice
is told in a comment with its alternatives.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from megavox.cohort.layouts.guess import Guess
from megavox.cohort.layouts.listing import PICTURES, folders_in, images_in, some
from megavox.cohort.layouts.rows import BLANK, UNKNOWN, Table, read_table, whole
from megavox.cohort.layouts.samples import evenly, in_colour
from megavox.core.errors import CohortError

SUBJECT = re.compile(r"(patient|subject|person|participant|donor|animal|individual|pat|sub|mrn|eid|pid)"
                     r"(id|uid|name|nr|no|number|code|key)?")
SESSION = ("followup", "visit", "visitid", "session", "sessionid", "date", "visitdate", "studydate",
           "timepoint", "studyid", "study", "scandate", "acquisitiondate")
TARGET = ("label", "class", "diagnosis", "target", "category", "grade", "finding", "dx", "outcome", "kl")
NO_FINDING = re.compile(r"sex|gender|male|female|age|view|projection|followup|visit|session|fold|split|train|"
                        r"test|valid|site|scanner|smoker|side|laterality|left|right|id")
DEMOGRAPHIC = re.compile(r"sex|gender|age|race|ethnicity|fold|split|modality|site|scanner|source.*")
NEGATIVE = ("normal", "healthy", "benign", "negative", "control", "no", "none", "absent", "0", "false")
MOST_CLASSES = 50
TRIED = 500  # rows, and files, looked at to find the image column


@dataclass(frozen=True)
class Target:
    """What is learnt: the class columns, the task section, and why."""

    columns: list[str]
    task: dict[str, Any]
    why: str


def recognise(folder: Path) -> Guess | None:
    """A folder with a table of which a column names images that are there.

    Raises:
        CohortError: there is such a table, but nothing in it looks like a target.
    """
    path = _the_table(folder)
    if path is None:
        return None
    table = read_table(path)
    place = _image_column(folder, table)
    if place is None:
        return None
    images, column, suffix, files, missing = place
    comments = {"cohort.image_column": f"values of {column!r}{f' + {suffix!r}' if suffix else ''} are files in "
                                       f"{images}/" + (f"; {missing} rows name a file that is not there"
                                                       if missing else "")}
    cohort: dict[str, Any] = {"layout": "table", "folder": str(folder), "table": path.name, "images": images,
                              "image_column": column}
    if suffix:
        cohort["suffix"] = suffix
    subject = _subject_column(table, column)
    if subject:
        count = len({row[subject] for row in table.rows})
        cohort["subject_column"] = subject
        comments["cohort.subject_column"] = f"by its name: {count} subjects in {len(table.rows)} rows"
        session = _session_column(table, {column, subject})
        if session:
            cohort["session_column"] = session
            comments["cohort.session_column"] = "by its name: tells the visits of a subject apart"
    else:
        comments["cohort.subject_column"] = ("no column looks like a patient's number, so every image is taken "
                                             "for a subject of its own. Where several images are of one subject "
                                             "this leaks: figures come out too good")
    target = guess_target(table, {column, subject or column, cohort.get("session_column", column)})
    cohort["class_columns"] = target.columns
    comments["cohort.class_columns"] = target.why
    guess = Guess(cohort, target.task, {}, comments)
    if missing * 2 > len(table.rows):
        guess.remarks.append(f"{missing} of {len(table.rows)} rows of {path.name} name a file that is not there")
    if in_colour([file for file in files if file.name.lower().endswith(PICTURES)]):
        guess.images["grey"] = False
        comments["images.grey"] = "the pictures are coloured"
    return guess


def _the_table(folder: Path) -> Path | None:
    tables = sorted(path for path in folder.glob("*.csv") if not path.name.startswith("."))
    named = [path for path in tables if path.name in ("labels.csv", "data.csv")]
    return named[-1] if named else tables[0] if len(tables) == 1 else None


class _Fit(NamedTuple):
    """How well a column, with a suffix, names the images below a sub-folder.

    Attributes:
        rows: rows tried that name an image which is there; 0 where they are fewer than half.
        files: images tried that stand in a row; 0 where they are fewer than half.
        images: the sub-folder, or ".".
        column, suffix: what names them.
        paths: the images.
        names: the same, as the rows would name them.
    """

    rows: int
    files: int
    images: str
    column: str
    suffix: str
    paths: list[Path]
    names: set[str]


def _image_column(folder: Path, table: Table) -> tuple[str, str, str, list[Path], int] | None:
    """Sub-folder, column, suffix, image files and missing rows of the best match of values and files.

    Of a table of a large collection only a part may have been fetched: then most rows name nothing that is there,
    but most files stand in a row.
    """
    fits = list(_fits(folder, table))
    best = max(fits, key=lambda fit: fit.rows, default=None)
    if best is None or not best.rows:
        best = max(fits, key=lambda fit: fit.files, default=None)
    if best is None or not (best.rows or best.files):
        return None
    missing = sum(_path(row[best.column]) + best.suffix not in best.names for row in table.rows)
    return best.images, best.column, best.suffix, best.paths, missing


def _fits(folder: Path, table: Table) -> Iterator[_Fit]:
    rows = evenly(table.rows, TRIED)
    cells = {column: [_path(row[column]) for row in rows] for column in table.columns}
    named = {column: {_path(row[column]) for row in table.rows} for column in table.columns}
    # A column of few values, such as an age, may name files like 57.png by chance.
    named = {column: values if len(values) * 2 > len(table.rows) else set() for column, values in named.items()}
    places = sorted(folders_in(folder), key=lambda path: path.name != "images")[:20]
    for place in [*places, folder]:
        paths = images_in(place, deep=True)
        names = {path.relative_to(place).as_posix() for path in paths}
        files = evenly(sorted(names), TRIED)
        suffixes = ["", *sorted({path.name[path.name.find("."):] for path in paths})[:10]]
        for column in table.columns if paths else []:
            for suffix in suffixes:
                hits = sum(cell + suffix in names for cell in cells[column])
                stand = sum(name.endswith(suffix) and name.removesuffix(suffix) in named[column] for name in files)
                yield _Fit(hits if hits * 2 >= len(rows) else 0, stand if stand * 2 >= len(files) else 0,
                           place.name if place != folder else ".", column, suffix, paths, names)


def _path(cell: str) -> str:
    return cell.replace("\\", "/").removeprefix("./")


def _plain(column: str) -> str:
    return re.sub(r"[^a-z0-9]", "", column.lower())


def _subject_column(table: Table, image_column: str) -> str | None:
    named = [column for column in table.columns if column != image_column and SUBJECT.fullmatch(_plain(column))]
    return next((column for column in named if any(row[column] for row in table.rows)), None)


def _session_column(table: Table, taken: set[str]) -> str | None:
    return next((column for column in table.columns if column not in taken and _plain(column) in SESSION
                 and len({row[column] for row in table.rows}) > 1), None)


# ------------------------------------------------------------------ the target


def guess_target(table: Table, taken: set[str]) -> Target:
    """What the columns other than `taken` say to learn.

    Raises:
        CohortError: nothing looks like a target.
    """
    free = [column for column in table.columns if column not in taken]
    values = {column: Counter(whole(row[column]) for row in table.rows) for column in free}
    yes_no = [column for column in free if _known(values[column]) == {"0", "1"}
              and not NO_FINDING.fullmatch(_plain(column))]
    named = next((column for name in TARGET for column in free if _plain(column) == name
                  and 2 <= len(_classes(values[column])) <= MOST_CLASSES), None)
    if len(yes_no) >= 2:
        constant = [column for column in free if _known(values[column]) in ({"0"}, {"1"})
                    and not NO_FINDING.fullmatch(_plain(column))]
        why = f"the {len(yes_no)} columns that hold 0 and 1 (blank or -1: not known)"
        if constant:
            why += f"; left out, as all rows say the same: {some(constant)}"
        return Target(yes_no, {"kind": "classify", "classes": yes_no, "multilabel": True},
                       why + _instead(named, values))
    if len(yes_no) == 1:
        return _yes_no(table, yes_no[0], named, values)
    if named:
        return _text(named, values[named], "by its name: the class of each image")
    return _last_resort(table, free, values)


def _known(values: Counter[str]) -> set[str]:
    return {cell for cell in values if cell.lower() not in UNKNOWN}


def _classes(values: Counter[str]) -> list[str]:
    """Values that are classes, in order of name, those that stand for health first."""
    cells = [cell for cell in values if cell.lower() not in BLANK]
    return sorted(cells, key=lambda cell: (cell.lower() not in NEGATIVE, cell))


def _text(column: str, values: Counter[str], why: str) -> Target:
    classes = _classes(values)
    counts = ", ".join(f"{name} {values[name]}" for name in classes[:12])
    return Target([column], {"kind": "classify", "classes": classes}, f"{why} ({counts})")


def _yes_no(table: Table, column: str, named: str | None, values: dict[str, Counter[str]]) -> Target:
    """One 0/1 column: two classes that exclude one another, the finding last."""
    absent = f"not {column}"
    if named:
        of_zero = {row[named] for row in table.rows if whole(row[column]) == "0"}
        of_one = {row[named] for row in table.rows if whole(row[column]) == "1"}
        if len(of_zero) == 1 and not of_zero & of_one:
            absent = of_zero.pop()
    task = {"kind": "classify", "classes": [absent, column], "values": {"0": absent, "1": column}}
    why = f"the only column that holds 0 and 1 ({values[column]['0']} and {values[column]['1']} rows)"
    return Target([column], task, why + _instead(named, values))


def _instead(named: str | None, values: dict[str, Counter[str]]) -> str:
    if named is None:
        return ""
    classes = _classes(values[named])
    return (f". Instead you can learn {named!r} ({len(classes)} classes): class_columns: [{named}] and "
            f"task: {{kind: classify, classes: [{', '.join(classes)}]}}")


def _last_resort(table: Table, free: list[str], values: dict[str, Counter[str]]) -> Target:
    """The most even text column of few values. Nothing says that it is the target: the comment asks."""
    def is_text(cell: str) -> bool:
        return re.fullmatch(r"[-+]?(\d+\.?\d*|inf)(e[-+]?\d+)?", cell) is None

    candidates = {}
    for column in free:
        counts = [values[column][cell] for cell in _classes(values[column])]
        if 2 <= len(counts) <= 10 and min(counts) >= 2 and all(map(is_text, _classes(values[column]))) \
                and not DEMOGRAPHIC.fullmatch(_plain(column)):
            shares = [count / sum(counts) for count in counts]
            candidates[column] = -sum(share * math.log(share) for share in shares) / math.log(len(counts))
    if not candidates:
        raise CohortError("no column of the table looks like a target", where=table.path,
                          expected=f"columns of 0 and 1, or a text column named {some(TARGET)}; "
                                   f"there are {some(table.columns, 40)}",
                          fix="Add such a column, or write cohort.class_columns and task.classes by hand")
    column = max(candidates, key=lambda name: candidates[name])
    others = [name for name in candidates if name != column]
    return _text(column, values[column],
                 "PLEASE CHECK: no column is named as a target; this one has few values"
                 + (f". Others: {some(others)}" if others else ""))

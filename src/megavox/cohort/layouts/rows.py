"""A table of targets: reading the CSV file, and turning its cells into classes."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from megavox.cohort.layouts.listing import did_you_mean, some
from megavox.core.errors import CohortError, LabelError

if TYPE_CHECKING:
    from megavox.study.sections import ClassifyTask

Row = dict[str, str]
BLANK = {"", "nan", "na", "n/a", "null", "none", "unknown", "?"}
UNKNOWN = BLANK | {"-1"}  # -1 is "uncertain" in CheXpert (Irvin et al. 2019, arXiv:1901.07031)


@dataclass(frozen=True)
class Table:
    """Rows of a CSV file, every cell a stripped text.

    Attributes:
        path: the file.
        columns: names from the first line, in order.
        rows: one dictionary a line.
        lines: where in the file each row ends, counted from 1.
    """

    path: Path
    columns: list[str]
    rows: list[Row]
    lines: list[int]

    def need(self, column: str, key: str) -> str:
        """`column` itself; `key` is the study file's key that names it.

        Raises:
            CohortError: there is no such column; names the nearest and those that are there.
        """
        if column in self.columns:
            return column
        raise CohortError(f"{key}: there is no column {column!r}", where=self.path,
                          expected=f"one of {some(self.columns, 40)}",
                          fix=did_you_mean(column, self.columns) or f"Correct {key} in the study file")


def read_table(path: Path) -> Table:
    """Read a CSV file with at least one row. Raises as `read_rows` does, and where there is none."""
    table = read_rows(path, "cohort.table")
    if not table.rows:
        raise CohortError("the table has no rows", where=path)
    return table


def read_rows(path: Path, key: str) -> Table:
    """Read a CSV file; commas, semicolons and tabs are told apart by the first line.

    Args:
        key: the study file's key that names it.

    Raises:
        CohortError: missing, not text, or a column name stands twice.
    """
    if not path.is_file():
        there = sorted(p.name for p in path.parent.glob("*.[cCtT][sS][vV]")) if path.parent.is_dir() else []
        raise CohortError("the table is not there", where=path,
                          expected=f"a CSV file; the folder holds {some(there) or 'none'}",
                          fix=did_you_mean(path.name, there) or f"Correct {key} in the study file")
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            first = stream.readline()
            stream.seek(0)
            lines = csv.reader(stream, delimiter=max(",;\t", key=first.count))
            columns = [name.strip() for name in next(lines, [])]
            rows = [(lines.line_num, dict(zip(columns, [cell.strip() for cell in line] + [""] * len(columns),
                                              strict=False)))
                    for line in lines if any(cell.strip() for cell in line)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CohortError(f"the table cannot be read ({error})", where=path, expected="a CSV file in UTF-8",
                          fix="Save it again as CSV UTF-8") from None
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        raise CohortError(f"the column {twice[0]!r} stands twice", where=path, fix="Rename one of them")
    return Table(path, columns, [row for _, row in rows], [number for number, _ in rows])


def whole(cell: str) -> str:
    """A cell whose number is whole without its `.0`: tables that had a blank once say 1.0 for 1."""
    try:
        number = float(cell)
    except ValueError:
        return cell
    return str(int(number)) if number == number and abs(number) < 1e15 and number == int(number) else cell


class Labeller:
    """Turns the class columns of a row into class names, as the task says.

    Raises:
        CohortError: columns and classes do not go together.
    """

    def __init__(self, table: Table, class_columns: list[str], task: ClassifyTask) -> None:
        for column in class_columns:
            table.need(column, "cohort.class_columns")
        self.columns, self.task = class_columns, task
        if not class_columns:
            raise CohortError("cohort.class_columns names no column", where=table.path,
                              expected=f"one or more of {some(table.columns, 40)}")
        if not task.multilabel and len(class_columns) > 1:
            raise CohortError(f"{len(class_columns)} class columns, but the classes exclude one another",
                              where=table.path, expected="one class column, or `task.multilabel: true`",
                              fix="Correct cohort.class_columns or task.multilabel in the study file")
        if task.multilabel and len(class_columns) != len(task.classes):
            raise CohortError(f"{len(class_columns)} class columns for {len(task.classes)} classes",
                              where=table.path, expected="with `multilabel: true`, one 0/1 column a class, "
                              "in the order of task.classes",
                              fix="Correct cohort.class_columns or task.classes in the study file")
        by_name = set(class_columns) == set(task.classes)
        self.class_of = {column: column if by_name else name
                         for column, name in zip(class_columns, task.classes, strict=False)}

    def __call__(self, row: Row) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Class names that hold, and (multi-label) those of which it is not known.

        Raises:
            LabelError: `reason` is "missing target" where nothing is known, "label" for a value that
                the study does not name.
        """
        return self._many(row) if self.task.multilabel else (self._one(row), ())

    def _one(self, row: Row) -> tuple[str, ...]:
        column = self.columns[0]
        cell = row[column]
        for form in (cell, whole(cell)):
            name = self.task.values.get(form, form)
            if name in self.task.classes:
                return (name,)
        if cell.lower() in BLANK:
            raise LabelError(f"the cell of {column!r} is {cell!r}", expected="a class", reason="missing target",
                             fix="Fill it in, or take the row out")
        known = [*self.task.values, *(c for c in self.task.classes if c not in self.task.values.values())]
        raise LabelError(f"{column} is {cell!r}", expected=f"one of {some(known, 20)}",
                         fix=did_you_mean(cell, known) or "Add it to task.classes or task.values, or mend the cell")

    def _many(self, row: Row) -> tuple[tuple[str, ...], tuple[str, ...]]:
        holds, unknown = [], []
        for column in self.columns:
            cell = whole(row[column])
            if cell == "1":
                holds.append(self.class_of[column])
            elif cell.lower() in UNKNOWN:
                unknown.append(self.class_of[column])
            elif cell != "0":
                raise LabelError(f"{column} is {row[column]!r}", expected="0, 1, or blank or -1 for unknown",
                                 fix="Mend the cell")
        if len(unknown) == len(self.columns):
            raise LabelError(f"nothing is known of {some(self.columns)}", expected="0 or 1",
                             reason="missing target", fix="Fill it in, or take the row out")
        return tuple(holds), tuple(unknown)

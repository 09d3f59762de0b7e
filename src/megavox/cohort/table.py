"""cohort.csv: the cases that were packed, for people and for the stages that follow."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from megavox.cohort.case import Case, Files, Finding
from megavox.core.errors import WorkspaceError
from megavox.core.files import read_csv, write_csv

COLUMNS = ("case", "subject", "session", "part", "key", "target", "unknown", "findings", "shape", "spacing_mm",
           "remarks", "images", "masks")
EXCLUDED = "excluded"
_ESCAPES = str.maketrans({sign: f"%{ord(sign):02X}" for sign in "%;|\r\n\0"})


@dataclass(frozen=True)
class Entry:
    """A packed case: itself, where it lies in the store, and its part of the split."""

    case: Case
    key: str
    part: str
    shape: str = ""
    spacing_mm: str = ""
    remarks: str = ""


def write_cohort(path: Path, entries: Sequence[Entry]) -> None:
    """Write cohort.csv.

    Channels are separated by `|`, the files of a series and classes by `;`. These two, `%`, line breaks
    and NUL are written as in a web address (`%7C`, `%3B`, `%25`, ...) where they stand in a name. A target of
    `-` is unknown, so a lone class of that name is written `%2D`; an empty name is a lone `%`. Findings are
    `x y z diameter` in mm, with `excluded` behind those that do not count; `-` where the target is no findings.
    """
    write_csv(path, COLUMNS, [{
        "case": e.case.name, "subject": e.case.subject, "session": e.case.session, "part": e.part, "key": e.key,
        "target": _target(e.case.labels), "unknown": _joined(e.case.unknown),
        "findings": _found(e.case.findings), "shape": e.shape, "spacing_mm": e.spacing_mm, "remarks": e.remarks,
        "images": "|".join(_joined(files) for files in e.case.images),
        "masks": _joined(e.case.masks)} for e in entries])


def read_cohort(path: Path) -> list[Entry]:
    """Read cohort.csv.

    Raises:
        WorkspaceError: nothing was packed, or a row of the table lacks a column or has findings that are no numbers.
    """
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # a series of a thousand files is one field
    rows = read_csv(path)
    for number, row in enumerate(rows, 2):
        lacking = [name for name in COLUMNS if row.get(name) is None]
        if lacking:
            raise WorkspaceError(f"line {number} has nothing in the columns {', '.join(lacking)}", where=path,
                                 fix="Run `megavox pack` again, which writes this table")
    return [Entry(_case(row, path), row["key"], row["part"], row["shape"], row["spacing_mm"], row["remarks"])
            for row in rows]


def _case(row: Mapping[str, str], path: Path) -> Case:
    return Case(row["case"], row["subject"], row["session"],
                images=tuple(_files(channel) for channel in row["images"].split("|")), masks=_files(row["masks"]),
                labels=None if row["target"] == "-" else _parted(row["target"]), unknown=_parted(row["unknown"]),
                findings=_findings(row["findings"], path))


def _target(labels: Sequence[str] | None) -> str:
    if labels is None:
        return "-"
    return "%2D" if tuple(labels) == ("-",) else _joined(labels)


def _found(findings: Sequence[Finding] | None) -> str:
    if findings is None:
        return "-"
    return ";".join(" ".join([*(repr(float(value)) for value in (*one.centre_mm, one.diameter_mm)),
                              *([] if one.counts else [EXCLUDED])]) for one in findings)


def _findings(text: str, path: Path) -> tuple[Finding, ...] | None:
    return None if text == "-" else tuple(_finding(part, path) for part in text.split(";") if part)


def _finding(text: str, path: Path) -> Finding:
    numbers, excluded, _ = text.partition(f" {EXCLUDED}")
    try:
        x, y, z, diameter = map(float, numbers.split())
    except ValueError:
        raise WorkspaceError(f"a finding is {text!r}", where=path, expected="x y z diameter, in mm",
                             fix="Run `megavox pack` again, which writes this table") from None
    return Finding((x, y, z), diameter, counts=not excluded)


def _joined(names: Iterable[object]) -> str:
    return ";".join(str(name).translate(_ESCAPES) or "%" for name in names)


def _parted(text: str) -> tuple[str, ...]:
    return tuple("" if part == "%" else unquote(part) for part in text.split(";") if part)


def _files(text: str) -> Files:
    return tuple(map(Path, _parted(text)))

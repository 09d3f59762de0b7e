"""cohort.csv: the cases that were packed, for people and for the stages that follow."""

from __future__ import annotations

import csv
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from megavox.cohort.case import Case, Files
from megavox.core.files import read_csv, write_csv

COLUMNS = ("case", "subject", "session", "part", "key", "target", "unknown", "shape", "spacing_mm", "remarks",
           "images", "masks")


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
    """Write cohort.csv. Channels are separated by `|`, the files of a series by `;`."""
    write_csv(path, COLUMNS, [{
        "case": e.case.name, "subject": e.case.subject, "session": e.case.session, "part": e.part, "key": e.key,
        "target": "-" if e.case.labels is None else ";".join(e.case.labels), "unknown": ";".join(e.case.unknown),
        "shape": e.shape, "spacing_mm": e.spacing_mm, "remarks": e.remarks,
        "images": "|".join(";".join(map(str, files)) for files in e.case.images),
        "masks": ";".join(map(str, e.case.masks))} for e in entries])


def read_cohort(path: Path) -> list[Entry]:
    """Read cohort.csv.

    Raises:
        WorkspaceError: nothing was packed.
    """
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # a series of a thousand files is one field
    return [Entry(_case(row), row["key"], row["part"], row["shape"], row["spacing_mm"], row["remarks"])
            for row in read_csv(path)]


def _case(row: Mapping[str, str]) -> Case:
    return Case(row["case"], row["subject"], row["session"],
                images=tuple(_files(channel) for channel in row["images"].split("|")), masks=_files(row["masks"]),
                labels=None if row["target"] == "-" else tuple(part for part in row["target"].split(";") if part),
                unknown=tuple(part for part in row["unknown"].split(";") if part))


def _files(text: str) -> Files:
    return tuple(Path(part) for part in text.split(";") if part)

"""CT volumes, and a CSV table of the findings in them, as of LUNA16 (Setio et al. 2017, arXiv:1612.08012).

An image is called as its `seriesuid` and lies anywhere below the folder (`subset0/<seriesuid>.mhd`). Coordinates are
LPS world mm, of the centre. An image that no row names has no finding. What stands in the second table (marks of
fewer readers, non-nodules, nodules below 3 mm) is neither to be found nor wrong to find.
"""

from __future__ import annotations

import math
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

from megavox.cohort.case import Case, Catalogue, Finding, Rejected
from megavox.cohort.layouts.guess import Guess, Layout
from megavox.cohort.layouts.listing import (
    VOLUMES,
    is_image,
    need_folder,
    safe_name,
    some,
    stem,
    subject_of,
    subject_pattern,
)
from megavox.cohort.layouts.rows import Row, Table, read_rows
from megavox.core.errors import CohortError, LabelError
from megavox.images import dicom as dicom_format
from megavox.images.find import Found, find_images

if TYPE_CHECKING:
    from megavox.study.cohort import Luna16Cohort
    from megavox.study.sections import DetectTask

SERIES = "seriesuid"
NUMBERS = ("coordX", "coordY", "coordZ", "diameter_mm")
LUNGS = "seg-lungs"  # begins the name of LUNA16's folder of lung masks, which are called as the images are


def recognise(folder: Path) -> Guess | None:
    """An annotations.csv with LUNA16's columns.

    Raises:
        CohortError: it is empty, or has some of them.
    """
    path = folder / "annotations.csv"
    if not path.is_file():
        return None
    table = read_rows(path, "cohort.annotations")
    if table.columns and not {SERIES, *NUMBERS} & set(table.columns):
        return None
    for column in (SERIES, *NUMBERS):
        table.need(column, "cohort.annotations")
    cohort: dict[str, object] = {"layout": "luna16", "folder": str(folder)}
    if not (folder / "annotations_excluded.csv").is_file():
        cohort["excluded"] = None
    return Guess(cohort, {"kind": "detect"}, {"channels": ["CT"]},
                 {"cohort.layout": f"annotations.csv has columns for a {SERIES}, coordinates and a diameter, "
                                   f"and {len(table.rows)} rows",
                  "images.channels": "nodules are marked in CT, which this format does not say"})


def catalogue(section: Luna16Cohort, task: DetectTask) -> Catalogue:
    """One case an image. Opens headers only; whether findings lie in their image is seen when it is packed.

    Raises:
        CohortError: folder, table or column missing; no image at all, or none that the table names.
    """
    folder = need_folder(section.folder, "the cohort's folder")
    pattern = subject_pattern(section.subject_pattern)
    found = Catalogue()
    tables = [(read_rows(folder / section.annotations, "cohort.annotations"), True)]
    if section.excluded and (folder / section.excluded).is_file():
        tables.append((read_rows(folder / section.excluded, "cohort.excluded"), False))
    elif section.excluded:
        found.remarks.append(f"there is no {section.excluded}: everything found that {section.annotations} does not "
                             "name is counted as wrong")
    findings, broken = _findings(tables)
    images = _images(folder, findings.keys() | broken.keys(), found)
    for series, (image, *others) in sorted(images.items()):
        case, file = safe_name(series), str(image.paths[0])
        subject = subject_of(pattern, series) if pattern else image.subject or series
        try:
            if others:
                raise LabelError("another image is called as this one", where=image.paths[0], reason="duplicate",
                                 expected=f"one image a {SERIES}", fix=f"Move one away: {others[0].paths[0]}")
            if subject is None:
                raise LabelError(f"cohort.subject_pattern does not fit the {SERIES}", where=series,
                                 reason="missing subject", fix="Rename the image, or widen the pattern")
            if series in broken:
                raise broken[series]
        except LabelError as error:
            found.rejected.append(Rejected.from_error(error, case, subject or "", file))
        else:
            found.cases.append(Case(case, subject, "", (image.paths,), findings=tuple(findings.get(series, ()))))
    _tell_missing(found, tables[0][0], set(images))
    return found


def _findings(tables: list[tuple[Table, bool]]) -> tuple[dict[str, list[Finding]], dict[str, LabelError]]:
    """Findings by series, and the first row of a series that cannot be used."""
    findings: dict[str, list[Finding]] = defaultdict(list)
    broken: dict[str, LabelError] = {}
    for table, counts in tables:
        for column in (SERIES, *NUMBERS):
            table.need(column, "cohort.annotations" if counts else "cohort.excluded")
        for line, row in zip(table.lines, table.rows, strict=True):
            try:
                findings[row[SERIES]].append(_finding(row, counts, f"{table.path}, line {line}"))
            except LabelError as error:
                broken.setdefault(row[SERIES], error)
    return findings, broken


def _finding(row: Row, counts: bool, where: str) -> Finding:
    for column in NUMBERS:
        try:
            wrong = not math.isfinite(float(row[column]))
        except ValueError:
            wrong = True
        if wrong:
            raise LabelError(f"{column} is {row[column]!r}", where=where, expected="a number", fix="Mend the cell, or "
                             "take the row out")
    x, y, z, diameter = (float(row[column]) for column in NUMBERS)
    if diameter == 0:
        raise LabelError("diameter_mm is 0", where=where, fix="Mend the cell",
                         expected="mm, or a negative number where it is not known")
    return Finding((x, y, z), diameter, counts)


def _images(folder: Path, named: set[str], found: Catalogue) -> dict[str, list[Found]]:
    """Volumes by series; of what else there is, `found` is told."""
    search = find_images(folder)
    found.rejected += [Rejected.from_error(error, file=str(path)) for path, error in search.unusable]
    images: dict[str, list[Found]] = defaultdict(list)
    lungs, other = [], []
    for image in search.images:
        path = image.paths[0]
        if any(part.startswith(LUNGS) for part in path.relative_to(folder).parts[:-1]):
            lungs.append(path)
        elif image.kind == dicom_format.name or is_image(path.name, VOLUMES):
            images[_series(image, named)].append(image)
        else:
            other.append(path)
    if not images:
        raise CohortError(f"no volume among {len(search.images)} images and {len(search.unusable)} other files",
                          where=folder, expected=f"MetaImage, NIfTI or DICOM series called as their {SERIES}",
                          fix="Name the folder above the images in cohort.folder")
    found.remarks += [f"{len(paths)} {what} are left out, e.g. {paths[0].relative_to(folder)}"
                      for paths, what in ((lungs, "lung masks"), (other, "images that are no volumes")) if paths]
    return images


def _series(image: Found, named: set[str]) -> str:
    """What the image is called: of DICOM, its folder or its file, whichever the tables name."""
    path = image.paths[0]
    names = [path.parent.name, stem(path.name), image.name] if image.kind == dicom_format.name else [stem(path.name)]
    return next((name for name in names if name in named), names[-1])


def _tell_missing(found: Catalogue, table: Table, images: set[str]) -> None:
    """Rows whose image is not there, as for users who have some of the subsets.

    Raises:
        CohortError: that are all of them.
    """
    missing = [row[SERIES] for row in table.rows if row[SERIES] not in images]
    if not missing:
        return
    if len(missing) == len(table.rows):
        raise CohortError(f"the table names none of the {len(images)} images", where=table.path,
                          expected=f"image files called as their {SERIES}, such as {missing[0]}.mhd",
                          fix=f"Rename the images or the rows; the images are {some(sorted(images), 3)}")
    found.remarks.append(f"{len(missing)} rows of {table.path.name} name {len(set(missing))} series whose images are "
                         f"not there, e.g. {missing[0]}")


LAYOUT = Layout("luna16", f"annotations.csv with the columns {SERIES}, {', '.join(NUMBERS)}", recognise, catalogue)

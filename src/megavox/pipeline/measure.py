"""measure: predictions -> a table of numbers with units."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megavox.core.errors import StudyError, WorkspaceError
from megavox.core.files import read_csv, read_json, write_csv
from megavox.core.progress import track
from megavox.images.formats import read_image
from megavox.images.geometry import Geometry
from megavox.inference.cohort import TABLE
from megavox.measures.volume import volumes_mm3
from megavox.pipeline.project import Project


@dataclass(frozen=True)
class Measures:
    """What was measured.

    Attributes:
        table: the CSV file.
        rows: one a case.
    """

    table: Path
    rows: list[dict[str, Any]]


def measure(project: Project, folder: Path | None = None) -> Measures:
    """Volume in mm^3 of each class of every prediction, written to a table.

    Args:
        project: a segment study.
        folder: predictions to measure, the table goes there; without it the study's test cases, and the
            table goes to measures/volumes.csv.

    Raises:
        StudyError: the task has no volumes. WorkspaceError: nothing was predicted.
    """
    study = project.study
    if study.task.kind != "segment":
        raise StudyError("a classification has no volumes to measure", where="task.kind", expected="segment")
    if folder is None:
        folder, table = project.workspace.predictions(project.run_name), project.workspace.measures / "volumes.csv"
    else:
        table = folder / "volumes.csv"
    if not (folder / TABLE).exists():
        raise WorkspaceError("there are no predictions, or they are not finished", where=folder,
                             fix="Run `megavox predict` first")
    records = [folder / f"{row['case']}.json" for row in read_csv(folder / TABLE)]
    rows = []
    for path in track(records, "measuring", total=len(records)):
        record = read_json(path)
        geometry = Geometry.from_dict(record["geometry"])
        labels = read_image(path.with_suffix(".nii.gz")).array[0]
        volumes = volumes_mm3(labels, geometry.spacing_zyx[-labels.ndim:], study.task.names)
        rows.append({"case": record["case"], "subject": record["subject"], "session": record["session"],
                     **{f"{name} volume_mm3": round(value, 3) for name, value in volumes.items()},
                     "calibrated": "yes" if geometry.calibrated else "no: the image has no spacing in mm"})
    write_csv(table, list(rows[0]), rows)
    return Measures(table, rows)

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
from megavox.inference.records import TABLE, mask_as_written, mask_path
from megavox.measures.volume import volumes_mm3, voxel_volume_mm3
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
        raise StudyError(f"to {study.task.kind} gives no volumes to measure", where="task.kind", expected="segment")
    if folder is None:
        folder, table = project.workspace.predictions(project.run_name), project.workspace.measures / "volumes.csv"
    else:
        table = folder / "volumes.csv"
    if not (folder / TABLE).exists():
        raise WorkspaceError("there are no predictions, or they are not finished", where=folder,
                             fix="Run `megavox predict` first")
    listed = read_csv(folder / TABLE)
    rows = [_row(folder, read_json(folder / f"{line['case']}.json"), study.task.names)
            for line in track(listed, "measuring", total=len(listed))]
    write_csv(table, list(rows[0]), rows)
    return Measures(table, rows)


def _row(folder: Path, record: dict[str, Any], classes: list[str]) -> dict[str, Any]:
    """One line; a mask is read only when it is not the one that its voxels were counted in."""
    geometry = Geometry.from_dict(record["geometry"])
    spacing = geometry.spacing_zyx[1:] if geometry.size[2] == 1 else geometry.spacing_zyx
    if mask_as_written(folder, record) and list(record["voxels"]) == classes:
        volumes = {name: count * voxel_volume_mm3(spacing) for name, count in record["voxels"].items()}
    else:
        volumes = volumes_mm3(read_image(mask_path(folder, record["case"])).array[0], spacing, classes)
    return {"case": record["case"], "subject": record["subject"], "session": record["session"],
            **{f"{name} volume_mm3": round(value, 3) for name, value in volumes.items()},
            "calibrated": "yes" if geometry.calibrated else "no: the image has no spacing in mm"}

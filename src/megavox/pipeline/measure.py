"""measure: predictions -> a table of numbers with units."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from megavox.core.errors import StudyError, WorkspaceError
from megavox.core.files import read_json, write_csv
from megavox.core.progress import track
from megavox.images.formats import read_image
from megavox.images.geometry import Geometry
from megavox.measures.volume import volumes_mm3
from megavox.pipeline.project import Project


def measure(project: Project, folder: Path | None = None) -> list[dict[str, Any]]:
    """Volume in mm^3 of each class of every prediction, written to measures/volumes.csv.

    Args:
        project: a segment study.
        folder: predictions to measure; those of the study's test cases without it.

    Raises:
        StudyError: the task has no volumes. WorkspaceError: nothing was predicted.
    """
    study = project.study
    if study.task.kind != "segment":
        raise StudyError("a classification has no volumes to measure", where="task.kind", expected="segment")
    folder = folder or project.workspace.predictions(project.run_name)
    records = sorted(folder.glob("*.json"))
    if not records:
        raise WorkspaceError("there are no predictions", where=folder, fix="Run `megavox predict` first")
    rows = []
    for path in track(records, "measuring", total=len(records)):
        record = read_json(path)
        geometry = Geometry.from_dict(record["geometry"])
        labels = read_image(path.with_suffix(".nii.gz")).array[0]
        volumes = volumes_mm3(labels, geometry.spacing_zyx[-labels.ndim:], study.task.names)
        rows.append({"case": record["case"], "subject": record["subject"], "session": record["session"],
                     **{f"{name} volume_mm3": round(value, 3) for name, value in volumes.items()},
                     "calibrated": "yes" if geometry.calibrated else "no: the image has no spacing in mm"})
    write_csv(project.workspace.measures / "volumes.csv", list(rows[0]), rows)
    return rows

"""evaluate: the test cases, predicted from their files and held against their targets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from megavox.batches.samples import class_target
from megavox.cohort.case import Case
from megavox.cohort.drawn import one_mask_a_class
from megavox.core.errors import CohortError, WorkspaceError
from megavox.core.files import plain, write_csv, write_json
from megavox.core.progress import busy, track
from megavox.images.formats import read_image
from megavox.images.geometry import Geometry
from megavox.inference.cohort import CohortOutcome
from megavox.inference.recipe import Recipe
from megavox.pipeline.predict import predict
from megavox.pipeline.project import Project
from megavox.store.pack import class_numbers, read_mask
from megavox.tasks.candidates import Candidates
from megavox.tasks.registry import Task, build_task


@dataclass(frozen=True)
class Evaluated:
    """What evaluation gave.

    Attributes:
        summary: the table of figures, see `measures.summary`.
        rows: one a case, to segment one a case and class.
        calibrated: whether every image has a spacing in mm; without it "mm" means pixels.
        predicted: the predictions that were evaluated.
    """

    summary: dict[str, Any]
    rows: list[dict[str, Any]]
    calibrated: bool
    predicted: CohortOutcome


def evaluate(project: Project) -> Evaluated:
    """Figures of the run's best weights on the test part, each with its interval over subjects.

    Segmentations are compared on the grid that the images came on.

    Raises:
        CohortError: there is no test case. WorkspaceError: another command is predicting some.
    """
    cases = {entry.case.name: entry.case for entry in project.entries() if entry.part == "test"}
    if not cases:
        raise CohortError("no case stands in the test part", where=project.workspace.splits,
                          fix="Set split.test above 0 and pack again")
    recipe = Recipe.read(project.run.recipe)
    project.refuse_other_split(recipe)
    trained = project.run.done.exists()  # before the prediction: a training may be going on
    outcome = predict(project)
    if outcome.elsewhere:
        raise WorkspaceError(f"{outcome.elsewhere} test cases are being predicted by another command",
                             where=outcome.folder, fix="Run `megavox evaluate` again when that has ended")
    study = project.study
    task = build_task(study.task, [])
    rows = ROWS[study.task.kind](project, task, cases, outcome)
    calibration = recipe.calibration
    with busy("resampling subjects for intervals"):
        summary = task.summary(rows, seed=study.seed, resamples=study.evaluation.resamples,
                               thresholds=calibration.get("thresholds"))
    calibrated = all(row["geometry"]["calibrated"] for row in outcome.rows)
    write_json(project.run.evaluation, {
        "summary": summary, "calibration": calibration, "calibrated": calibrated,
        "training_ended": trained, "agreement": project.agreement(), "weights": outcome.rows[0]["weights"],
        "rows": rows, "rejected": [asdict(one) for one in outcome.rejected]})
    write_csv(project.run.evaluation_cases, list(rows[0]), [plain(row) for row in rows])
    return Evaluated(plain(summary), plain(rows), calibrated, outcome)


def _segment_rows(project: Project, task: Task, cases: dict[str, Case], outcome: CohortOutcome) -> list[dict[str, Any]]:
    section = project.study.task
    per_class = one_mask_a_class(project.study.cohort, section)  # type: ignore[arg-type]
    rows = []
    for row in track(outcome.rows, "measuring", total=len(outcome.rows)):
        case = cases[row["case"]]
        found = read_image(outcome.folder / f"{case.name}.nii.gz").array[0]
        geometry = Geometry.from_dict(row["geometry"])
        reference = read_mask(case, geometry, found.shape, section, per_class)
        spacing = geometry.spacing_zyx[-found.ndim:]
        for measured in task.measure(found, reference, spacing):  # type: ignore[attr-defined]
            rows.append({"case": case.name, "subject": case.subject, **measured})
    return rows


def _detect_rows(project: Project, task: Task, cases: dict[str, Case], outcome: CohortOutcome) -> list[dict[str, Any]]:
    rows = []
    for row in outcome.rows:
        case, found = cases[row["case"]], Candidates.of(row["candidates"])
        marks = task.marks(found, case.findings or ())  # type: ignore[attr-defined]
        rows.append({"case": case.name, "subject": case.subject, **marks})
    return rows


def _classify_rows(project: Project, task: Task, cases: dict[str, Case],
                   outcome: CohortOutcome) -> list[dict[str, Any]]:
    rows = []
    for row in outcome.rows:
        case = cases[row["case"]]
        target = class_target(*class_numbers(case, project.study.task), task.outputs)
        rows.append({"case": case.name, "subject": case.subject, "probabilities": row["probabilities"],
                     "target": np.asarray(target, float).tolist(), "decision": row["decision"]})
    return rows


ROWS: dict[str, Callable[[Project, Task, dict[str, Case], CohortOutcome], list[dict[str, Any]]]] = {
    "segment": _segment_rows, "classify": _classify_rows, "detect": _detect_rows}

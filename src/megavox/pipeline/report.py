"""report: everything that was done, as one folder that opens from disk."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from megavox.cohort.drawn import one_mask_a_class
from megavox.cohort.table import Entry
from megavox.core.errors import MegavoxError, WorkspaceError
from megavox.core.files import read_csv, read_json
from megavox.core.progress import busy
from megavox.images.balls import ball
from megavox.images.formats import read_image
from megavox.images.geometry import Geometry
from megavox.images.image import Image
from megavox.images.reorient import to_lps
from megavox.inference.agreement import Agreement
from megavox.inference.recipe import Recipe, called_above
from megavox.pipeline.predict import weights_hash
from megavox.pipeline.project import Project
from megavox.report.content import (
    CaseView,
    Headline,
    ReportContent,
    classification_case_rows,
    detection_case_rows,
    segmentation_case_rows,
)
from megavox.report.page import write_report
from megavox.store.pack import read_channels, read_mask

HEADLINES = {"segment": (("Mean Dice", "dice", ""), ("Hausdorff 95", "hausdorff95_mm", "mm"),
                         ("Surface distance", "surface_distance_mm", "mm")),
             "detect": (("Partial area", "partial_area", ""), ("Mean sensitivity", "mean_sensitivity", ""),
                        ("Sensitivity at 1 false positive a case", "sensitivity_at_1", "")),
             "classify": (("AUROC", "auroc", ""), ("Accuracy", "accuracy", ""),
                          ("Balanced accuracy", "balanced_accuracy", ""), ("Calibration error", "ece", ""))}


def report(project: Project) -> Path:
    """Write the report of the project's run.

    Returns:
        The path of index.html.

    Raises:
        WorkspaceError: the run was not evaluated, or not as it is now.
    """
    if not project.run.evaluation.exists():
        raise WorkspaceError("this run was not evaluated yet", where=project.run.root,
                             fix="Run `megavox evaluate` first")
    if read_json(project.run.evaluation)["weights"] != weights_hash(project):
        raise WorkspaceError("this run was trained further, or is used in another way, since it was evaluated",
                             where=project.run.evaluation, fix="Run `megavox evaluate` again")
    with busy("drawing the report"):
        return write_report(project.workspace.report, content_of(project))


def headlines(project: Project, summary: dict[str, Any], calibrated: bool) -> list[Headline]:
    """The few numbers that answer the study's question; lengths are in pixels where images have no mm."""
    kind = project.study.task.kind
    if kind == "segment":
        found = [Headline(label, summary["all"][key]["mean"], unit if calibrated or not unit else "pixels")
                 for label, key, unit in HEADLINES[kind]]
        return found[:1] + [Headline(f"Dice {name}", summary["classes"][name]["dice"]["mean"])
                            for name in project.study.task.names[:4]] + found[1:]
    return [Headline(label, summary["headline"][key], unit) for label, key, unit in HEADLINES[kind]]


def content_of(project: Project) -> ReportContent:
    """Gather what the report shows."""
    study, workspace = project.study, project.workspace
    evaluation = read_json(project.run.evaluation)
    recipe = Recipe.read(project.run.recipe)
    project.refuse_other_split(recipe)
    entries = project.entries()
    kind = study.task.kind
    if kind == "segment":
        case_rows = segmentation_case_rows(evaluation["rows"])
    elif kind == "detect":
        case_rows = detection_case_rows(evaluation["rows"], called_above(recipe))
    else:
        case_rows = classification_case_rows([_known(row) for row in evaluation["rows"]], study.task.names,
                                             study.task.multilabel,  # type: ignore[union-attr]
                                             evaluation["calibration"].get("thresholds"))
    volumes = workspace.measures / "volumes.csv"
    return ReportContent(
        study_name=study.name, kind=kind, classes=study.task.names,  # type: ignore[arg-type]
        headline=headlines(project, evaluation["summary"], evaluation["calibrated"]),
        cohort=_cohort_rows(project, entries),
        parts=_parts(project, entries), derived=recipe.derived,
        curve=_curve(project.run.metrics),
        evaluation=evaluation["summary"], cases=_views(project, entries, case_rows), case_rows=case_rows,
        quarantine=[*read_csv(workspace.quarantine), *evaluation["rejected"]],
        measures=list(read_csv(volumes)) if kind == "segment" and volumes.exists() else [],
        notes=_notes(evaluation), provenance=recipe.provenance)


def _curve(path: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl; torn ones, which a kill leaves, are passed over."""
    lines = []
    for text in path.read_text().splitlines() if path.exists() else []:
        with suppress(ValueError):
            lines.append(json.loads(text))
    return [line for line in lines if isinstance(line, dict) and "step" in line]


def _known(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "target": [np.nan if value is None else value for value in row["target"]]}


def _notes(evaluation: dict[str, Any]) -> list[str]:
    calibration, notes = evaluation["calibration"], []
    if not evaluation["training_ended"]:
        notes.append("The training had not ended when this was evaluated: the figures are of its best weights so far.")
    agreed = evaluation["agreement"]
    if agreed is not None and agreed["enough"]:
        notes.append("Predicted in the faster, inexact setting that the study asks for (inference.fast): "
                     f"{Agreement(**agreed['agreement']).sentence()}.")
    if "threshold" in calibration:
        notes.append(f"Candidates are called above a score of {calibration['threshold']:.3f}, where the validation "
                     "cases have one false positive a case.")
    elif calibration:
        thresholds = ", ".join(f"{value:.3f}" for value in calibration["thresholds"])
        text = f"Probabilities are rescaled by the temperature {calibration['temperature']:.3f}"
        text += f" and decisions are taken at {thresholds}" if thresholds else ""
        notes.append(f"{text}; both were chosen on the validation cases, never on the test cases.")
    elif not evaluation["calibrated"]:
        notes.append("Some images have no spacing in mm: what is called mm and mm³ here counts pixels.")
    return notes


def _cohort_rows(project: Project, entries: Sequence[Entry]) -> list[tuple[str, str]]:
    from megavox.cohort.survey import Fingerprint, Survey

    facts = Fingerprint.from_dict(project.packing()["fingerprint"])
    sets_aside = len(read_csv(project.workspace.quarantine))
    return [("packed", f"{len(entries)} cases of {len({e.case.subject for e in entries})} subjects; "
             f"{sets_aside} set aside"), *[row for row in Survey(facts).to_table() if row[0] != "cases"]]


def _parts(project: Project, entries: Sequence[Entry]) -> dict[str, dict[str, int]]:
    records = project.store().records
    parts: dict[str, dict[str, int]] = {}
    for part in ("train", "validation", "test"):
        chosen = [entry for entry in entries if entry.part == part]
        counts = {"cases": len(chosen), "subjects": len({entry.case.subject for entry in chosen})}
        for number, name in enumerate(project.study.task.names):
            found = [records[entry.key] for entry in chosen]
            counts[name] = sum(number in one.classes if one.classes is not None else one.voxels[number] > 0
                               for one in found)
        parts[part] = counts
    return parts


def _views(project: Project, entries: Sequence[Entry], rows: list[dict[str, Any]]) -> list[CaseView]:
    """Worst, median and best test case; a case whose files have gone is left out."""
    scored = [row for row in rows if row["score"] is not None]
    if not scored:
        return []
    by_name = {entry.case.name: entry for entry in entries}
    chosen = {"worst": scored[0], "median": scored[len(scored) // 2], "best": scored[-1]}
    views = []
    for title, row in chosen.items():
        try:
            views.append(_view(project, by_name[row["name"]], title, row))
        except (MegavoxError, OSError):
            continue
    return views


def _view(project: Project, entry: Entry, title: str, row: dict[str, Any]) -> CaseView:
    study = project.study
    image = read_channels(entry.case, study.images.grey)
    shape = image.array.shape[1:]
    reference = prediction = None
    if study.task.kind == "detect":
        reference, prediction, text = _worst_finding(project, entry, image, row)
    elif study.task.kind == "segment":
        labels = read_image(project.workspace.predictions(project.run_name) / f"{entry.case.name}.nii.gz").array[0]
        per_class = one_mask_a_class(study.cohort, study.task)
        masks = read_mask(entry.case, image.geometry, shape, study.task, per_class)
        reference, prediction = _turned(masks, image.geometry), _turned(labels.reshape(shape), image.geometry)
        text = f"mean Dice {row['score']:.3f}"
    else:
        text = f"{row['reference']}; predicted {row['predicted']}, with probability {row['score']:.2f} for the truth"
    turned = to_lps(Image(image.array[:1], image.geometry)) if image.spatial_dims == 3 else image
    return CaseView(entry.case.name, title, text, turned.array[0].astype(np.float32),
                    turned.geometry.spacing_zyx[-image.spatial_dims:], reference, prediction)


def _worst_finding(project: Project, entry: Entry, image: Image,
                   row: dict[str, Any]) -> tuple[np.ndarray | None, np.ndarray | None, str]:
    """The largest finding that was missed, or else the largest, as a ball beside what was called there."""
    findings = [one for one in entry.case.findings or () if one.counts]
    text = f"{len(row['found_mm'])} of {len(findings)} found, {row['false']} false positives"
    if not findings:
        return None, None, text
    missed = [one for one in findings if one.diameter_mm in row["missed_mm"]]
    shown = max(missed or findings, key=lambda one: one.diameter_mm)
    reference = np.zeros(image.array.shape[1:], np.uint8)
    reference[ball(image.geometry, reference.shape, shown.centre_mm, shown.diameter_mm)] = 1
    called = read_image(project.workspace.predictions(project.run_name) / f"{entry.case.name}.nii.gz").array[0]
    near = np.unique(called.reshape(reference.shape)[reference > 0])
    prediction = np.isin(called.reshape(reference.shape), near[near > 0]).astype(np.uint8)
    return _turned(reference, image.geometry), _turned(prediction, image.geometry), text


def _turned(labels: np.ndarray, geometry: Geometry) -> np.ndarray:
    if labels.ndim == 2:
        return labels
    return to_lps(Image(labels[None], geometry)).array[0]

"""Predicting many cases: whole outputs or none, continued after a kill, broken cases recorded."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from megavox.cohort.case import Case, Rejected, write_quarantine
from megavox.core.errors import ImageError, UnreadableImage, WorkspaceError
from megavox.core.exhausted import out_of_memory
from megavox.core.files import file_hash, make_folder, read_json, remove_unfinished, text_hash, write_csv, write_json
from megavox.core.progress import say, track
from megavox.core.provenance import provenance
from megavox.images.find import FoundImages, find_images
from megavox.images.nifti import write_nifti
from megavox.inference.predictor import Predictor
from megavox.measures.classification import called_classes
from megavox.store.pack import read_channels
from megavox.tasks.registry import Task

TABLE = "predictions.csv"


@dataclass(frozen=True)
class CohortOutcome:
    """What a cohort run gave.

    Attributes:
        folder: where the predictions are.
        rows: one JSON-able row a predicted case.
        rejected: what could not be predicted.
    """

    folder: Path
    rows: list[dict[str, Any]]
    rejected: list[Rejected]


def cases_in(folder: Path, channels: int) -> tuple[list[Case], list[Rejected]]:
    """Cases of any folder: NIfTI and raster files, DICOM series.

    Files `name_0000.nii.gz`, `name_0001.nii.gz`, ... are the channels of one case where the network
    takes several; a file that holds all channels is a case by itself.
    """
    found: FoundImages = find_images(folder)
    rejected = [Rejected.from_error(error, path.name, "", str(path)) for path, error in found.unusable]
    groups: dict[str, list[tuple[Path, ...]]] = {}
    names: dict[str, tuple[str, str]] = {}
    for image in found.images:
        name, _, number = image.name.rpartition("_")
        several = channels > 1 and len(number) == 4 and number.isdigit()
        key = f"{image.paths[0].parent}/{name if several else image.name}"
        groups.setdefault(key, []).append(image.paths)
        names[key] = (name if several else image.name, image.subject)
    counts = Counter(names[key][0] for key in groups)
    cases: list[Case] = []
    taken: set[str] = set()
    for key, files in groups.items():
        name, subject = names[key]
        if counts[name] > 1:  # one name in several sub-folders: their names tell them apart
            name = "_".join([*Path(key).relative_to(folder).parts[:-1], name])
        plain, times = name, 1
        while name.lower() in taken:  # a_b/x beside a/b/x
            times += 1
            name = f"{plain}-{times}"
        taken.add(name.lower())
        cases.append(Case(name, subject or name, "", tuple(files)))
    return cases, rejected


def predict_cases(predictor: Predictor, cases: Sequence[Case], folder: Path, weights: str,
                  rejected: Sequence[Rejected] = ()) -> CohortOutcome:
    """Predict cases into a folder; those done before with the same weights and input are kept.

    The table is written last and lists what belongs to this prediction: a folder without it is unfinished,
    and masks of an earlier prediction that it does not list are left where they are.

    Args:
        predictor: the run's network.
        cases: what to predict.
        folder: gets `<case>.nii.gz` (segment), `<case>.json`, `quarantine.csv` and `predictions.csv`.
        weights: identifies the weights; another value makes predictions anew.
        rejected: what was set aside before.
    """
    make_folder(folder, "Choose another --output")
    remove_unfinished(folder)
    (folder / TABLE).unlink(missing_ok=True)
    rows, bad = [], list(rejected)
    for case in track(cases, "predicting", total=len(cases)):
        try:
            rows.append(_predict_one(predictor, case, folder, weights))
        except (ImageError, MemoryError, RuntimeError) as error:
            if not isinstance(error, ImageError):
                if not out_of_memory(error):
                    raise
                error = UnreadableImage("there is not enough memory for this image", where=case.name, reason="memory")
            _remove_earlier(folder, case)
            bad.append(Rejected.from_error(error, case.name, case.subject, str(case.images[0][0])))
    names = {row["case"] for row in rows}
    older = [path for path in folder.glob("*.nii.gz") if path.name.removesuffix(".nii.gz") not in names]
    if older:
        say(f"note: {len(older)} masks in {folder} are of an earlier prediction, e.g. {older[0].name}; {TABLE} lists "
            "those of this one")
    write_quarantine(folder / "quarantine.csv", bad)
    _write_table(folder / TABLE, rows, predictor.task)
    return CohortOutcome(folder, rows, bad)


def _predict_one(predictor: Predictor, case: Case, folder: Path, weights: str) -> dict[str, Any]:
    record, mask = _outputs(folder, case)
    clock = _Clock()
    files = [path for channel in case.images for path in channel]
    digest = text_hash("".join(map(file_hash, files))) if all(path.exists() for path in files) else ""
    done = _done_before(record, mask)
    if done and done["weights"] == weights and done["input_hash"] == digest:
        return done
    clock.lap("hash")
    image = read_channels(case, predictor.recipe.preparation.grey)
    clock.lap("read")
    prediction = predictor.predict(image)
    clock.lap("predict")
    row = {"case": case.name, "subject": case.subject, "session": case.session, "files": [str(p) for p in files],
           "input_hash": digest, "weights": weights, "run": predictor.recipe.run,
           "geometry": prediction.geometry.to_dict()}
    if prediction.labels is not None:
        write_nifti(mask, prediction.labels[None], prediction.geometry)
        row["output_hash"] = file_hash(mask)
        row["voxels"] = {name: int((prediction.labels == number).sum())
                         for number, name in enumerate(predictor.task.classes, 1)}
    else:
        assert prediction.probabilities is not None and prediction.logits is not None
        row["probabilities"] = prediction.probabilities.tolist()
        row["logits"] = prediction.logits.tolist()
        row["decision"] = _decision(prediction.probabilities, predictor)
    clock.lap("write")
    row["seconds"] = clock.laps
    row["provenance"] = provenance(str(predictor.recipe.provenance.get("study_hash", "")), predictor.recipe.study.seed)
    write_json(record, row)
    return read_json(record)


def _done_before(record: Path, mask: Path) -> dict[str, Any] | None:
    """The record of a finished case: whole, and its mask (if it has one) as it was written."""
    try:
        row = read_json(record)
    except WorkspaceError:
        return None
    if "output_hash" in row and not (mask.exists() and file_hash(mask) == row["output_hash"]):
        return None
    return row


def _remove_earlier(folder: Path, case: Case) -> None:
    """Remove what an earlier prediction, of other weights or another input, made of a case; nobody else's file."""
    record, mask = _outputs(folder, case)
    with suppress(WorkspaceError):
        if "input_hash" in read_json(record):
            mask.unlink(missing_ok=True)
            record.unlink()


def _outputs(folder: Path, case: Case) -> tuple[Path, Path]:
    """Where a case's record and its mask go."""
    return folder / f"{case.name}.json", folder / f"{case.name}.nii.gz"


def _decision(probabilities: np.ndarray, predictor: Predictor) -> list[str]:
    """Names of the classes that are called, by the thresholds chosen on validation cases."""
    called = called_classes(probabilities[None], predictor.recipe.study.task.multilabel,  # type: ignore[union-attr]
                            predictor.recipe.calibration.get("thresholds") or None)[0]
    return [name for name, yes in zip(predictor.task.classes, called, strict=True) if yes]


def _write_table(path: Path, rows: list[dict[str, Any]], task: Task) -> None:
    """One line a case: probabilities and the decision to classify, voxels of each class to segment."""
    names = [f"p {name}" for name in task.classes] + ["decision"] if task.kind == "classify" else \
        [f"{name} voxels" for name in task.classes]
    lines = []
    for row in rows:
        values = [*[f"{p:.6f}" for p in row["probabilities"]], ";".join(row["decision"])] \
            if task.kind == "classify" else list(row["voxels"].values())
        lines.append({"case": row["case"], "subject": row["subject"], "session": row["session"],
                      **dict(zip(names, values, strict=True)), "file": row["files"][0]})
    write_csv(path, ["case", "subject", "session", *names, "file"], lines)


class _Clock:
    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name] = round(now - self._last, 4)
        self._last = now

"""Predicting many cases: whole outputs or none, continued after a kill, broken cases recorded."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from megavox.cohort.case import Case, Rejected
from megavox.core.errors import ImageError, UnreadableImage, WorkspaceError
from megavox.core.files import file_hash, read_json, remove_unfinished, text_hash, write_csv, write_json
from megavox.core.progress import track
from megavox.core.provenance import provenance
from megavox.images.find import FoundImages, find_images
from megavox.images.nifti import write_nifti
from megavox.inference.predictor import Predictor
from megavox.store.pack import read_channels

QUARANTINE = ("case", "subject", "file", "reason", "message")


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
    plain = [names[key][0] for key in groups]
    cases = []
    for key, files in groups.items():
        name, subject = names[key]
        if plain.count(name) > 1:  # one name in several sub-folders: their names tell them apart
            name = "_".join([*Path(key).relative_to(folder).parts[:-1], name])
        cases.append(Case(name, subject or name, "", tuple(files)))
    return cases, rejected


def predict_cases(predictor: Predictor, cases: Sequence[Case], folder: Path, weights: str,
                  rejected: Sequence[Rejected] = ()) -> CohortOutcome:
    """Predict cases into a folder; those done before with the same weights and input are kept.

    Args:
        predictor: the run's network.
        cases: what to predict.
        folder: gets `<case>.nii.gz` (segment), `<case>.json`, `predictions.csv` (classify) and
            `quarantine.csv`.
        weights: identifies the weights; another value makes predictions anew.
        rejected: what was set aside before.
    """
    folder.mkdir(parents=True, exist_ok=True)
    remove_unfinished(folder)
    rows, bad = [], list(rejected)
    for case in track(cases, "predicting", total=len(cases)):
        try:
            rows.append(_predict_one(predictor, case, folder, weights))
        except (ImageError, MemoryError, RuntimeError) as error:
            if not isinstance(error, ImageError):
                if not _out_of_memory(error):
                    raise
                error = UnreadableImage("there is not enough memory for this image", where=case.name, reason="memory")
            bad.append(Rejected.from_error(error, case.name, case.subject, str(case.images[0][0])))
    write_csv(folder / "quarantine.csv", QUARANTINE, map(asdict, bad))
    if predictor.task.kind == "classify":
        _write_table(folder / "predictions.csv", rows, predictor.task.classes)
    return CohortOutcome(folder, rows, bad)


def _predict_one(predictor: Predictor, case: Case, folder: Path, weights: str) -> dict[str, Any]:
    record, mask = folder / f"{case.name}.json", folder / f"{case.name}.nii.gz"
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
        row["decision"] = decide(prediction.probabilities, predictor)
    clock.lap("write")
    row["seconds"] = clock.laps
    row["provenance"] = provenance(str(predictor.recipe.provenance.get("study_hash", "")), predictor.recipe.study.seed)
    write_json(record, row)
    return read_json(record)


def _out_of_memory(error: Exception) -> bool:
    """Whether an allocation failed; PyTorch says so in a RuntimeError of either allocator."""
    return isinstance(error, MemoryError) or "out of memory" in str(error) or "can't allocate memory" in str(error)


def _done_before(record: Path, mask: Path) -> dict[str, Any] | None:
    """The record of a finished case: whole, and its mask (if it has one) as it was written."""
    try:
        row = read_json(record)
    except WorkspaceError:
        return None
    if "output_hash" in row and not (mask.exists() and file_hash(mask) == row["output_hash"]):
        return None
    return row


def decide(probabilities: np.ndarray, predictor: Predictor) -> list[str]:
    """Names of the classes that are called, by the thresholds chosen on validation cases."""
    classes = predictor.task.classes
    thresholds = predictor.recipe.calibration.get("thresholds") or []
    if predictor.recipe.study.task.multilabel:  # type: ignore[union-attr]
        limits = thresholds or [0.5] * len(classes)
        return [name for name, p, t in zip(classes, probabilities, limits, strict=True) if p >= t]
    if len(classes) == 2:
        return [classes[int(probabilities[1] >= (thresholds or [0.5])[0])]]
    return [classes[int(np.argmax(probabilities))]]


def _write_table(path: Path, rows: list[dict[str, Any]], classes: list[str]) -> None:
    columns = ["case", "subject", "session", *[f"p {name}" for name in classes], "decision", "file"]
    write_csv(path, columns, [
        {"case": row["case"], "subject": row["subject"], "session": row["session"],
         "decision": ";".join(row["decision"]), "file": row["files"][0],
         **{f"p {name}": f"{p:.6f}" for name, p in zip(classes, row["probabilities"], strict=True)}} for row in rows])


class _Clock:
    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name] = round(now - self._last, 4)
        self._last = now

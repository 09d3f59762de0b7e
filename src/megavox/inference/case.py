"""One case: opened, predicted, written. Each step may run in a thread of its own."""

from __future__ import annotations

import errno
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from megavox.cohort.case import Case, Rejected
from megavox.core.errors import ImageError, UnreadableImage
from megavox.core.exhausted import out_of_memory
from megavox.core.provenance import provenance
from megavox.images.image import Image
from megavox.inference.recipe import Recipe, called_above
from megavox.inference.records import (
    Failure,
    Row,
    State,
    content_hash,
    done_by_content,
    input_files,
    states,
    write_mask,
    write_record,
)
from megavox.measures.classification import called_classes
from megavox.store.pack import read_channels

if TYPE_CHECKING:
    from megavox.inference.predictor import Prediction

_OF_SYSTEM = {errno.ENOENT, errno.ENOTDIR, errno.ENXIO, errno.EIO, errno.EACCES, errno.EPERM, errno.ESTALE,
              errno.ETIMEDOUT, errno.EMFILE, errno.ENFILE,
              errno.ENOTCONN, errno.EBUSY, errno.EAGAIN, errno.EREMOTEIO, errno.EHOSTDOWN, errno.ECONNRESET}


@dataclass
class Opened:
    """A case that was read.

    Attributes:
        case: which.
        image: all channels joined.
        input_hash, input_states: of its files.
        seconds: of each step so far.
        bytes: size of the image in memory.
    """

    case: Case
    image: Image
    input_hash: str
    input_states: list[State]
    seconds: dict[str, float] = field(default_factory=dict)
    bytes: int = 0


def open_case(case: Case, folder: Path, weights: str, grey: bool) -> Opened | Row:
    """Read a case; its row instead where its content says that it is done.

    Raises:
        ImageError: a file is unusable, or the channels do not fit together.
    """
    clock = time.perf_counter()
    found = states(input_files(case))  # before reading: what changes meanwhile is another file
    digest = content_hash(case)
    row = done_by_content(folder, case, weights, digest, found)
    if row is not None:
        return row
    hashed = time.perf_counter()
    image = read_channels(case, grey)
    seconds = {"hash": round(hashed - clock, 4), "read": round(time.perf_counter() - hashed, 4)}
    return Opened(case, image, digest, found, seconds, image.array.nbytes)


def write_case(opened: Opened, prediction: Prediction, folder: Path, weights: str, recipe: Recipe) -> Row:
    """Write a prediction, mask first and record last.

    Raises:
        MachineError: the disk is full.
    """
    case, clock = opened.case, time.perf_counter()
    record: dict[str, Any] = {
        "case": case.name, "subject": case.subject, "session": case.session,
        "files": [str(path) for path in input_files(case)], "input_hash": opened.input_hash,
        "input_states": opened.input_states, "weights": weights, "run": recipe.run,
        "geometry": prediction.geometry.to_dict(), "setting": {
            **recipe.study.inference.model_dump(include={"engine", "overlap", "skip_air"}),
            "precision": recipe.precision, "mirror": list(recipe.mirror), "whole": recipe.whole}}
    if prediction.remarks:
        record["remarks"] = list(prediction.remarks)
    if prediction.labels is not None:
        record |= write_mask(folder, case.name, prediction.labels, prediction.geometry)
        if prediction.candidates is None:
            record["voxels"] = voxels(prediction.labels, recipe.study.task.names)
        else:
            record["candidates"] = prediction.candidates.rows()
            record["called"] = int((prediction.candidates.scores > called_above(recipe)).sum())
    else:
        assert prediction.probabilities is not None and prediction.logits is not None
        record["probabilities"] = prediction.probabilities.tolist()
        record["logits"] = prediction.logits.tolist()
        record["decision"] = _decision(prediction.probabilities, recipe)
    record["seconds"] = {**opened.seconds, "write": round(time.perf_counter() - clock, 4)}
    record["provenance"] = provenance(str(recipe.provenance.get("study_hash", "")), recipe.study.seed)
    return write_record(folder, case, record)


def voxels(labels: np.ndarray, classes: Sequence[str]) -> dict[str, int]:
    """How many voxels each class has."""
    counts = np.bincount(labels.ravel(), minlength=len(classes) + 1)
    return {name: int(counts[number]) for number, name in enumerate(classes, 1)}


def failure_of(error: BaseException, case: Case) -> Failure:
    """Why a case could not be predicted, from what was raised."""
    first = str(case.images[0][0])
    if out_of_memory(error):
        found = UnreadableImage("there is not enough memory for this image", where=case.name, reason="memory",
                                fix="Give the command more memory; on a GPU lower inference.batch")
        return Failure(Rejected.from_error(found, case.name, case.subject, first), of_image=False, for_memory=True)
    if isinstance(error, ImageError):
        return Failure(Rejected.from_error(error, case.name, case.subject, first), not _of_system(error))
    text = f"{type(error).__name__}: {error}".strip(": ")
    rejected = Rejected(case.name, case.subject, first, "unexpected error", f"{case.name}: {text}.")
    return Failure(rejected, of_image=False, trace="".join(traceback.format_exception(error)))


def _of_system(error: BaseException | None) -> bool:
    """Whether a disk, a network or a permission stood behind an error: the image may be sound."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _OF_SYSTEM:
            return True
        error = error.__cause__ or error.__context__
    return False


def _decision(probabilities: np.ndarray, recipe: Recipe) -> list[str]:
    """Names of the classes that are called, by the thresholds chosen on validation cases."""
    task = recipe.study.task
    called = called_classes(probabilities[None], task.multilabel,  # type: ignore[union-attr]
                            recipe.calibration.get("thresholds") or None)[0]
    return [name for name, yes in zip(task.names, called, strict=True) if yes]

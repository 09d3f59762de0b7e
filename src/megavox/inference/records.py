"""What a cohort's folder holds of each case: that it is done, or set aside and why.

    <case>.json            written last: the case is done; with the state and hashes of its files
    <case>.nii.gz          its mask
    set_aside/<case>.json  it could not be predicted, and why; <case>.txt has the traceback where there is one
    predictions.csv, quarantine.csv   written when every case is one or the other

A case is done while its files and its mask have the size and the time of change that the record names:
nothing is read to know that. Where they differ, their content decides.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from megavox.cohort.case import Case, Rejected
from megavox.core.errors import WorkspaceError
from megavox.core.files import file_hash, read_json, text_hash, write_csv, write_json, write_text
from megavox.core.provenance import code_version
from megavox.images.formats import all_files
from megavox.images.geometry import Geometry
from megavox.images.nifti import write_nifti

TABLE = "predictions.csv"
QUARANTINE = "quarantine.csv"
ASIDE = "set_aside"
CANDIDATES = "candidates.csv"
_MARKS = {"classify": "probabilities", "segment": "voxels", "detect": "candidates"}  # what only its records have
_ROW = ("case", "subject", "session", "files", "weights", "geometry", "voxels", "probabilities", "logits", "decision",
        "candidates", "called")

Row = dict[str, Any]
State = list[int] | None  # size in bytes and time of change in ns; None: no such file


def input_files(case: Case) -> list[Path]:
    """All files of a case's images."""
    return all_files([path for channel in case.images for path in channel])


def states(paths: Iterable[Path]) -> list[State]:
    """Size and time of change of each file."""
    return [_state(path) for path in paths]


def content_hash(case: Case) -> str:
    """Hash of all files of a case, which are read for it; "" where one is missing."""
    files = input_files(case)
    return text_hash("".join(map(file_hash, files))) if all(path.exists() for path in files) else ""


def mask_path(folder: Path, name: str) -> Path:
    """Where the mask of a case goes."""
    return folder / f"{name}.nii.gz"


# ------------------------------------------------------------------ done


def done_row(folder: Path, case: Case, weights: str) -> Row | None:
    """The row of a case that is done with these weights, by the state of its files alone."""
    record = _record(folder, case.name)
    if record is None or record.get("weights") != weights or "input_states" not in record:
        return None
    files = input_files(case)
    if record["files"] != [str(path) for path in files] or record["input_states"] != states(files):
        return None
    if "output_hash" in record and record.get("output_state") != _state(mask_path(folder, case.name)):
        return None
    return _row(record, case)


def done_by_content(folder: Path, case: Case, weights: str, input_hash: str, input_states: list[State]) -> Row | None:
    """The row of a case that is done, by the content of its files; their state is then noted anew."""
    record, mask = _record(folder, case.name), mask_path(folder, case.name)
    if record is None or record.get("weights") != weights or record.get("input_hash") != input_hash:
        return None
    if "output_hash" in record:
        state = _state(mask)
        if state is None or file_hash(mask) != record["output_hash"]:
            return None
        record["output_state"] = state
    record.update(files=[str(path) for path in input_files(case)], input_states=input_states)
    return write_record(folder, case, record)


def check_mine(folder: Path, case: Case, kind: str) -> None:
    """That what the folder holds under a case's name may be replaced.

    Args:
        kind: of the task.

    Raises:
        WorkspaceError: it is the prediction of another image, which is still where it was, or of another task.
    """
    record = _record(folder, case.name)
    if record is None or "input_hash" not in record:
        return
    before, files = record["files"], [str(path) for path in input_files(case)]
    if [mark for mark in _MARKS.values() if mark in record] != [_MARKS[kind]]:
        what = "the prediction of another task"
    elif before != files and all(map(os.path.exists, before)) and _other_content(case, record["input_hash"]):
        what = f"the prediction of another image, {before[0]}"
    else:
        return
    raise WorkspaceError(f"it holds under the name {case.name} {what}", where=folder,
                         fix="Choose another --output, or remove that folder if it is not wanted any more")


def _other_content(case: Case, before: str) -> bool:
    """Whether a case's files hold something else; files that cannot be read are set aside later."""
    try:
        return content_hash(case) not in ("", before)
    except OSError:
        return False


def write_mask(folder: Path, name: str, labels: np.ndarray, geometry: Geometry) -> dict[str, Any]:
    """Write the mask of a case, class numbers `(Z, Y, X)` or `(Y, X)`; returns what its record says of the file."""
    mask = mask_path(folder, name)
    write_nifti(mask, labels[None], geometry)
    return {"output_hash": file_hash(mask), "output_state": _state(mask)}


def write_record(folder: Path, case: Case, record: dict[str, Any]) -> Row:
    """Write what says that a case is done, the last of its files; returns its row."""
    write_json(folder / f"{case.name}.json", record)
    return _row(record, case)


def mask_as_written(folder: Path, record: dict[str, Any]) -> bool:
    """Whether the mask of a record has the size and the time of change that it had when it was written."""
    return "output_state" in record and record["output_state"] == _state(mask_path(folder, record["case"]))


def forget(folder: Path, name: str) -> None:
    """Remove what an earlier prediction, of other weights or another input, made of a case; nobody else's file."""
    if "input_hash" in (_record(folder, name) or {}):
        mask_path(folder, name).unlink(missing_ok=True)
        (folder / f"{name}.json").unlink()


def _record(folder: Path, name: str) -> dict[str, Any] | None:
    """A case's record; None where there is none, or a damaged one."""
    with suppress(WorkspaceError):
        found = read_json(folder / f"{name}.json")
        return found if isinstance(found, dict) else None
    return None


def _row(record: dict[str, Any], case: Case) -> Row:
    """What tables and measures need of a record: of 50,000 the rest would fill the memory."""
    return {**{key: record[key] for key in _ROW if key in record}, "case": case.name, "subject": case.subject,
            "session": case.session}


def _state(path: Path) -> State:
    try:
        found = path.stat()
    except OSError:
        return None
    return [found.st_size, found.st_mtime_ns]


# ------------------------------------------------------------------ set aside


@dataclass(frozen=True)
class Failure:
    """Why a case could not be predicted.

    Attributes:
        rejected: what the quarantine table says.
        of_image: whether the image is at fault and will be again; else it may be the machine.
        for_memory: whether memory ran out.
        trace: the traceback of an error that nobody expected, or "".
    """

    rejected: Rejected
    of_image: bool
    for_memory: bool = False
    trace: str = ""


def set_aside(folder: Path, case: Case, failure: Failure, weights: str) -> None:
    """Note that a case cannot be predicted; what an earlier prediction made of another image of this name goes."""
    if failure.of_image:  # else what was made of it before may still be true
        forget(folder, case.name)
    if failure.trace:
        write_text(folder / ASIDE / f"{case.name}.txt", failure.trace)
    write_json(_aside(folder, case.name), {
        **asdict(failure.rejected), "of_image": failure.of_image, "weights": weights, "code": code_version(),
        "input_states": states(input_files(case))})


def take_back(folder: Path, name: str) -> None:
    """A case that was set aside before has been predicted."""
    for path in (_aside(folder, name), folder / ASIDE / f"{name}.txt"):
        path.unlink(missing_ok=True)


def aside_since(folder: Path, name: str) -> State:
    """When a case was set aside; None: it was not."""
    return _state(_aside(folder, name))


def aside_row(folder: Path, case: Case, weights: str, tried_before: State) -> Rejected | None:
    """The line of a case that is set aside and stays so.

    An image's fault stays while its files, the weights and the code are the same. What may have been the
    machine's is tried again, unless it was set aside since `tried_before`: by a command beside this one.
    """
    try:
        found = read_json(_aside(folder, case.name))
        if found["of_image"]:
            stays = (found["weights"], found["code"], found["input_states"]) == (
                weights, code_version(), states(input_files(case)))
        else:
            stays = found["weights"] == weights and aside_since(folder, case.name) != tried_before
        return Rejected(*(found[key] for key in ("case", "subject", "file", "reason", "message"))) if stays else None
    except (WorkspaceError, KeyError, TypeError):
        return None


def _aside(folder: Path, name: str) -> Path:
    return folder / ASIDE / f"{name}.json"


# ------------------------------------------------------------------ tables


def write_table(path: Path, rows: Iterable[Row], kind: str, classes: Sequence[str]) -> None:
    """One line a case: probabilities and the decision to classify, voxels of each class to segment, how many were
    called to detect."""
    names = {"classify": [*[f"p {name}" for name in classes], "decision"],
             "segment": [f"{name} voxels" for name in classes], "detect": ["candidates", "called"]}[kind]
    write_csv(path, ["case", "subject", "session", *names, "file"], (_line(row, kind, names) for row in rows))


def _line(row: Row, kind: str, names: Sequence[str]) -> dict[str, Any]:
    values: list[Any]
    if kind == "classify":
        values = [*[f"{p:.6f}" for p in row["probabilities"]], ";".join(row["decision"])]
    else:
        values = list(row["voxels"].values() if kind == "segment" else (len(row["candidates"]), row["called"]))
    return {"case": row["case"], "subject": row["subject"], "session": row["session"],
            **dict(zip(names, values, strict=True)), "file": row["files"][0]}


def write_candidates(path: Path, rows: Iterable[Row]) -> None:
    """The candidates of all cases in the form of LUNA16, with a column for the diameter."""
    columns = ("seriesuid", "coordX", "coordY", "coordZ", "diameter_mm", "probability")
    write_csv(path, columns, (dict(zip(columns, (row["case"], *one), strict=True)) for row in rows
                              for one in row["candidates"]))

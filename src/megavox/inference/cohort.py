"""Predicting many cases: whole outputs or none, continued after a kill, broken cases recorded.

Several commands, on one machine or many, may predict into one folder: each case is claimed by one of them.
At its end each looks at what is missing, one after the other: the last to do so finds everything, and writes the
tables.
"""

from __future__ import annotations

import os
import platform
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from pathlib import Path

from megavox.cohort.case import Case, Rejected, write_quarantine
from megavox.core.claims import Claims
from megavox.core.files import make_folder, read_csv, refresh, remove_unfinished
from megavox.core.progress import say, track
from megavox.core.signals import Stop, Stopped
from megavox.images.find import FoundImages, find_images
from megavox.inference.recipe import Network
from megavox.inference.records import (
    ASIDE,
    CANDIDATES,
    QUARANTINE,
    TABLE,
    Failure,
    Row,
    State,
    aside_row,
    aside_since,
    check_mine,
    done_row,
    set_aside,
    take_back,
    write_candidates,
    write_table,
)
from megavox.inference.runner import Runner
from megavox.study.sections import TaskSection

CLAIMS = ".claims"
THE_END = "/the end/"  # claimed by one command at a time; no case has such a name
LABELS = ("labelsTr", "labelsTs")  # where Decathlon's and nnU-Net's layouts have masks
LOOK_AGAIN_S = 5.0  # after which other commands' claims are asked for again, while there is something else to wait for


@dataclass(frozen=True)
class CohortOutcome:
    """What a cohort run gave.

    Attributes:
        folder: where the predictions are.
        rows: one JSON-able row a predicted case, in the order of the cases.
        rejected: what could not be predicted.
        elsewhere: cases that other commands are predicting; the last of them writes the tables.
    """

    folder: Path
    rows: list[Row]
    rejected: list[Rejected]
    elsewhere: int = 0


def cases_in(folder: Path, channels: int, output: Path | None = None) -> tuple[list[Case], list[Rejected]]:
    """Cases of any folder: NIfTI and raster files, DICOM series.

    Files `name_0000.nii.gz`, `name_0001.nii.gz`, ... are the channels of one case where the network
    takes several; a file that holds all channels is a case by itself.

    Masks are no cases: what lies in a folder of predictions, and in `labelsTr` and `labelsTs`.

    Args:
        folder: or one file.
        output: a folder whose images are predictions.
    """
    @cache
    def predicted(place: Path) -> bool:
        return output is not None and place.resolve().is_relative_to(output.resolve())

    @cache
    def of_masks(place: Path) -> bool:
        return place not in (folder, folder.parent) and (place.name in LABELS or (place / CLAIMS).exists())

    found: FoundImages = find_images(folder)
    rejected = [Rejected.from_error(error, path.name, "", str(path)) for path, error in found.unusable
                if not predicted(path.parent) and not of_masks(path.parent)]
    masks = [image.paths[0] for image in found.images if of_masks(image.paths[0].parent)]
    if masks:
        say(f"note: {len(masks)} files are left out, since they lie among masks or predictions, e.g. {masks[0]}")
    groups: dict[tuple[Path, str, bool], list[tuple[Path, ...]]] = {}
    subjects: dict[tuple[Path, str, bool], str] = {}
    for image in found.images:
        if predicted(image.paths[0].parent) or of_masks(image.paths[0].parent):
            continue
        name, _, number = image.name.rpartition("_")
        several = channels > 1 and len(number) == 4 and number.isdigit()
        key = image.paths[0].parent, name if several else image.name, several
        groups.setdefault(key, []).append(image.paths)
        subjects[key] = image.subject
    counts = Counter(name for _, name, _ in groups)
    cases: list[Case] = []
    taken: set[str] = set()
    for key, files in groups.items():
        place, name, _ = key
        if counts[name] > 1:  # one name in several sub-folders: their names tell them apart
            name = "_".join([*place.relative_to(folder).parts, name])
        plain, times = name, 1
        while name.lower() in taken:  # a_b/x beside a/b/x
            times += 1
            name = f"{plain}-{times}"
        taken.add(name.lower())
        cases.append(Case(name, subjects[key] or name, "", tuple(files)))
    return cases, rejected


def predict_cases(network: Network, cases: Sequence[Case], folder: Path, rejected: Sequence[Rejected] = (),
                  workers: int | None = None) -> CohortOutcome:
    """Predict cases into a folder; those done before with the same weights and input are kept.

    The tables are written last and list what belongs to this prediction: a folder without them is unfinished,
    and masks of an earlier prediction that they do not list are left where they are.

    Args:
        network: what to predict with.
        cases: what to predict.
        folder: gets what `inference.records` describes.
        rejected: what was set aside before.
        workers: processes; None for as many as cores and memory allow.

    Raises:
        MachineError: the folder cannot be written, or the disk is full.
        WorkspaceError: the folder holds predictions of other images with the same names, or of another task.
        Stopped: a signal asked to stop.
    """
    make_folder(folder, "Choose another --output")
    with Stop("stopping") as stop, Claims(folder / CLAIMS) as claims:
        with claims.alone() as alone:
            if alone:
                _sweep(folder)
        book = _Book(network, cases, folder, claims)
        book.look(in_order=alone)
        (folder / TABLE).unlink(missing_ok=True)
        try:
            if book.open:
                runner = Runner(network, folder, book.next_case, len(cases), workers)
                for case, ended in track(runner.run(stop.check), "predicting", total=len(book.open)):
                    book.enter(case, ended)
        except Stopped as stopped:
            raise Stopped(f"stopped; {len(book.rows)} of {len(cases)} cases are predicted in {folder} and the same "
                          "command goes on with the others", stopped.status) from None
        finally:
            with claims.alone() as alone:
                if alone:
                    _sweep(folder)
        with claims.waiting_for(THE_END):
            book.look_at_others()
            rows = [book.rows[case.name] for case in cases if case.name in book.rows]
            bad = [*rejected, *(book.aside[case.name] for case in cases if case.name in book.aside)]
            elsewhere = len(cases) - len(book.rows) - len(book.aside)
            if not elsewhere:
                _remark_older(folder, book.rows)
                _write_tables(folder, rows, bad, network.recipe.study.task)
    return CohortOutcome(folder, rows, bad, elsewhere)


def read_outcome(folder: Path) -> CohortOutcome:
    """What a prediction that has ended gave, as its tables say: for whoever did not predict all of it himself.

    Raises:
        WorkspaceError: there are no tables; the prediction has not ended.
    """
    refresh(folder)  # other machines wrote them
    rows = read_csv(folder / TABLE)
    return CohortOutcome(folder, list(rows), [Rejected(**row) for row in read_csv(folder / QUARANTINE)])


class _Book:
    """Which cases are done, set aside, open, or claimed by other commands."""

    def __init__(self, network: Network, cases: Sequence[Case], folder: Path, claims: Claims) -> None:
        self._weights, self._cases, self._folder, self._claims = network.weights, cases, folder, claims
        self._kind = network.recipe.study.task.kind
        self.rows: dict[str, Row] = {}
        self.aside: dict[str, Rejected] = {}
        self.open: deque[Case] = deque()
        self._elsewhere: deque[Case] = deque()
        self._asked, self._claimed = -LOOK_AGAIN_S, 0
        self._aside_before: dict[str, State] = {}

    def look(self, in_order: bool) -> None:
        """Look at every case. Where other commands are at work, each begins in another place of the list."""
        for case in track(self._cases, "looking", total=len(self._cases)):
            self._aside_before[case.name] = aside_since(self._folder, case.name)
            if not self._settled(case):
                check_mine(self._folder, case, self._kind)
                self.open.append(case)
        if not in_order and self.open:
            me = f"{platform.node()} {os.getpid()}".encode()
            self.open.rotate(-(int.from_bytes(blake2b(me, digest_size=4).digest()) % len(self.open)))

    def next_case(self) -> Case | None:
        """Claim another case; None where none is left that can be claimed now."""
        while self.open:
            case = self.open.popleft()
            if self._claim(case):
                return case
        if self._claimed and time.monotonic() < self._asked + LOOK_AGAIN_S:
            return None
        for _ in range(len(self._elsewhere)):
            case = self._elsewhere.popleft()
            if self._claim(case):
                return case
        self._asked = time.monotonic()
        return None

    def _claim(self, case: Case) -> bool:
        if not self._claims.take(case.name):
            self._elsewhere.append(case)
            return False
        if self._settled(case):  # meanwhile, by another command
            self._claims.release(case.name)
            return False
        self._claimed += 1
        return True

    def look_at_others(self) -> None:
        """Take in what others have done by now, by what the folder holds: whether they claim it still is no matter."""
        if self._elsewhere:
            refresh(self._folder)
        for case in self._elsewhere:
            self._settled(case)

    def enter(self, case: Case, ended: Row | Failure) -> None:
        """Note how a case ended, and give it free."""
        if isinstance(ended, Failure):
            set_aside(self._folder, case, ended, self._weights)
            self.aside[case.name] = ended.rejected
        else:
            take_back(self._folder, case.name)
            self.rows[case.name] = ended
        self._claims.release(case.name)
        self._claimed -= 1

    def _settled(self, case: Case) -> bool:
        row = done_row(self._folder, case, self._weights)
        if row is not None:
            self.rows[case.name] = row
            return True
        rejected = aside_row(self._folder, case, self._weights, self._aside_before.get(case.name))
        if rejected is not None:
            self.aside[case.name] = rejected
        return rejected is not None


def _write_tables(folder: Path, rows: Sequence[Row], rejected: Sequence[Rejected], task: TaskSection) -> None:
    write_quarantine(folder / QUARANTINE, rejected)
    if task.kind == "detect":
        write_candidates(folder / CANDIDATES, rows)
    write_table(folder / TABLE, rows, task.kind, task.names)  # the last: it says that all is done


def _sweep(folder: Path) -> None:
    """Remove what killed processes left half-written."""
    for place in (folder, folder / ASIDE):
        remove_unfinished(place)


def _remark_older(folder: Path, rows: dict[str, Row]) -> None:
    """Say that masks of an earlier prediction lie in the folder."""
    masks = sorted(entry.name for entry in os.scandir(folder) if entry.name.endswith(".nii.gz"))
    older = [name for name in masks if name.removesuffix(".nii.gz") not in rows and not name.startswith(".")]
    if older:
        say(f"note: {len(older)} masks in {folder} are of an earlier prediction, e.g. {older[0]}; {TABLE} lists "
            "those of this one")

"""A training that is tried in the way that was told to fit, and in another one where memory runs out all the same."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from megavox.core.errors import MachineError, WorkspaceError
from megavox.core.files import read_json, write_json
from megavox.core.progress import say
from megavox.core.workspace import RunFolder
from megavox.memory.available import forget_most, private_bytes
from megavox.memory.planner import CONTEXT_GB, chosen
from megavox.pipeline.fit import Fit, as_asked, fit_here, limit_gb, main_memory_share_gb, told
from megavox.pipeline.project import Project
from megavox.study import Study
from megavox.training.parallel import Ranks

TRIES = 2  # to train, each in another way
LEANER = 0.9  # of what did not fit: the next way has to take so much less


@dataclass(frozen=True)
class Attempts:
    """What was told of a run's memory, and how it came out.

    Attributes:
        fit: with the way that is taken now.
        ran_out: a row for each way in which memory ran out all the same: `way`, `told_gb`, `taken_gb`, `said`.
        taken_gb: the most that a training took which came to its end; None before.
    """

    fit: Fit
    ran_out: list[dict[str, Any]]
    taken_gb: float | None = None

    def write(self, folder: RunFolder) -> None:
        """Write memory.json."""
        write_json(folder.memory, asdict(self))

    @classmethod
    def of(cls, folder: RunFolder) -> Attempts | None:
        """As memory.json has them; None before anything was told, and where it cannot be read."""
        value = _read(folder.memory, "fit")
        return cls(**value) if value else None


def fitted(project: Project, study: Study, here: Ranks) -> Fit | None:
    """How a training is computed: as this run was begun, or as `plan` chose, or else as is told now. None where the
    study wants it plain, fit or not, or a network cannot be followed.

    Raises:
        StudyError: nothing fits.
    """
    forget_most()
    if project.study.training.memory.compute == "plain":
        return None
    return here.from_first(_fitted(project, study, here) if here.first else None)


def _fitted(project: Project, study: Study, here: Ranks) -> Fit | None:
    begun, planned, asked = Attempts.of(project.run), _planned(project), as_asked(project, study)
    found = (begun.fit if begun else None, planned)
    fit = next((one for one in found if one and one.holds(project, asked, here)), None)
    if fit is None:
        given = bool(planned and planned.given and planned.is_of(project, asked, here.device.type))
        most = min(planned.limit_gb, limit_gb(asked, here.device)) if planned and given else None
        fit = fit_here(project, study, here, most)
    if fit is None:
        return None
    if begun is None or fit is not begun.fit:
        Attempts(fit, []).write(project.run)
    if fit.way != fit.found[0].way:
        say(f"computed {fit.way}{', as was planned' if fit is planned else ''}: {fit.why()}")
    return fit


def _planned(project: Project) -> Fit | None:
    """What `plan` chose in this workspace."""
    value = _read(project.workspace.plan, "memory")
    return value["memory"] if value else None


def _read(path: Path, key: str) -> dict[str, Any] | None:
    """A file with a `Fit`, or with null in its place; None where there is none, or none of this version."""
    if not path.exists():
        return None
    try:
        value = read_json(path)
        fit = value[key] and Fit.from_dict(value[key])
        if fit:
            fit.needs()
        return {**value, key: fit}
    except (WorkspaceError, KeyError, TypeError, AttributeError, StopIteration):
        say(f"note: {path} cannot be read, and is not used")
        return None


def another_way(project: Project, study: Study, here: Ranks, fit: Fit, error: MachineError) -> Fit | None:
    """Write down that memory ran out, and take the next way, once.

    Args:
        project: whose run it is.
        study: with every value derived.
        here: this rank among all.
        fit: with the way in which it ran out.
        error: that told so.

    Returns:
        With the next way; None where there is none, or where another rank has written it down already.

    Raises:
        StudyError: no way fits, as is told now.
    """
    before, least = Attempts.of(project.run), fit.needs().taken_gb
    if before is None or before.fit.way != fit.way:
        return None
    ran_out = [*before.ran_out, {"way": asdict(fit.way), "told_gb": least, "taken_gb": _taken_gb(here),
                                 "said": error.found}]
    forget_most()
    replace(before, ran_out=ran_out).write(project.run)
    if len(ran_out) >= TRIES:
        return None
    every = told(project, study, here, fit.limit_gb).found
    leaner = [one for one in every if one.taken_gb < LEANER * least]
    following = chosen(leaner, fit.limit_gb, main_memory_share_gb())
    if following is None:
        return None
    now = replace(fit, found=every, way=following.way)
    Attempts(now, ran_out).write(project.run)
    say(f"memory ran out computing it {fit.way}, though {least:.3g} GB of {fit.limit_gb:.3g} were told; from the last "
        f"checkpoint on it is computed {following.way}")
    return now


def came_out(project: Project, here: Ranks, fit: Fit) -> None:
    """Write down what a training took that came to its end, and say it beside what was told."""
    before, taken = Attempts.of(project.run), _taken_gb(here)
    if before is not None:
        replace(before, taken_gb=taken).write(project.run)
    say(f"memory: {fit.needs().taken_gb:.3g} GB were told for a step, {taken:.3g} GB were taken at the most")


def _taken_gb(here: Ranks) -> float:
    """The most that this process took, of the GPU or of main memory, since it was forgotten."""
    if here.device.type == "cuda":
        return torch.cuda.max_memory_reserved() / 1e9 + CONTEXT_GB
    return private_bytes()[0] / 1e9

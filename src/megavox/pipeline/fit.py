"""How a training is made to fit the memory that there is: what each way to compute it takes, and which is taken."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from megavox.core.errors import CannotBeTold, MegavoxError, StudyError
from megavox.core.files import text_hash
from megavox.core.progress import busy, say
from megavox.memory.machine import main_memory_gb
from megavox.memory.planner import CONTEXT_GB, Needs, Way, chosen, largest_patch, needs, ways
from megavox.memory.rules import Derived
from megavox.pipeline.project import Project
from megavox.study import AUTO, Study
from megavox.tasks.registry import build_task
from megavox.training.parallel import Ranks

COMPUTE = "training.memory.compute"
FITTED = (COMPUTE, "training.memory.slab_mb", "training.accumulate", "training.memory.in_backward",
          "training.memory.offload")
NEARLY = 0.97  # machines of one kind tell a little more or less memory
WORKER_GB = 0.3  # a loader process, without its batches
STEP: Any = {"task": True, "model": True, "batches": {"patch", "size"}, "training": {
    "optimiser": {"name", "momentum", "clip"}, "accumulate": True, "ranks": True, "memory": True, "ema": True,
    "precision": True, "device": True}}


@dataclass(frozen=True)
class Fit:
    """What was told of the ways to compute a training.

    Attributes:
        step: hash of what a step is.
        limit_gb: what there is for a rank.
        ranks: that share a batch.
        device: kind of device that trains.
        found: what each way takes, the plain one first.
        way: the one that is taken.
        given: whether somebody said how much there is, rather than the machine.
        largest_plain: the largest patch that fits as it is computed plainly, where the study's does not.
    """

    step: str
    limit_gb: float
    ranks: int
    device: str
    found: tuple[Needs, ...]
    way: Way
    given: bool
    largest_plain: tuple[int, ...] | None = None

    def holds(self, project: Project, study: Study, here: Ranks) -> bool:
        """Whether it is about the steps of a study, as it is asked, on as many ranks, and there is memory for it."""
        least = self.needs().taken_gb if self.given else NEARLY * self.limit_gb
        return self.is_of(project, study, here.device.type) and self.ranks == here.count and \
            least <= limit_gb(study, here.device)

    def is_of(self, project: Project, study: Study, device: str) -> bool:
        """Whether it is about the steps of a study, as it is asked, on such a device."""
        return (self.step, self.device) == (_step(project, study), device)

    @property
    def where(self) -> str:
        """What is filled, in a word."""
        return "process" if self.device == "cpu" else "reserved"

    def needs(self) -> Needs:
        """What the way takes that is taken."""
        return next(one for one in self.found if one.way == self.way)

    def why(self) -> str:
        """The way is taken."""
        needed, first = self.needs(), self.found[0]
        text = f"it takes {needed.taken_gb:.3g} GB of {self.limit_gb:.3g}"
        return text if needed is first else f"{text}; {first.way} takes {first.taken_gb:.3g} GB"

    def derived(self, study: Study) -> list[Derived]:
        """The values that change for a study to be computed so."""
        way, memory = self.way, study.training.memory
        values = [(memory.compute, way.compute, self.why()),
                  (memory.slab_mb, way.slab_mb or AUTO, "of those that fit the thickest"),
                  (study.training.accumulate, way.accumulate, "parts of the batch that fit"),
                  (memory.in_backward, way.in_backward, "never all gradients are there"),
                  (memory.offload, way.offload, "nothing else fits")]
        return [Derived(key, after, why) for key, (before, after, why) in zip(FITTED, values, strict=True)
                if after not in (before, AUTO) and not (after is False and before == AUTO)]

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Fit:
        """From `asdict`."""
        found = tuple(Needs(**{**one, "way": Way(**one["way"]), "largest": tuple(one["largest"])})
                      for one in value["found"])
        patch = value["largest_plain"]
        return cls(**{**value, "found": found, "way": Way(**value["way"]),
                      "largest_plain": None if patch is None else tuple(patch)})


def fit_here(project: Project, study: Study, here: Ranks, most_gb: float | None = None) -> Fit | None:
    """How a training is computed on these ranks; None where its network cannot be followed, and then it is computed
    plainly. Arguments as of `told`.

    Raises:
        StudyError: nothing fits.
    """
    try:
        with busy("telling how much memory a step takes"):
            return told(project, study, here, most_gb)
    except CannotBeTold as error:
        say(f"note: {error.found}; it is computed plainly")
        return None


def told(project: Project, study: Study, here: Ranks, most_gb: float | None = None) -> Fit:
    """What the ways to compute a training take, and which is taken.

    Args:
        project: packed.
        study: with nothing left at `auto` but what is chosen here.
        here: this rank among all.
        most_gb: what there is for a rank, and then all ways are told; None: what there is here.

    Raises:
        StudyError: nothing fits.
        CannotBeTold: of such a network.
    """
    task, channels = build_task(study.task, []), int(project.packing()["preparation"]["channels"])
    study, limit = as_asked(project, study), most_gb or limit_gb(study, here.device)
    found: list[Needs] = []
    plainly = study.training.memory.compute == "plain"  # it is tried as it is, fit or not
    for way in ways(study, here.count)[:1 if plainly else None]:
        try:
            found.append(needs(study, task, channels, here.count, way))
        except MegavoxError:
            if not found:  # the network itself cannot be
                raise
            continue  # it cannot be computed so
        except Exception as error:  # of a network that looks at its numbers, or is called in a way of its own
            if not found:
                raise CannotBeTold("the memory of such a network cannot be told without making a step "
                                   f"({type(error).__name__}: {error})"[:200], where="model") from error
            continue
        if found[0].taken_gb <= limit and most_gb is None:
            break
    taken = found[0] if plainly else chosen(found, limit, math.inf if most_gb else main_memory_share_gb())
    alone = study.training.ranks.split == 1  # else there is no plain way
    patch = largest_patch(study, task, channels, here.count, limit) if alone and found[0].taken_gb > limit else None
    if taken is None:
        raise _too_small(found, limit, patch, alone)
    return Fit(_step(project, study), limit, here.count, here.device.type, tuple(found), taken.way,
               most_gb is not None, patch)


def as_asked(project: Project, study: Study) -> Study:
    """The study, computed as the user left it."""
    asked = project.study.training
    training = study.training.model_copy(update={"memory": asked.memory, "accumulate": asked.accumulate})
    return study.model_copy(update={"training": training})


def _too_small(found: Sequence[Needs], limit_gb: float, patch: tuple[int, ...] | None, alone: bool) -> StudyError:
    least = min(found, key=lambda one: one.taken_gb)
    plainly = f"; with `{COMPUTE}: plain` it is tried all the same" if alone else ""
    smaller = f"lower batches.patch to {list(patch)}" if patch else "lower batches.patch or model.filters"
    return StudyError(
        f"a training step fits {limit_gb:.3g} GB in no way: {least.way} takes the least, {least.taken_gb:.3g} GB",
        where="training.memory", fix=f"Take a device with {least.taken_gb:.3g} GB, or {smaller}{plainly}")


def limit_gb(study: Study, device: torch.device) -> float:
    """What there is for a rank, in GB: as the study says, or what others leave of the GPU, or its share of main memory
    without its loaders."""
    asked = study.training.memory.limit_gb
    if asked != AUTO:
        return float(asked)
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return min(float(total), free + torch.cuda.memory_reserved(device) + CONTEXT_GB * 1e9) / 1e9
    return main_memory_share_gb() - int(study.batches.workers) * WORKER_GB


def main_memory_share_gb() -> float:
    """Of a rank among those of its node, GB."""
    return main_memory_gb() / int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def _step(project: Project, study: Study) -> str:
    """Hash of what the memory of a step depends on, short."""
    channels = project.packing()["preparation"]["channels"]
    return text_hash(json.dumps([channels, study.model_dump(mode="json", include=STEP)], sort_keys=True))[:16]

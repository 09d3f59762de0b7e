"""Where augmentations are carried out, for a study that leaves it at `auto`."""

from __future__ import annotations

from megavox.core.errors import MachineError
from megavox.core.progress import busy, say
from megavox.memory.probe import probe
from megavox.memory.rules import Derived, apply
from megavox.pipeline.project import Project
from megavox.pipeline.workshop import Workshop
from megavox.study import AUTO, Study
from megavox.training.parallel import Ranks

KEY = "batches.augment_on"
MEASURED_S = 3.0  # of training steps, each way
SHARE = 0.01  # of a budget, each way, at the most


def place_augmentation(project: Project, study: Study, here: Ranks) -> list[Derived]:
    """What `batches.augment_on` becomes; nothing where the study says it.

    On a CUDA device a few training steps are made each way and the faster way is taken, the same on all ranks.
    """
    if study.batches.augment_on != AUTO:
        return []
    if here.device.type != "cuda":
        return [Derived(KEY, "cpu", "the loader's workers do it, unless a CUDA device proves faster")]
    found = here.from_first(faster_place(project, study, here))
    if here.first:
        say(f"{KEY} = {found.value}: {found.why}")
    return [found]


def faster_place(project: Project, study: Study, here: Ranks) -> Derived:
    """The place with which a training step takes less time here, measured to 1 ms, with both times."""
    seconds = min(MEASURED_S, SHARE * (study.training.budget or float("inf")))

    def measured(place: str) -> float:
        trial = apply(study, [Derived(KEY, place, "")])
        with busy(f"measuring steps with augmentation on the {place}"):
            step_s = probe(Workshop(project, trial).training(here), here, seconds).step_s
        return round(step_s, 3)  # as it is told: what looks equal is equal, and stays with the workers

    workers = measured("cpu")
    try:
        device = measured("device")
    except MachineError:
        return Derived(KEY, "cpu", f"{workers:.3f} s a step; on the device there is not enough memory for it")
    return Derived(KEY, "device" if device < workers else "cpu",
                   f"{workers:.3f} s a step with augmentation by the loader's workers, {device:.3f} s on the device")

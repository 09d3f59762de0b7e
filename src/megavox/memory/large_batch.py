"""The recipe for large batches: what `training.scale` makes of a study whose settings are those of one batch.

Kept as they are, such settings lose accuracy, since so many fewer steps are taken for as many samples.
"""

from __future__ import annotations

import math

from megavox.memory.rules import Derived
from megavox.study import AUTO, Study

LONGEST_WARMUP = 0.2  # of the steps


def large_batch(study: Study, factor: int) -> list[Derived]:
    """The values that change when `factor` batches of the study make a step.

    Args:
        study: with every value derived.
        factor: 1 changes nothing.
    """
    if factor == 1:
        return [] if study.training.scale == 1 else [Derived("training.scale", 1, "there is one rank")]
    training, optimiser, batch = study.training, study.training.optimiser, int(study.batches.size)
    found = [Derived("training.scale", 1, "what it changes is changed below"),
             Derived("batches.size", factor * batch, f"{factor} batches of {batch} make a step")]
    if training.steps != AUTO:
        steps = math.ceil(int(training.steps) / factor)
        found.append(Derived("training.steps", steps, f"as many samples as {training.steps} steps of {batch}"))
    rate = float(optimiser.rate)
    found += [
        Derived("training.optimiser.rate", rate * math.sqrt(factor), "square root"),
        Derived("training.optimiser.warmup", min(LONGEST_WARMUP, optimiser.warmup * factor), "in proportion"),
        Derived("training.ema", training.ema**factor, f"{training.ema:g} for each of {factor} batches")]
    return found

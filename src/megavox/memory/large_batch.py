"""The recipe for large batches: what `training.scale` makes of a study whose settings are those of one batch.

Kept as they are, such settings lose accuracy, since so many fewer steps are taken for as many samples. What stands here
was found by trying (docs/log.md) and measured over seeds (docs/results.md, "Large batches").
"""

from __future__ import annotations

import math

from megavox.memory.rules import RATES, Derived
from megavox.study import AUTO, Study

WARMUP = 0.1  # of the steps, at least
SECOND_MOMENT = 0.98  # its decay, at the most: 0.999 remembers more steps than there are
CLIP = 1.0
FEW = 100  # steps; the recipe was measured with 192
LEAST_EMA = 0.8


def large_batch(study: Study, factor: int) -> list[Derived]:
    """The values that change when `factor` batches of the study make a step.

    Args:
        study: with every value derived.
        factor: 1 changes nothing.
    """
    if factor == 1:
        return [] if study.training.scale == 1 else [Derived("training.scale", 1, "there is one rank")]
    training, batch = study.training, int(study.batches.size)
    found = [Derived("training.scale", 1, f"done: {factor} batches a step stand in the values below"),
             Derived("batches.size", factor * batch, f"{factor} batches of {batch} make a step")]
    if training.steps != AUTO:
        steps = math.ceil(int(training.steps) / factor)
        found.append(Derived("training.steps", steps, f"as many samples as in {training.steps} steps of {batch}" + (
            "; in so few a network learns little" if steps < FEW else "")))
    return [*found, *_optimiser(study, factor),
            Derived("training.ema", min(training.ema, max(LEAST_EMA, training.ema**factor)),
                    "over as many samples, but over some steps")]


def _optimiser(study: Study, factor: int) -> list[Derived]:
    """Adam's steps in proportion to each layer's weights (You 2019, arXiv:1904.00962) and to the square root of the
    batch (Krizhevsky 2014, arXiv:1404.5997); momentum's to the batch itself (Goyal 2017, arXiv:1706.02677)."""
    section, kind = study.training.optimiser, study.task.kind
    key, rate = "training.optimiser", float(section.rate)
    found = [Derived(f"{key}.warmup", max(section.warmup, WARMUP), "large rates need a slow start")]
    if section.name == "sgd":
        return [*found, Derived(f"{key}.rate", rate * factor, f"{rate:g} for each of {factor} batches")]
    why = f"{rate:g} times the square root of {factor}"
    if section.name in ("adam", "adamw"):
        ratio = RATES["lamb", kind] / RATES[section.name, kind]
        why += f", times {ratio:.3g} for lamb in place of {section.name}"
        rate *= ratio
        found.append(Derived(f"{key}.name", "lamb", "its steps are in proportion to each layer's weights"))
    return [*found, Derived(f"{key}.rate", rate * math.sqrt(factor), why),
            Derived(f"{key}.betas", (section.betas[0], min(section.betas[1], SECOND_MOMENT)), "there are few steps"),
            Derived(f"{key}.schedule", "polynomial", "with few steps the rate stays high for longer"),
            Derived(f"{key}.clip", min(section.clip or CLIP, CLIP), "gradients of large batches are small")]

"""The rules by which `auto` values follow from the cohort and the machine. All of them stand here.

A rule gives a value and a sentence why; `megavox new` writes both into the study file, `megavox plan`
prints them. Sizes are in array order (z, y, x).

1. Spacing: the median of the cohort along each axis; images are left as they are where all are
   within 1 % of it, and where most have no spacing in mm. To classify volumes it is coarser where the
   median volume would have more than 96 voxels along an axis.
2. Size (classify, 2D): the median size, at most 224 pixels a side, in multiples of 32.
3. Normalisation: CT by the cohort's Hounsfield range, everything else each image by itself.
4. Levels of a U-Net: as many as halve the longest side of the patch and leave four voxels; an axis
   that has become thin is not halved further.
5. Patch: to classify, the whole median image. To segment, the median image after resampling, shrunk
   along its longest axis until it has no more voxels than the device likes; each side is a multiple
   of what the network makes of it.
6. Filters: few on a CPU, twice as many on a GPU.
7. Batch: to segment so many patches that a step has a useful number of voxels, at least 2; to
   classify 16 or 32 cases, fewer of large volumes, and at most a quarter of them.
8. Time: a budget rather than steps, since only the machine knows what a step takes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from megavox.cohort.survey import Fingerprint
from megavox.core.errors import StudyError
from megavox.memory.machine import Machine
from megavox.models.registry import multiples
from megavox.study import AUTO, Study
from megavox.study.sections import UNetModel

PATCH_VOXELS = {("cpu", 3): 48**3, ("gpu", 3): 128**3, ("cpu", 2): 256**2, ("gpu", 2): 512**2}
BATCH_VOXELS = {("cpu", 3): 48**3, ("gpu", 3): 2 * 128**3, ("cpu", 2): 4 * 256**2, ("gpu", 2): 16 * 512**2}
BATCH_CASES = {"cpu": 16, "gpu": 32}
CLASSIFIED_VOXELS = {"cpu": 16 * 224**2, "gpu": 16 * 96**3}
LEAST_CASES = 4  # to classify; batch normalisation needs some
MOST_PATCHES = 32
SMALLEST_SIDE = 8  # within a slice: what one halving needs
LEVELS = range(6, 1, -1)
FILTERS = {("unet", "cpu"): 16, ("unet", "gpu"): 32, ("resnet", "cpu"): 32, ("resnet", "gpu"): 64}
RATES = {("adamw", "segment"): 3e-3, ("adamw", "classify"): 1e-3, ("adam", "segment"): 3e-3, ("adam", "classify"): 1e-3,
         ("sgd", "segment"): 1e-2, ("sgd", "classify"): 1e-2, ("lamb", "segment"): 1e-2, ("lamb", "classify"): 3e-3,
         ("lars", "segment"): 5.0, ("lars", "classify"): 5.0}
RATES |= {(name, "detect"): rate for (name, task), rate in RATES.items() if task == "segment"}  # also maps of voxels
BUDGET = {"cpu": "20min", "gpu": "2h"}
LARGEST_PICTURE = 224
LARGEST_VOLUME = 96


@dataclass(frozen=True)
class Derived:
    """One derived value.

    Attributes:
        key: key path in the study file.
        value: what it becomes.
        why: one sentence.
    """

    key: str
    value: Any
    why: str


def derive(study: Study, cohort: Fingerprint, machine: Machine) -> list[Derived]:
    """All values that stand at `auto` in the study, derived in order."""
    kind = device_kind(study, machine)
    found = list(derive_images(study, cohort))
    resolved = apply(study, found)
    size = prepared_size(resolved, cohort)
    found += _model(resolved, size, kind)
    resolved = apply(resolved, found)
    found += _batches(resolved, size, kind, machine, cohort)
    found += _training(resolved, kind, machine)
    return found


def derive_images(study: Study, cohort: Fingerprint) -> Iterable[Derived]:
    """The part that packing needs: channels, spacing or size, normalisation."""
    images = study.images
    if images.channels == AUTO:
        count = 1 if cohort.colour and images.grey else cohort.channels
        yield Derived("images.channels", [f"channel {k + 1}" for k in range(count)],
                      f"the files of most cases hold {count} channel{'s' * (count > 1)}")
    if images.size is None and images.spacing_mm == AUTO:
        yield from _spacing(study, cohort)
    if images.normalise == AUTO:
        named = images.channels != AUTO and all(name.strip().upper() == "CT" for name in images.channels)
        yield (Derived("images.normalise", "hu", "CT: the numbers are Hounsfield units")
               if named or cohort.modality == "CT" else
               Derived("images.normalise", "zscore", "intensities have no absolute scale in these images"))


def _spacing(study: Study, cohort: Fingerprint) -> Iterable[Derived]:
    dims, classify = cohort.spatial_dims, study.task.kind == "classify"
    if dims == 2 and classify:
        yield from _picture_size(np.array(cohort.shapes)[:, -2:])
    elif not cohort.mostly_calibrated:
        yield Derived("images.spacing_mm", "native", "the files do not say the spacing")
    else:
        yield _common_spacing(cohort, LARGEST_VOLUME if classify else None)


def _picture_size(shapes: np.ndarray) -> Iterable[Derived]:
    size = [int(min(LARGEST_PICTURE, max(32, 32 * round(n / 32)))) for n in np.median(shapes, axis=0)]
    why = "all pictures have it, others will be scaled to it" if (shapes == size).all() else \
        f"the median picture, at most {LARGEST_PICTURE} a side, in multiples of 32"
    yield Derived("images.size", size, why)
    yield Derived("images.spacing_mm", "native", "size is given")


def _common_spacing(cohort: Fingerprint, largest: int | None) -> Derived:
    """One spacing for all; coarser along axes where the median image has more than `largest` voxels."""
    dims = cohort.spatial_dims
    known = np.array(cohort.calibrated)
    spacings = np.array(cohort.spacings_mm)[known, -dims:]
    median = np.median(spacings, axis=0)
    voxels = np.median(np.array(cohort.shapes)[known, -dims:] * spacings, axis=0) / median
    coarser = np.maximum(voxels / largest, 1) if largest else np.ones(dims)
    if (coarser > 1).any():
        why = f"the cohort's median, coarser so that the median image has at most {largest} voxels along an axis"
    elif known.all() and (np.abs(spacings / median - 1) < 0.01).all():
        why = "all images have it, others will be resampled to it"
    else:
        why = "the cohort's median along each axis"
    return Derived("images.spacing_mm", [float(f"{v:.4g}") for v in median * coarser], why)


def prepared_size(study: Study, cohort: Fingerprint) -> np.ndarray:
    """Median size in voxels after preparation, `(d,)`."""
    dims = cohort.spatial_dims
    if study.images.size is not None:
        return np.array(study.images.size)
    shapes = np.array(cohort.shapes, float)[:, -dims:]
    if isinstance(study.images.spacing_mm, list):
        shapes = shapes * np.array(cohort.spacings_mm)[:, -dims:] / study.images.spacing_mm
        shapes = shapes[np.array(cohort.calibrated)]  # the others cannot be resampled and are set aside
    return np.median(shapes, axis=0)


def device_kind(study: Study, machine: Machine) -> str:
    """`cpu` or `gpu`, as the study will train."""
    wish = study.training.device
    return "gpu" if wish in ("cuda", "mps") or (wish == AUTO and machine.gpus) else "cpu"


def _model(study: Study, size: np.ndarray, kind: str) -> Iterable[Derived]:
    model = study.model
    if model.family == "unet" and model.levels == AUTO:
        levels = _levels(model, study.batches.patch, size, PATCH_VOXELS[kind, len(size)])
        yield Derived("model.levels", levels, "as many as leave four voxels of the longest side of the patch")
    if model.family in ("unet", "resnet") and model.filters == AUTO:
        if model.family == "resnet" and model.weights is not None:
            yield Derived("model.filters", 64, "the weights file has so many")
        else:
            yield Derived("model.filters", FILTERS[model.family, kind], f"what trains in good time on a {kind.upper()}")


def _batches(study: Study, size: np.ndarray, kind: str, machine: Machine, cohort: Fingerprint) -> Iterable[Derived]:
    section, patch = study.batches, study.batches.patch
    classify = study.task.kind == "classify"
    most = PATCH_VOXELS[kind, len(size)]
    if patch == AUTO and classify:
        patch = [round(float(n)) for n in size]
        yield Derived("batches.patch", patch, "the whole image")
    elif patch == AUTO:
        factors = multiples(study.model, size.tolist())
        patch = _shrunk(size, factors, most)
        yield Derived("batches.patch", patch, f"the median image is {_times(size)} voxels; sides are multiples of "
                      f"{_times(np.array(factors))}, at most {most:,} voxels on a {kind.upper()}")
    if section.size == AUTO and classify:
        fit = max(LEAST_CASES, int(CLASSIFIED_VOXELS[kind] / np.prod(patch)))
        batch = int(np.clip(cohort.n_cases // 4, 2, min(BATCH_CASES[kind], fit)))
        yield Derived("batches.size", batch, f"at most {min(BATCH_CASES[kind], fit)} of this size on a {kind.upper()}, "
                      "and a quarter of the cases")
    elif section.size == AUTO:
        voxels = BATCH_VOXELS[kind, len(size)]
        batch = int(np.clip(round(voxels / np.prod(patch)), 2, MOST_PATCHES))
        yield Derived("batches.size", batch, f"about {voxels:,} voxels a step, at least 2 patches")
    if section.workers == AUTO:
        workers = max(1, min(8, machine.cores // 2 if kind == "gpu" else machine.cores // 4))
        yield Derived("batches.workers", workers, f"{machine.cores} cores, of which the network needs "
                      + ("few on a GPU" if kind == "gpu" else "most on a CPU"))


def _training(study: Study, kind: str, machine: Machine) -> Iterable[Derived]:
    training = study.training
    if training.steps == AUTO and training.budget is None:
        yield Derived("training.budget", BUDGET[kind], f"for a start on a {kind.upper()}; the number of steps is fixed "
                      "from the rate measured then")
    if training.optimiser.rate == AUTO:
        name, task = training.optimiser.name, study.task.kind
        yield Derived("training.optimiser.rate", RATES[name, task], f"what {name} takes well to {task}")
    if training.device == AUTO:
        yield Derived("training.device", "cuda" if kind == "gpu" else "cpu",
                      f"this machine has {machine.gpus[0]}" if machine.gpus else "this machine has no GPU")
    if training.precision == AUTO:
        fast = kind == "gpu" and machine.gpu_bfloat16
        yield Derived("training.precision", "bfloat16" if fast else "float32",
                      "this GPU is faster with it" if fast else "exact, and not slower here")


def _levels(model: UNetModel, patch: list[int] | str, size: np.ndarray, most: int) -> int:
    """The most levels that a patch, or the patch that would be chosen for them, can have."""
    from megavox.models.unet import level_strides

    for levels in LEVELS:
        sides = patch if isinstance(patch, list) else _shrunk(
            size, multiples(model.model_copy(update={"levels": levels}), size.tolist()), most)
        try:
            level_strides(sides, levels)
        except StudyError:
            continue
        return levels
    return LEVELS[-1]


def _shrunk(size: np.ndarray, factors: Sequence[int], most: int) -> list[int]:
    """`size` in multiples of the factors, rounded down unless less than a quarter is missing, at least 8
    within a slice; then the longest side is shortened until at most `most` voxels are left."""
    sides = [max(factor, factor * int(n / factor + 0.25)) for n, factor in zip(size, factors, strict=True)]
    sides[-2:] = [max(side, SMALLEST_SIDE) for side in sides[-2:]]
    while np.prod(sides) > most:
        spare = [side if side > factor else 0 for side, factor in zip(sides, factors, strict=True)]
        if not any(spare):
            break
        longest = int(np.argmax(spare))
        sides[longest] -= factors[longest]
    return sides


def _times(size: np.ndarray) -> str:
    return " x ".join(f"{n:g}" for n in np.round(size))


def apply(study: Study, derived: Iterable[Derived]) -> Study:
    """The study with derived values filled in, validated again."""
    data = study.model_dump()
    for item in derived:
        place, parts = data, item.key.split(".")
        for part in parts[:-1]:
            place = place[part]
        place[parts[-1]] = item.value
    return Study.model_validate(data)

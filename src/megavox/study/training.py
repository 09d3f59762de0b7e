"""Training in a study file: how long, how, on how many ranks, and in how much memory."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from megavox.core.errors import StudyError
from megavox.study.duration import Seconds
from megavox.study.section import AUTO, Auto, Fraction, Positive, Section


class OptimiserSection(Section):
    """The optimiser and its schedule."""

    name: Literal["adam", "adamw", "sgd", "lars", "lamb"] = Field(
        "adamw", description="lars and lamb are for large batches: sgd and adamw with steps in proportion to each "
        "layer's weights")
    rate: Annotated[float, Field(gt=0)] | Auto = Field(AUTO, description="highest learning rate")
    weight_decay: Annotated[float, Field(ge=0)] = 1e-2
    momentum: Fraction = Field(0.9, description="of sgd (Nesterov) and lars")
    betas: tuple[float, float] = (0.9, 0.999)
    warmup: Fraction = Field(0.05, description="share of the steps in which the rate rises linearly")
    schedule: Literal["polynomial", "cosine", "constant"] = "cosine"
    power: Annotated[float, Field(gt=0)] = Field(0.9, description="of the polynomial schedule")
    clip: Annotated[float, Field(gt=0)] | None = Field(12.0, description="largest gradient norm")


class RanksSection(Section):
    """How several ranks train together."""

    sync_norm: bool = Field(True, description="batch norms take their statistics from all ranks' samples, as one "
                            "rank would; false: each rank from its own")
    bucket_mb: Annotated[float, Field(gt=0)] = Field(25.0, description="gradients are sent in parts of this size, "
                                                     "while others are still computed")
    gradients: Literal["float32", "bfloat16"] = Field(
        "float32", description="as which they are sent; bfloat16 halves the time that takes, and rounds them")
    split: Positive = Field(1, description="ranks that share each sample, some of its slices each: for samples too "
                            "large for one; with model.family unet and Dice of the batch, streamed")

    def groups(self, ranks: int) -> int:
        """How many of so many ranks, or groups of them that share samples, have samples of their own.

        Raises:
            StudyError: they cannot be dealt so.
        """
        if ranks % self.split:
            raise StudyError(f"{ranks} ranks cannot share samples by {self.split}", where="training.ranks.split",
                             expected=f"a number of ranks that is a multiple of {self.split}",
                             fix=f"Train with `torchrun --nproc-per-node {self.split}`, plan with --memory and "
                             f"--ranks {self.split}, or lower it")
        return ranks // self.split


class MemorySection(Section):
    """How a training is made to fit its device. What `compute` and more micro-batches give is the same training."""

    limit_gb: Annotated[float, Field(gt=0)] | Auto = Field(
        AUTO, description="what a rank may take, GB; auto: what its GPU has, or its share of main memory")
    compute: Literal["plain", "streamed", "recomputed"] | Auto = Field(
        AUTO, description="streamed: slab by slab, for unet, vgg and resnet; recomputed: each level again in the "
        "backward pass; auto: plain where that fits, else what costs least of what does")
    slab_mb: Annotated[float, Field(gt=0)] | Auto = Field(
        AUTO, description="about so much of a map is there at a time when streamed; auto: 8 on CPUs, 512 on GPUs, or "
        "less where that fits")
    keep_as: Literal["bfloat16"] | Auto = Field(
        AUTO, description="as what maps are kept between slabs; auto: as they are computed; bfloat16, with "
        "precision float32, halves them and rounds")
    channels_last: bool | Auto = Field(
        AUTO, description="channels of a voxel lie side by side; auto: on CPUs for unet in 3D and for resnet, which "
        "are faster so")
    in_backward: bool | Auto = Field(
        AUTO, description="each weight takes its step as soon as its gradient is there, so that never all gradients "
        "are; not with optimiser.clip or accumulate; auto: where it is needed to fit")
    offload: bool | Auto = Field(
        AUTO, description="what the backward pass needs is kept in main memory meanwhile; auto: on a GPU, where "
        "nothing else fits")


class TrainingSection(Section):
    """How long, how, and when to look."""

    steps: Positive | Auto = Field(AUTO, description="optimiser steps")
    budget: Seconds | None = Field(None, description="time instead of steps, e.g. 20min: the number of "
                                   "steps is fixed from the rate measured at the start, and recorded")
    optimiser: OptimiserSection = OptimiserSection()
    accumulate: Positive = Field(1, description="micro-batches a step; the global batch stays the same")
    scale: Positive | Auto = Field(1, description="how many batches of `batches.size` make a step: steps, optimiser "
                                   "and averaging are those of 1, and are changed by the recipe for large batches; "
                                   "auto: as many as there are ranks")
    ranks: RanksSection = RanksSection()
    memory: MemorySection = MemorySection()
    ema: Annotated[float, Field(ge=0, lt=1)] = Field(0.99, description="decay of the averaged weights that "
                                                     "are validated and kept; 0: none")
    precision: Literal["float32", "bfloat16"] | Auto = Field(
        AUTO, description="auto: bfloat16 autocast on devices that are faster with it")
    device: Literal["cpu", "cuda", "mps"] | Auto = AUTO
    validations: Positive = Field(12, description="how many times to validate during the run")
    patience: Positive | None = Field(None, description="stop after so many validations without a better one")
    checkpoint_every: Positive | None = Field(None, description="steps between checkpoints; default: at "
                                              "every validation")
    keep: Positive = Field(2, description="latest checkpoints kept, besides the best")

    @model_validator(mode="after")
    def _one_of(self) -> TrainingSection:
        if self.budget is not None and self.steps != AUTO:
            raise ValueError("give either steps or budget; `training.budget=null` takes the budget away")
        if self.ranks.split > 1 and self.memory.compute not in (AUTO, "streamed"):
            raise ValueError(f"memory.compute: {self.memory.compute} does not go with ranks.split; a shared sample is "
                             "streamed")
        return self

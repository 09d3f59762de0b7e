"""The sections of a study file for what comes after training: prediction and evaluation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from megavox.study.section import AUTO, Auto, Fraction, Positive, Section


class FastSection(Section):
    """An inexact setting of prediction; what is left out is as in the exact one.

    It is used only when, over all voxels of the validation cases, at least 0.999 have the same class as in the
    exact setting and the Dice between the two is at least 0.999 for every class.
    """

    precision: Literal["float32", "bfloat16"] | None = None
    overlap: Fraction | None = None
    mirror: bool | None = None
    whole: bool = Field(False, description="each image at once, without windows, by PyTorch; for a unet with batch "
                        "norm")


class InferenceSection(Section):
    """Prediction: sliding windows with Gaussian weights."""

    overlap: Fraction = 0.5
    batch: Positive = Field(4, description="windows a forward pass")
    mirror: bool = Field(True, description="average over the mirrored views that training used")
    engine: Literal["pytorch", "openvino"] | Auto = Field(
        AUTO, description="what computes; auto: OpenVINO on a CPU where the extra megavox[cpu] is installed. Where its "
        "output is not PyTorch's, PyTorch computes and a warning says so")
    skip_air: bool = Field(False, description="leave out windows without a voxel above a tenth of the range from the "
                           "image's 0.5 to its 99.5 percentile; they count as background")
    fast: FastSection | None = Field(None, description="a faster, inexact setting; used where validation cases agree "
                                     "with the exact one")


class EvaluationSection(Section):
    """95 % intervals of every figure."""

    resamples: Annotated[int, Field(ge=100)] = Field(1000, description="bootstrap resamples of subjects")

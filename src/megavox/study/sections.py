"""The sections of a study file, each key with its type, default and meaning.

`AUTO` stands for a value that `megavox plan` derives from the cohort and the machine by the rules of
`megavox.memory.rules`; `megavox new` writes the derived values out, with the reason as a comment.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from megavox.study.cohort import CohortSection
from megavox.study.prediction import EvaluationSection, InferenceSection
from megavox.study.search import SearchSection
from megavox.study.section import AUTO, NAME, Auto, Fraction, Positive, Section
from megavox.study.training import TrainingSection

# ---------------------------------------------------------------- task: what is learnt


class SegmentTask(Section):
    """Every voxel gets a class; background is class 0 and is not listed."""

    kind: Literal["segment"]
    classes: dict[str, int | list[int]] = Field(
        min_length=1, description="name -> value(s) in the mask files; 0 is the background")
    ignore: list[int] = Field(default_factory=list, description="mask values that teach nothing")
    class_weights: list[float] | None = Field(
        None, description="weights of background and classes in the cross-entropy")
    dice: Literal["batch", "sample"] = Field(
        "batch", description="the loss has one Dice a class over the whole batch, of all ranks (with "
        "training.accumulate: over each part), or one a sample, which no splitting of the batch changes")
    mask_tolerance_mm: Annotated[float, Field(gt=0)] = Field(
        0.1, description="largest distance in mm between corners of mask and image")

    @property
    def names(self) -> list[str]:
        """Foreground class names in order."""
        return list(self.classes)

    @property
    def outputs(self) -> int:
        """Channels of the network's output."""
        return len(self.classes) + 1

    @model_validator(mode="after")
    def _consistent(self) -> SegmentTask:
        values = [v for item in self.classes.values() for v in (item if isinstance(item, list) else [item])]
        if len(set(values)) != len(values) or 0 in values or set(values) & set(self.ignore):
            raise ValueError("each mask value may stand once, and 0 is the background")
        if self.class_weights and len(self.class_weights) != self.outputs:
            raise ValueError(f"class_weights needs {self.outputs} numbers: background and each class")
        if len(self.classes) > 250:
            raise ValueError("at most 250 classes: masks are stored in one byte")
        return self


class ClassifyTask(Section):
    """Every case gets one class, or with `multilabel` any number of them."""

    kind: Literal["classify"]
    classes: list[str] = Field(min_length=1, description="class names; with two exclusive classes the "
                               "last one is the positive one")
    values: dict[str, str] = Field(default_factory=dict, description="value in the data -> class name, "
                                   "where they differ")
    multilabel: bool = Field(False, description="a case may have several classes, or none")
    class_weights: list[float] | Literal["balanced"] | None = Field(
        "balanced", description="weights of the classes (of the positives, if multilabel)")
    label_smoothing: Fraction = 0.0

    @property
    def names(self) -> list[str]:
        """Class names in order."""
        return list(self.classes)

    @property
    def outputs(self) -> int:
        """Channels of the network's output."""
        return len(self.classes)

    @model_validator(mode="after")
    def _consistent(self) -> ClassifyTask:
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("a class name stands twice")
        if not self.multilabel and len(self.classes) < 2:
            raise ValueError("exclusive classes must be two or more; one yes/no finding is "
                             "`multilabel: true`")
        if isinstance(self.class_weights, list) and len(self.class_weights) != len(self.classes):
            raise ValueError(f"class_weights needs {len(self.classes)} numbers")
        unknown = set(self.values.values()) - set(self.classes)
        if unknown:
            raise ValueError(f"values names classes that are not listed: {sorted(unknown)}")
        return self


class DetectTask(Section):
    """Findings are located in every case: where, how large, how sure."""

    kind: Literal["detect"]
    finding: str = Field("nodule", min_length=1, description="what is detected")
    within: Literal["lungs", "body", "image"] = Field(
        "lungs", description="where it is looked for, in CT: in the lungs and 10 mm around them, in the body, or "
        "everywhere")

    @property
    def names(self) -> list[str]:
        """The finding's name, as of a single class."""
        return [self.finding]

    @property
    def outputs(self) -> int:
        """Channels of the network's output: background and finding."""
        return 2


TaskSection = Annotated[SegmentTask | ClassifyTask | DetectTask, Field(discriminator="kind")]


# ---------------------------------------------------------------- images, split, batches


class ImagesSection(Section):
    """How images are brought to one form before they are stored."""

    channels: list[str] | Auto = Field(AUTO, description="names of the channels, in order")
    grey: bool = Field(True, description="colour pictures are turned to grey")
    spacing_mm: list[float] | Literal["native"] | Auto = Field(
        AUTO, description="(z, y, x) voxel spacing to resample to; native keeps each image's own")
    size: list[Positive] | None = Field(None, description="(y, x) or (z, y, x): scale every image to so "
                                        "many pixels; instead of spacing_mm")
    normalise: Literal["zscore", "hu", "range", "none"] | Auto = Field(
        AUTO, description="zscore: each image by its own mean and deviation, after clipping to its 0.5 "
        "and 99.5 percentiles; hu: by the training cohort's foreground percentiles, mean and deviation; "
        "range: each image's 0.5 to 99.5 percentile to 0..1; none: as stored")
    quarantine: Literal["continue", "refuse"] = Field(
        "continue", description="refuse: stop with status 2 when any case was quarantined")

    @model_validator(mode="after")
    def _one_of(self) -> ImagesSection:
        if self.size is not None and isinstance(self.spacing_mm, list):
            raise ValueError("give either size or spacing_mm")
        for value, name in ((self.size, "size"), (self.spacing_mm, "spacing_mm")):
            if isinstance(value, list) and len(value) not in (2, 3):
                raise ValueError(f"{name} takes 2 or 3 numbers, in the order z, y, x")
            if isinstance(value, list) and min(value) <= 0:
                raise ValueError(f"{name} must be positive")
        return self


class SplitSection(Section):
    """Subjects are dealt to test, validation and train; no subject stands on two sides."""

    test: Fraction = 0.2
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.15
    folds: Annotated[int, Field(ge=2)] | None = Field(
        None, description="k folds instead of fractions: fold `fold` is the test part")
    fold: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _consistent(self) -> SplitSection:
        if self.test + self.validation >= 1:
            raise ValueError("test + validation leave nothing to train on")
        if self.folds is not None and self.fold >= self.folds:
            raise ValueError(f"fold counts from 0 to {self.folds - 1}")
        return self


class AugmentSection(Section):
    """Random changes of training patches; each `p` is the share of patches that get it."""

    copies: Annotated[int, Field(ge=0)] | None = Field(
        None, description="augmented patches to each that is left as it is; default: all are augmented")
    mirror: list[Literal["left-right", "front-back", "up-down"]] = Field(
        ["left-right"], description="axes of mirroring; only left-right unless asked: front-back would "
        "turn an anterior class into a posterior one")
    rotate90: bool = Field(False, description="quarter turns in the plane(s) of equal spacing")
    affine_p: Annotated[float, Field(ge=0, le=1)] = 0.5
    rotation_deg: Annotated[float, Field(ge=0, le=180)] = 10.0
    scale: Annotated[float, Field(ge=0, lt=1)] = Field(0.15, description="largest relative change of size")
    shift: Annotated[float, Field(ge=0, le=1)] = Field(0.05, description="largest shift, share of the patch")
    intensity_p: Annotated[float, Field(ge=0, le=1)] = 0.3
    intensity_scale: Annotated[float, Field(ge=0, lt=1)] = Field(0.2, description="factor in 1 +- this")
    intensity_offset: Annotated[float, Field(ge=0)] = Field(0.1, description="in standard deviations")
    gamma_p: Annotated[float, Field(ge=0, le=1)] = 0.2
    gamma: Annotated[float, Field(ge=0, lt=1)] = Field(0.3, description="exponent in 1 +- this, over the "
                                                       "patch's range")
    noise_p: Annotated[float, Field(ge=0, le=1)] = 0.15
    noise: Annotated[float, Field(ge=0)] = Field(0.1, description="largest standard deviation")
    blur_p: Annotated[float, Field(ge=0, le=1)] = 0.1
    blur: Annotated[float, Field(ge=0)] = Field(1.0, description="largest Gaussian sigma in voxels")
    low_resolution_p: Annotated[float, Field(ge=0, le=1)] = 0.1
    low_resolution: Annotated[float, Field(ge=1)] = Field(2.0, description="largest factor of coarsening")


class HardSection(Section):
    """Places where an earlier run found something and was wrong, as `megavox mine` writes them."""

    run: str = Field(pattern=f"^{NAME}$", description="name of that run")
    share: Annotated[float, Field(ge=0, le=1)] = Field(0.5, description="of the patches not centred on a class")


class BatchesSection(Section):
    """What a training step sees. Outside an image: its 0.5 percentile; outside a mask: background."""

    patch: list[Positive] | Auto = Field(AUTO, description="(z, y, x) or (y, x) voxels")
    size: Positive | Auto = Field(AUTO, description="the global batch: patches a step, over all ranks")
    foreground: Annotated[float, Field(ge=0, le=1)] = Field(
        0.5, description="share of patches centred on a voxel of a class, classes equally often")
    hard: HardSection | None = Field(None, description="to detect: centre patches on an earlier run's false positives")
    workers: Annotated[int, Field(ge=0)] | Auto = Field(AUTO, description="loader processes a rank; 0: none")
    prefetch: Positive = Field(4, description="batches a worker prepares ahead")
    augment_on: Literal["cpu", "device"] | Auto = Field(
        AUTO, description="where augmentations are carried out: by the loader's workers, or on the device that "
        "trains; auto: on a CUDA device what makes a step faster, measured when a run is begun; else cpu")
    augment: AugmentSection = AugmentSection()


# ---------------------------------------------------------------- models


class UNetModel(Section):
    """U-Net (Ronneberger 2015; Cicek 2016) in 2D or 3D."""

    family: Literal["unet"]
    filters: Positive | Auto = Field(AUTO, description="feature maps at the first level; doubled each level")
    levels: Annotated[int, Field(ge=2, le=8)] | Auto = Field(AUTO, description="resolutions, the first included")
    max_filters: Positive = Field(320, description="no level has more")
    kernel: Literal[3, 5] = 3
    residual_units: Annotated[int, Field(ge=0, le=4)] = Field(
        0, description="residual units a level; 0: two plain convolutions a level")
    norm: Literal["instance", "batch", "group"] = "instance"
    deep_supervision: bool = False
    dropout: Fraction = 0.0


class ResNetModel(Section):
    """ResNet (He 2015), stride in the 3x3 convolution (v1.5)."""

    family: Literal["resnet"]
    depth: Literal[18, 34, 50, 59, 101, 152] = Field(
        18, description="59: 50 with a fifth stage, and halved once more, for pictures of about 900 pixels")
    filters: Positive | Auto = Field(AUTO, description="feature maps of the first stage (64 in the paper)")
    weights: Path | None = Field(None, description="local .safetensors or .pth file in the torchvision layout")
    dropout: Fraction = 0.0


class DenseNetModel(Section):
    """DenseNet-121 (Huang 2017), MONAI's implementation."""

    family: Literal["densenet121"]
    dropout: Fraction = 0.0


class VGGModel(Section):
    """VGG (Simonyan 2014) in 2D or 3D; its linear layers grow with the patch."""

    family: Literal["vgg"]
    depth: Literal[11, 13, 16, 19] = 19
    filters: Positive = Field(64, description="feature maps of the first stage")
    hidden: Positive = Field(4096, description="width of the two hidden linear layers")
    norm: Literal["batch", "none"] = Field("batch", description="none: as in the paper")
    dropout: Fraction = 0.5


class MonaiModel(Section):
    """Any class of `monai.networks.nets` by name."""

    family: Literal["monai"]
    network: str = Field(description="class name, e.g. SwinUNETR")
    arguments: dict[str, Any] = Field(default_factory=dict, description="its arguments; spatial_dims, "
                                      "in_channels and out_channels are filled in where it takes them")


ModelSection = Annotated[UNetModel | ResNetModel | DenseNetModel | VGGModel | MonaiModel,
                         Field(discriminator="family")]


# ---------------------------------------------------------------- training, and the whole


class Study(Section):
    """A whole study file."""

    name: str = Field(pattern=f"^{NAME}$", description="letters, digits, - _ .")
    seed: Annotated[int, Field(ge=0)] = 0
    cohort: CohortSection
    task: TaskSection
    images: ImagesSection = ImagesSection()
    split: SplitSection = SplitSection()
    batches: BatchesSection = BatchesSection()
    model: ModelSection
    training: TrainingSection = TrainingSection()
    inference: InferenceSection = InferenceSection()
    evaluation: EvaluationSection = EvaluationSection()
    sites: dict[str, Path] = Field(default_factory=dict, description="where jobs can go: a name and its site file")
    search: SearchSection | None = Field(None, description="what `megavox tune` searches")

    @model_validator(mode="after")
    def _consistent(self) -> Study:
        if self.task.kind != "classify" and self.model.family in ("resnet", "densenet121", "vgg"):
            raise ValueError(f"model.family: {self.model.family} classifies; to {self.task.kind} take unet or monai")
        if self.task.kind == "classify" and self.model.family == "unet":
            raise ValueError("model.family: unet segments; to classify take resnet, densenet121, vgg or "
                             "monai")
        if self.task.kind != "segment" and self.inference.fast is not None:
            raise ValueError(f"inference.fast: there is a faster setting to segment, not to {self.task.kind}")
        if self.batches.hard is not None and self.task.kind != "detect":
            raise ValueError("batches.hard: only detections have false positives to learn from")
        if self.training.ranks.split > 1 and (
                self.model.family != "unet" or (isinstance(self.task, SegmentTask) and self.task.dice != "batch")):
            raise ValueError("training.ranks.split: only for model.family: unet, and with task.dice: batch, since no "
                             "rank knows the Dice of a sample of which it has a part")
        if self.inference.fast is not None and self.inference.fast.whole and getattr(self.model, "norm", "") != "batch":
            raise ValueError("inference.fast.whole: only for model.family: unet with norm: batch; other norms are "
                             "computed over all that the network sees, which was a patch in training")
        if self.task.kind == "segment" and self.cohort.layout in ("table", "folders"):
            raise ValueError(f"cohort.layout: {self.cohort.layout} has classes but no masks; to segment "
                             "take decathlon, bids or dicom")
        if (self.task.kind == "detect") != (self.cohort.layout == "luna16"):
            raise ValueError(f"cohort.layout: {self.cohort.layout} does not go with task.kind: {self.task.kind}; "
                             "luna16 has findings, and only findings, to learn from: it goes with detect")
        if self.task.kind == "classify" and self.cohort.layout in ("decathlon", "bids"):
            raise ValueError(f"cohort.layout: {self.cohort.layout} has masks but no classes; to classify "
                             "take table, folders or dicom")
        return self

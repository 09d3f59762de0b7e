"""The recipe: everything besides weights that prediction needs, so that a run predicts anywhere.

It stands in the run's folder as run.json; the cohort and the store are not needed any more.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from megavox.batches.parameters import AXES
from megavox.core.errors import WorkspaceError
from megavox.core.files import read_json, write_json
from megavox.images.prepare import Preparation
from megavox.study import Study, parse_study, show_study


@dataclass(frozen=True)
class Recipe:
    """How a run turns an image into a prediction.

    Attributes:
        run: its name.
        study: the study with every value derived.
        asked: the study as the user wrote it.
        derived: what was derived: `key`, `value`, `why`.
        preparation: what is done to images first.
        normalise: mode of `images.intensity.normaliser`.
        cohort_intensities: for mode `hu`.
        precision: float32 or bfloat16.
        whole: images are predicted at once, without windows.
        calibration: temperature and thresholds, to classify; threshold, to detect.
        provenance: versions, seeds, machine, study hash.
    """

    run: str
    study: Study
    asked: Study
    derived: list[dict[str, Any]]
    preparation: Preparation
    normalise: str
    cohort_intensities: list[dict[str, float]] | None
    precision: str
    whole: bool = False
    calibration: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def patch(self) -> tuple[int, ...]:
        """Window size in voxels."""
        return tuple(int(n) for n in self.study.batches.patch)

    @property
    def mirror(self) -> tuple[int, ...]:
        """Axes over which predictions are averaged: those mirrored in training, if asked for."""
        names = self.study.batches.augment.mirror if self.study.inference.mirror else []
        return tuple(sorted({max(AXES[name], -self.preparation.spatial_dims) for name in names}))

    def on(self, device_type: str) -> Recipe:
        """The recipe for a kind of device: on CPUs in float32, since bfloat16 is many times slower on most."""
        return replace(self, precision="float32") if device_type == "cpu" else self

    def fast(self) -> Recipe:
        """The recipe in the faster, inexact setting that the study asks for."""
        inference = self.study.inference
        asked = inference.fast
        assert asked is not None, "asked for only where the study does"
        changed = {name: value for name in ("overlap", "mirror") if (value := getattr(asked, name)) is not None}
        study = self.study.model_copy(update={"inference": inference.model_copy(update=changed)})
        return replace(self, study=study, precision=asked.precision or self.precision, whole=asked.whole)

    def write(self, path: Path) -> None:
        """Write run.json."""
        write_json(path, {
            "run": self.run, "study": show_study(self.study), "asked": show_study(self.asked),
            "derived": self.derived, "preparation": self.preparation.to_dict(),
            "normalise": self.normalise, "cohort_intensities": self.cohort_intensities,
            "precision": self.precision, "calibration": self.calibration, "provenance": self.provenance})

    @classmethod
    def read(cls, path: Path) -> Recipe:
        """Read run.json.

        Raises:
            WorkspaceError: there is none, or it is damaged.
        """
        fix = f"Train under another --run-name, or remove {path.parent} and train again"
        try:
            return cls._of(read_json(path), path)
        except (WorkspaceError, KeyError, TypeError, AttributeError) as error:
            if isinstance(error, WorkspaceError) and not path.exists():
                raise WorkspaceError("there is no such run", where=path, fix="Run `megavox train` first") from None
            raise WorkspaceError("the file that says how this run predicts is damaged", where=path,
                                 fix=fix) from None

    @classmethod
    def _of(cls, value: Any, path: Path) -> Recipe:
        return cls(**{**value, "study": parse_study(value["study"], where=path),
                      "asked": parse_study(value["asked"], where=path),
                      "preparation": Preparation.from_dict(value["preparation"])})


@dataclass(frozen=True)
class Network:
    """What a process needs to predict: it loads the weights itself.

    Attributes:
        recipe: of the run.
        checkpoint: folder of the weights.
        device: as the study has it: auto, cpu, cuda.
        weights: identifies the weights and how they are used; another value makes predictions anew.
    """

    recipe: Recipe
    checkpoint: Path
    device: str
    weights: str

    def by_pytorch(self) -> Network:
        """The same, computed by PyTorch even where the study leaves the engine open."""
        study = self.recipe.study
        inference = study.inference.model_copy(update={"engine": "pytorch"})
        return replace(self, recipe=replace(self.recipe, study=study.model_copy(update={"inference": inference})))


def called_above(recipe: Recipe) -> float:
    """The score above which a candidate is called."""
    return float(recipe.calibration.get("threshold", 0.5))

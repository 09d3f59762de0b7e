"""One case in, one prediction out, on the grid the image came on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from megavox.images.geometry import Geometry
from megavox.images.image import Image
from megavox.images.intensity import intensity_statistics, normalise, normaliser, outside_value
from megavox.images.prepare import prepare
from megavox.images.resample import resample_to_grid
from megavox.inference.recipe import Recipe
from megavox.inference.tiles import sliding_windows, whole_image
from megavox.models.registry import build_model
from megavox.store.pack import smallest_exact
from megavox.tasks.registry import build_task
from megavox.training.checkpoint import load_weights


@dataclass
class Prediction:
    """What a network says of a case.

    Attributes:
        labels: class numbers on the original grid, uint8 `(Z, Y, X)` or `(Y, X)`; None to classify.
        probabilities: `(K,)` calibrated, to classify; None to segment.
        logits: `(K,)` to classify; None to segment.
        geometry: the original grid.
    """

    labels: np.ndarray | None
    probabilities: np.ndarray | None
    logits: np.ndarray | None
    geometry: Geometry


class Predictor:
    """A run's network, ready to predict.

    Args:
        recipe: of the run.
        checkpoint: folder of the weights.
        device: where to compute.
    """

    def __init__(self, recipe: Recipe, checkpoint: Path, device: torch.device) -> None:
        if device.type == "cpu":  # bfloat16 is many times slower there
            recipe = replace(recipe, precision="float32")
        self.recipe, self.device = recipe, device
        study, preparation = recipe.study, recipe.preparation
        self.task = build_task(study.task, [])
        model = study.model
        if getattr(model, "weights", None) is not None:
            model = model.model_copy(update={"weights": None})  # the run's own weights follow
        self.network = build_model(model, spatial_dims=preparation.spatial_dims, in_channels=preparation.channels,
                                   out_channels=self.task.outputs, patch=recipe.patch)
        load_weights(checkpoint, self.network)
        self.network.to(device).eval()

    def predict(self, image: Image) -> Prediction:
        """Predict one image (all channels joined) as it came from its files.

        Raises:
            ImageError: the image is not of the form the network was trained on.
        """
        prepared = prepare(image, self.recipe.preparation)
        logits = self.logits(smallest_exact(prepared.array))
        if self.task.kind == "classify":
            temperature = self.recipe.calibration.get("temperature", 1.0)
            return Prediction(None, self.task.probabilities(logits, temperature), logits,  # type: ignore[attr-defined]
                              image.geometry)
        labels = labels_on_grid(logits, prepared.geometry, image.geometry)
        return Prediction(labels, None, None, image.geometry)

    def logits(self, array: np.ndarray) -> np.ndarray:
        """Logits of a prepared image `(C, *S)` in its own units: `(K, *S)` to segment, `(K,)` to classify."""
        statistics = intensity_statistics(array)
        numbers = normaliser(self.recipe.normalise, statistics, self.recipe.cohort_intensities)
        return network_logits(self.network, self.recipe, normalise(array, numbers), outside_value(statistics, numbers),
                              self.device)


def network_logits(network: torch.nn.Module, recipe: Recipe, image: np.ndarray, outside: np.ndarray,
                   device: torch.device) -> np.ndarray:
    """Logits of a normalised image as the study's inference section asks.

    Args:
        network: in evaluation mode, on `device`.
        recipe: patch, overlap, mirroring, precision.
        image: `(C, *S)` float32.
        outside: `(C,)`, the value around the image.
    """
    options = {"outside": outside, "mirror": recipe.mirror, "device": device, "precision": recipe.precision}
    if recipe.study.task.kind == "classify":
        return whole_image(network, image, recipe.patch, **options)  # type: ignore[arg-type]
    inference = recipe.study.inference
    return sliding_windows(network, image, recipe.patch, overlap=inference.overlap, batch=inference.batch,
                           **options)  # type: ignore[arg-type]


def labels_on_grid(logits: np.ndarray, source: Geometry, target: Geometry) -> np.ndarray:
    """Class numbers on another grid: logits interpolated linearly class by class, the largest wins.

    Args:
        logits: `(K, *S)` on `source`.
        source, target: grids in one world.

    Returns:
        uint8 `(Z, Y, X)` or `(Y, X)`; voxels outside `source` are background.
    """
    if source == target:
        return logits.argmax(axis=0).astype(np.uint8)
    best = labels = None
    for number, values in enumerate(logits):
        here = resample_to_grid(values[None], source, target, order=1, outside=0.0 if number == 0 else -np.inf)[0]
        if best is None:
            best, labels = here, np.zeros(here.shape, np.uint8)
            continue
        better = here > best
        labels[better] = number  # type: ignore[index]
        np.maximum(best, here, out=best)
    assert labels is not None
    return labels

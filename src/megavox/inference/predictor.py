"""One case in, one prediction out, on the grid the image came on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from torch import nn

from megavox.core.files import text_hash
from megavox.core.workspace import DONE
from megavox.images.balls import ball
from megavox.images.geometry import Geometry
from megavox.images.image import Image
from megavox.images.intensity import intensity_statistics, normalise, normaliser, outside_value
from megavox.images.lungs import NOT_FOUND, search_field
from megavox.images.prepare import prepare
from megavox.inference.engines import OpenVINOEngine, StreamedEngine, TorchEngine, choose_engine
from megavox.inference.export import LabelExport
from megavox.inference.recipe import Recipe, called_above
from megavox.inference.tiles import Engine, bands, mirrored, sliding_windows, whole_image
from megavox.models.registry import build_model, multiples
from megavox.models.unet import UNet
from megavox.store.pack import smallest_exact
from megavox.tasks.candidates import Candidates
from megavox.tasks.registry import build_task
from megavox.training.checkpoint import load_weights

AIR = 0.1  # of the range of intensities: `inference.skip_air` leaves out windows without a brighter voxel


@dataclass
class Prediction:
    """What a network says of a case.

    Attributes:
        geometry: the original grid.
        labels: class numbers on it, uint8 `(Z, Y, X)` or `(Y, X)`; to detect, numbers of the candidates that are
            called, the surest first; None to classify.
        probabilities: `(K,)` calibrated, to classify.
        logits: `(K,)` to classify.
        candidates: to detect, all of them.
        remarks: what was odd but harmless.
    """

    geometry: Geometry
    labels: np.ndarray | None = None
    probabilities: np.ndarray | None = None
    logits: np.ndarray | None = None
    candidates: Candidates | None = None
    remarks: tuple[str, ...] = ()


class Predictor:
    """A run's network, ready to predict.

    Args:
        recipe: of the run.
        checkpoint: folder of the weights.
        device: where to compute.
    """

    def __init__(self, recipe: Recipe, checkpoint: Path, device: torch.device) -> None:
        self.recipe = recipe
        self.task = build_task(recipe.study.task, [])
        self.engine = self._engine(checkpoint, device)
        self.recipe = replace(recipe, precision=self.engine.precision)  # a CPU without bfloat16 takes float32

    def _engine(self, checkpoint: Path, device: torch.device) -> TorchEngine | StreamedEngine | OpenVINOEngine:
        """For windows, or for whole images; with the weights of a checkpoint, on a device."""
        recipe = self.recipe
        if recipe.whole:
            network = self._network(checkpoint).to(device).eval()
            assert isinstance(network, UNet), "a study permits whole images for no other network"
            return StreamedEngine(network, recipe.precision)
        window = (recipe.preparation.channels, *recipe.patch)
        return choose_engine(
            recipe.study.inference.engine, lambda: self._network(checkpoint).to(device).eval(), device, window,
            precision=recipe.precision, kept=checkpoint / _kept_name(checkpoint, window))

    def _network(self, checkpoint: Path) -> nn.Module:
        """The network with its weights; they are the file itself, mapped, which workers share."""
        study, preparation = self.recipe.study, self.recipe.preparation
        model = study.model
        if getattr(model, "weights", None) is not None:
            model = model.model_copy(update={"weights": None})  # the run's own weights follow
        network = build_model(model, spatial_dims=preparation.spatial_dims, in_channels=preparation.channels,
                              out_channels=self.task.outputs, patch=self.recipe.patch)
        load_weights(checkpoint, network, mapped=True)
        return network

    def predict(self, image: Image) -> Prediction:
        """Predict one image (all channels joined) as it came from its files.

        Raises:
            ImageError: the image is not of the form the network was trained on.
        """
        prepared = prepare(image, self.recipe.preparation)
        array = smallest_exact(prepared.array)
        if self.task.kind == "classify":
            normalised, outside, _ = self._normalised(array)
            logits = logits_of(self.engine, self.recipe, normalised, outside)
            temperature = self.recipe.calibration.get("temperature", 1.0)
            probabilities = self.task.probabilities(logits, temperature)  # type: ignore[attr-defined]
            return Prediction(image.geometry, probabilities=probabilities, logits=logits)
        if self.task.kind == "detect":
            return self._detected(array, prepared.geometry, image)
        export = LabelExport(prepared.geometry, image.geometry, image.spatial_dims)
        for slab in self.slabs(array):
            export.add(slab)
        return Prediction(image.geometry, export.labels)

    def _detected(self, array: np.ndarray, geometry: Geometry, image: Image) -> Prediction:
        section = self.recipe.study.task
        field = search_field(array[0], geometry.spacing_zyx, section.within)  # type: ignore[union-attr]
        where = field.mask
        logits = np.concatenate(list(self.slabs(array, where)), axis=1)
        found = self.task.candidates(logits, where, geometry)  # type: ignore[attr-defined]
        called = found.scores > called_above(self.recipe)
        labels = np.zeros(image.array.shape[1:], np.uint8)
        for number in np.flatnonzero(called)[::-1]:  # the surest is drawn last
            drawn = ball(image.geometry, labels.shape, found.centres_mm[number], found.diameters_mm[number])
            labels[drawn] = number + 1
        return Prediction(image.geometry, labels, candidates=found, remarks=() if field.sound else (NOT_FOUND,))

    def slabs(self, array: np.ndarray, where: np.ndarray | None = None) -> Iterator[np.ndarray]:
        """Logits of a prepared image `(C, *S)` in its own units, slab by slab; see `tiles.bands`."""
        inference = self.recipe.study.inference
        normalised, outside, bright = self._normalised(array)
        if inference.skip_air and where is None:
            limit = outside + AIR * (bright - outside)
            where = (normalised > limit.reshape(-1, *([1] * (array.ndim - 1)))).any(axis=0)
        return bands(mirrored(self.engine, self.recipe.mirror), normalised, self._window(array.shape[1:]),
                     outside=outside, overlap=inference.overlap, batch=inference.batch,
                     where=where)

    def _window(self, size: Sequence[int]) -> tuple[int, ...]:
        """Of an image of that size: the patch, or all of it and as much around as the network needs."""
        patch = self.recipe.patch
        if not self.recipe.whole:
            return patch
        return tuple(-(-n // m) * m for n, m in zip(size, multiples(self.recipe.study.model, patch), strict=True))

    def _normalised(self, array: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The image `(C, *S)`, what lies outside it `(C,)`, and its 99.5 percentile `(C,)`, all normalised."""
        statistics = intensity_statistics(array)
        numbers = normaliser(self.recipe.normalise, statistics, self.recipe.cohort_intensities)
        bright = normalise(np.array([[channel["p995"]] for channel in statistics], np.float32), numbers)[:, 0]
        return normalise(array, numbers), outside_value(statistics, numbers), bright


def logits_of(engine: Engine, recipe: Recipe, image: np.ndarray, outside: np.ndarray,
              where: np.ndarray | None = None) -> np.ndarray:
    """Logits of a normalised image as the study's inference section asks.

    Args:
        engine: computes windows.
        recipe: patch, overlap, mirroring.
        image: `(C, *S)` float32.
        outside: `(C,)`, the value around the image.
        where: see `tiles.bands`.

    Returns:
        `(K, *S)` to segment and detect, `(K,)` to classify.
    """
    engine = mirrored(engine, recipe.mirror)
    if recipe.study.task.kind == "classify":
        return whole_image(engine, image, recipe.patch, outside=outside)
    inference = recipe.study.inference
    return sliding_windows(engine, image, recipe.patch, outside=outside, overlap=inference.overlap,
                           batch=inference.batch, where=where)


def _kept_name(checkpoint: Path, window: Sequence[int]) -> str:
    """Of the folder that keeps these weights as converted by the OpenVINO that is installed."""
    try:
        version = metadata.version("openvino")
    except metadata.PackageNotFoundError:
        version = ""
    weights = text_hash((checkpoint / DONE).read_text())[:8]  # it holds their hashes
    return f"openvino-{version}-{weights}-{'x'.join(map(str, window))}"

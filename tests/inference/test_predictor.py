"""A predictor that sees whole images: what the network itself says of them."""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from megavox.core.errors import StudyError
from megavox.images.intensity import intensity_statistics, normalise, normaliser, outside_value
from megavox.inference.engines import OpenVINOEngine, StreamedEngine, TorchEngine
from megavox.inference.predictor import Predictor
from megavox.inference.tiles import Engine
from megavox.memory.live import Kind, Live
from megavox.models.registry import build_model
from megavox.models.unet import UNet
from megavox.training.checkpoint import load_weights
from small_network import small_network

BATCH_NORM = {"family": "unet", "filters": 4, "levels": 2, "norm": "batch"}
FAST = {"mirror": False, "fast": {"whole": True}}
CPU = torch.device("cpu")


def whole_predictor(folder: Path, slab_bytes: int, **changes: Any) -> tuple[Predictor, UNet]:
    """One that predicts whole images in slabs of so many bytes, and its network."""
    network = small_network(folder, model=BATCH_NORM, **{"inference": FAST} | changes)
    predictor = Predictor(network.recipe.fast(), network.checkpoint, CPU)
    assert isinstance(predictor.engine, StreamedEngine)
    predictor.engine.slab_bytes = slab_bytes
    return predictor, predictor.engine.network


def logits(predictor: Predictor, image: np.ndarray) -> np.ndarray:
    return np.concatenate(list(predictor.slabs(image)), axis=1)


@pytest.mark.parametrize("size", [(9, 10, 11), (5, 20, 8)])
def test_a_whole_image_is_shown_at_once_with_as_much_around_as_the_network_needs(tmp_path: Path,
                                                                               size: tuple[int, ...]) -> None:
    network = small_network(tmp_path, model=BATCH_NORM, inference=FAST)
    recipe, image = network.recipe.fast(), np.random.default_rng(0).integers(0, 900, (1, *size)).astype(np.int16)
    found = logits(Predictor(recipe, network.checkpoint, CPU), image)

    net = build_model(recipe.study.model, spatial_dims=3, in_channels=1, out_channels=3, patch=(8, 8, 8)).eval()
    load_weights(network.checkpoint, net)
    statistics = intensity_statistics(image)
    numbers = normaliser("zscore", statistics, None)
    around = [(n % 2, 0) for n in size]  # two levels: sides are even
    padded = np.pad(normalise(image, numbers), [(0, 0), *around], constant_values=outside_value(statistics, numbers)[0])
    with torch.inference_mode():
        wanted = net(torch.from_numpy(padded)[None])[0].numpy()
    wanted = wanted[(slice(None), *(slice(low, None) for low, _ in around))]
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    windows = logits(Predictor(replace(recipe, whole=False), network.checkpoint, CPU), image)
    assert np.abs(windows - wanted).max() > 1e-3, "borders of windows show"


@pytest.mark.parametrize("norm", ["instance", "group"])
def test_a_norm_over_all_that_the_network_sees_permits_no_whole_images(tmp_path: Path, norm: str) -> None:
    with pytest.raises(StudyError, match=r"inference\.fast\.whole: only for .* norm: batch"):
        small_network(tmp_path, model=BATCH_NORM | {"norm": norm}, inference=FAST)


@pytest.mark.parametrize("mirror", [[], ["left-right"], ["up-down"], ["left-right", "front-back", "up-down"]])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_in_slabs_the_logits_are_those_of_one_pass(tmp_path: Path, mirror: list[str], precision: str) -> None:
    predictor, network = whole_predictor(
        tmp_path, 1, batches={"patch": [8, 8, 8], "size": 2, "augment": {"mirror": mirror}},
        inference={"mirror": True, "skip_air": True, "fast": {"whole": True, "precision": precision}})
    image = np.random.default_rng(0).integers(0, 900, (1, 21, 14, 9)).astype(np.int16)
    assert len(predictor.recipe.mirror) == len(mirror)
    found = logits(predictor, image)
    predictor.engine = TorchEngine(network, CPU, precision)
    wanted = logits(predictor, image)
    assert found.shape == wanted.shape == (3, 21, 14, 9)
    assert found.dtype == wanted.dtype == np.float32
    most = 1e-4 if precision == "float32" else 2e-2
    assert np.abs(found - wanted).max() < most * np.abs(wanted).max()


def most_maps(engine: Engine, network: UNet, length: int) -> int:
    """Bytes of feature maps that are there at a time."""
    windows = torch.zeros(1, 1, length, 16, 16)
    with Live(network) as live:
        live.there([windows], Kind.INPUT)
        live.there([engine(windows)], Kind.INPUT)
    return max(accumulate(size for number, size in live.events if live.made[number].kind is Kind.ACTIVATIONS))


def test_feature_maps_take_no_more_for_a_longer_volume(tmp_path: Path) -> None:
    slices = 4
    predictor, network = whole_predictor(tmp_path, slices * 3 * 4 * 4 * 16 * 16)  # of 4 filters in float32, 3 maps
    plain = TorchEngine(network, CPU)
    assert most_maps(predictor.engine, network, 64) == most_maps(predictor.engine, network, 256)
    assert most_maps(plain, network, 256) > 3.9 * most_maps(plain, network, 64)
    assert most_maps(plain, network, 64) > 2 * most_maps(predictor.engine, network, 64)


def test_slabs_are_as_thick_as_their_bytes_allow(tmp_path: Path) -> None:
    predictor, network = whole_predictor(tmp_path, 0)
    engine = predictor.engine
    assert isinstance(engine, StreamedEngine)
    two_slices = 2 * 3 * 4 * 4 * 16 * 16

    def made_at_a_time(slab_bytes: int) -> int:
        engine.slab_bytes = slab_bytes
        return most_maps(engine, network, 64)

    assert made_at_a_time(0) < made_at_a_time(2 * two_slices) < made_at_a_time(8 * two_slices)
    assert made_at_a_time(two_slices) == made_at_a_time(two_slices + 1)


@pytest.mark.parametrize(("name", "kind"), [("pytorch", TorchEngine), ("openvino", OpenVINOEngine)])
def test_windows_are_computed_by_the_engine_of_the_study(tmp_path: Path, name: str, kind: type) -> None:
    pytest.importorskip(name.replace("py", ""), reason="the extra megavox[cpu] is not installed")
    network = small_network(tmp_path, model=BATCH_NORM, inference=FAST | {"engine": name})
    assert isinstance(Predictor(network.recipe, network.checkpoint, CPU).engine, kind)
    assert isinstance(Predictor(network.recipe.fast(), network.checkpoint, CPU).engine, StreamedEngine)

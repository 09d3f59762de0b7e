"""A predictor that sees whole images: what the network itself says of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from megavox.core.errors import StudyError
from megavox.images.intensity import intensity_statistics, normalise, normaliser, outside_value
from megavox.inference.predictor import Predictor
from megavox.models.registry import build_model
from megavox.training.checkpoint import load_weights
from small_network import small_network

BATCH_NORM = {"family": "unet", "filters": 4, "levels": 2, "norm": "batch"}
FAST = {"mirror": False, "fast": {"whole": True}}


@pytest.mark.parametrize("size", [(9, 10, 11), (5, 20, 8)])
def test_a_whole_image_is_shown_at_once_with_as_much_around_as_the_network_needs(tmp_path: Path,
                                                                               size: tuple[int, ...]) -> None:
    network = small_network(tmp_path, model=BATCH_NORM, inference=FAST)
    recipe, image = network.recipe.fast(), np.random.default_rng(0).integers(0, 900, (1, *size)).astype(np.int16)
    predictor = Predictor(recipe, network.checkpoint, torch.device("cpu"))
    found = np.concatenate(list(predictor.slabs(image)), axis=1)

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
    windows = np.concatenate(list(Predictor(replace(recipe, whole=False), network.checkpoint,
                                            torch.device("cpu")).slabs(image)), axis=1)
    assert np.abs(windows - wanted).max() > 1e-3, "borders of windows show"


@pytest.mark.parametrize("norm", ["instance", "group"])
def test_a_norm_over_all_that_the_network_sees_permits_no_whole_images(tmp_path: Path, norm: str) -> None:
    with pytest.raises(StudyError, match=r"inference\.fast\.whole: only for .* norm: batch"):
        small_network(tmp_path, model=BATCH_NORM | {"norm": norm}, inference=FAST)

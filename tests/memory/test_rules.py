"""The rules that fill in `auto`: what they give is a study whose network can be built and run."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from megavox.cohort.survey import Fingerprint
from megavox.memory.machine import Machine
from megavox.memory.rules import apply, derive, prepared_size
from megavox.models.registry import build_model
from megavox.study import Study

LAPTOP = Machine(cores=2, memory_gb=24.0)
CLUSTER = Machine(cores=64, memory_gb=500.0, gpus=("a GPU",), gpu_memory_gb=80.0, gpu_bfloat16=True)


def cohort(shapes: list[list[int]], spacings: list[list[float]] | None = None, **facts: Any) -> Fingerprint:
    """A fingerprint of volumes, or of pictures where Z is 1."""
    dims = 3 if shapes[0][0] > 1 else 2
    given: dict[str, Any] = {
        "n_cases": len(shapes), "n_subjects": len(shapes), "n_read": len(shapes), "spatial_dims": dims, "channels": 1,
        "colour": False, "shapes": shapes, "spacings_mm": spacings or [[1.0, 1.0, 1.0]] * len(shapes), "dtypes": {},
        "modality": "MR", "modalities": {}, "orientations": {}, "calibrated": [True] * len(shapes), "classes": {}}
    return Fingerprint(**{**given, **facts})


def study(kind: str, **sections: Any) -> Study:
    """A study with everything else at `auto`."""
    classes = {"organ": 1} if kind == "segment" else ["well", "ill"]
    family = {"family": "unet"} if kind == "segment" else {"family": "resnet", "depth": 18}
    return Study.model_validate({
        "name": "rules", "cohort": {"layout": "decathlon" if kind == "segment" else "folders", "folder": "."},
        "task": {"kind": kind, "classes": classes}, "model": family, **sections})


def derived(kind: str, facts: Fingerprint, machine: Machine = LAPTOP, **sections: Any) -> Study:
    wanted = study(kind, **sections)
    return apply(wanted, derive(wanted, facts, machine))


@settings(max_examples=60)
@given(size=st.lists(st.integers(3, 700), min_size=3, max_size=3), flat=st.booleans(), kind=st.sampled_from(
    ["segment", "classify"]), machine=st.sampled_from([LAPTOP, CLUSTER]))
def test_any_size_gives_a_network_that_takes_its_patch(size: list[int], flat: bool, kind: str,
                                                       machine: Machine) -> None:
    if flat:
        size = [1, *size[1:]]
    full = derived(kind, cohort([size] * 8), machine)
    patch = tuple(full.batches.patch)
    assert len(patch) == (2 if flat else 3) and full.batches.size >= 2
    with torch.device("meta"):
        network = build_model(full.model, spatial_dims=len(patch), in_channels=1, out_channels=2, patch=patch)
        output = network(torch.zeros(2, 1, *patch))
    assert output.shape == ((2, 2, *patch) if kind == "segment" else (2, 2))


def test_few_slices_do_not_make_the_network_shallow() -> None:
    """Ten slices of 512 x 512 keep their slices and are halved within the slice."""
    full = derived("segment", cohort([[10, 512, 512]] * 20))
    assert full.model.levels == 5 and full.batches.patch == [10, 96, 112]  # type: ignore[union-attr]
    pictures = derived("segment", cohort([[1, 512, 512]] * 20))
    assert pictures.model.levels == 6 and pictures.batches.patch == [256, 256]  # type: ignore[union-attr]


def test_levels_follow_a_patch_that_is_given() -> None:
    full = derived("segment", cohort([[100, 512, 512]] * 20), batches={"patch": [20, 100, 100]})
    assert full.model.levels == 3  # type: ignore[union-attr]  # 100, 50, 25


def test_a_few_images_without_spacing_do_not_turn_resampling_off() -> None:
    spacings = [[3.0, 1.0, 1.0], [5.0, 0.5, 0.5], [4.0, 0.8, 0.8], [1.0, 1.0, 1.0]]
    facts = cohort([[20, 200, 200]] * 4, spacings, calibrated=[True, True, True, False])
    full = derived("segment", facts)
    assert full.images.spacing_mm == [4.0, 0.8, 0.8]
    assert np.allclose(prepared_size(full, facts), [20, 200, 200])  # the last one takes no part
    assert derived("segment", cohort([[20, 200, 200]] * 4, spacings, calibrated=[True, False, False, True])
                   ).images.spacing_mm == "native"


def test_images_that_are_alike_are_packed_as_they_are_and_others_made_like_them() -> None:
    """At a hospital they are not all like those of the cohort."""
    assert derived("segment", cohort([[64, 64, 64]] * 8, [[1.0, 0.5, 0.5]] * 8)).images.spacing_mm == [1.0, 0.5, 0.5]
    pictures = derived("classify", cohort([[1, 224, 224]] * 8))
    assert pictures.images.size == [224, 224]


def test_a_volume_to_classify_is_seen_whole() -> None:
    facts = cohort([[30, 384, 384]] * 40, [[3.0, 0.5, 0.5]] * 40)
    full = derived("classify", facts)
    assert full.images.spacing_mm == [3.0, 2.0, 2.0] and full.batches.patch == [30, 96, 96]
    assert 4 <= full.batches.size < 16
    small = derived("classify", cohort([[30, 60, 60]] * 40))
    assert small.images.spacing_mm == [1.0, 1.0, 1.0] and small.batches.patch == [30, 60, 60]


def test_what_the_user_wrote_stays() -> None:
    full = derived("segment", cohort([[64, 64, 64]] * 8), images={"spacing_mm": [2, 2, 2]}, batches={"size": 3},
                   training={"steps": 7})
    assert full.images.spacing_mm == [2, 2, 2] and full.batches.size == 3
    assert full.training.steps == 7 and full.training.budget is None

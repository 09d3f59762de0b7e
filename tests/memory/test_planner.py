"""Ways to compute a training, and what is told of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from megavox.core.errors import StudyError
from megavox.memory.planner import Needs, Way, can_fit, chosen, largest_patch, needs, ways
from megavox.study import Study, parse_study
from megavox.study.sections import MonaiModel
from megavox.tasks.registry import build_task
from small_studies import UNET, changed

DATA: dict[str, Any] = {
    "name": "planned", "seed": 1, "cohort": {"layout": "decathlon", "folder": "images"},
    "task": {"kind": "segment", "classes": {"core": 1}, "dice": "sample"},
    "images": {"channels": ["MRI"], "spacing_mm": "native", "normalise": "zscore"},
    "batches": {"patch": [32, 32, 32], "size": 4, "workers": 0}, "model": {**UNET, "filters": 8},
    "training": {"steps": 4, "device": "cpu", "precision": "float32", "optimiser": {"rate": 1e-3}}}

PICTURES: dict[str, Any] = {
    "cohort": {"layout": "folders", "folder": "images"}, "task": {"kind": "classify", "classes": ["a", "b"]},
    "images": {"channels": ["grey"], "size": [128, 128], "normalise": "zscore"},
    "batches": {"patch": [128, 128], "size": 8, "workers": 0},
    "model": {"family": "resnet", "depth": 18, "filters": 32}}


def study(**sections: Any) -> Study:
    return parse_study(yaml.safe_dump(changed(DATA, **sections)), where=Path("study.yaml"))


def told(asked: Study, way: Way, ranks: int = 1) -> Needs:
    return needs(asked, build_task(asked.task, []), 1, ranks, way)


def test_ways_are_those_that_give_the_same_training() -> None:
    texts = [str(way) for way in ways(study(), 1)]
    assert texts == ["plain", "streamed in slabs of 8 MB", "recomputed", "plain, 2 micro-batches",
                     "streamed in slabs of 8 MB, 2 micro-batches", "recomputed, 2 micro-batches",
                     "plain, 4 micro-batches", "streamed in slabs of 8 MB, 4 micro-batches",
                     "recomputed, 4 micro-batches"]
    for other in (study(task={"dice": "batch"}), study(model={"norm": "batch"}), study(batches={"size": 1}),
                  study(task={"ignore": [2]}), study(task={"class_weights": [1.0, 2.0]})):
        assert [way.accumulate for way in ways(other, 1)] == [1, 1, 1]
    unclipped = study(training={**DATA["training"], "optimiser": {"rate": 1e-3, "clip": None}})
    assert [way.accumulate for way in ways(unclipped, 1) if way.in_backward] == [1, 1, 1]
    assert ways(study(), 4) == ways(study(batches={"size": 1}), 1)


def test_slabs_of_a_large_volume_are_thick_enough_on_a_cpu_to_be_followed_soon() -> None:
    sizes = [way.slab_mb for side in (64, 256) for way in ways(study(batches={"patch": [side] * 3, "size": 1}), 1)
             if way.compute == "streamed"]
    assert sizes == [8.0, 34.0]


def test_what_the_study_says_is_left_open_no_more() -> None:
    asked = study(training={"memory": {"compute": "streamed", "slab_mb": 3}, "accumulate": 2})
    assert ways(asked, 1) == [Way("streamed", 2, 3.0), Way("streamed", 4, 3.0)]


def test_each_way_takes_less_than_the_plain_one_and_costs_what_it_is_known_to() -> None:
    asked = study()
    plain = told(asked, Way("plain", 1))
    streamed, recomputed, parts = (told(asked, way) for way in
                                   (Way("streamed", 1, 0.2), Way("recomputed", 1), Way("plain", 4)))
    assert streamed.taken_gb < plain.taken_gb and streamed.peak_gb < 0.6 * plain.peak_gb
    assert recomputed.peak_gb < plain.peak_gb and parts.peak_gb < 0.5 * plain.peak_gb
    assert parts.operations == plain.operations < streamed.operations < recomputed.operations < 1.4 * plain.operations
    assert sum(plain.kinds.values()) == pytest.approx(plain.peak_gb)
    assert len(plain.largest) == 5 and "activations" in plain.largest[0]


def test_ranks_share_the_batch_and_keep_a_copy_of_the_gradients() -> None:
    alone, shared = told(study(batches={"size": 2}), Way("plain", 1)), told(study(), Way("plain", 1), ranks=2)
    assert shared.peak_gb == pytest.approx(alone.peak_gb + alone.kinds["weights"])


def test_ranks_that_step_in_the_backward_pass_keep_two_buckets() -> None:
    data = {**DATA["training"], "optimiser": {"rate": 1e-3, "clip": None}, "ranks": {"bucket_mb": 0.001}}
    asked = study(training=data, model={"norm": "batch"})
    after, within = (told(asked, Way("plain", in_backward=within), ranks=2) for within in (False, True))
    assert within.peak_gb < after.peak_gb - 0.5 * after.kinds["weights"]


def test_a_gpu_computes_norms_of_groups_in_float32_under_autocast() -> None:
    cpu, gpu = (told(study(training={**DATA["training"], "precision": "bfloat16", "device": device}),
                     Way("plain")).peak_gb for device in ("cpu", "cuda"))
    assert 1.5 * cpu < gpu


@pytest.mark.parametrize("task", ["segment", "classify"])
def test_every_way_can_be_told_of_a_gpu_under_autocast(task: str) -> None:
    """Also that which computes norms again in the backward pass, where they have to have the type that they had."""
    data = {**DATA, **(PICTURES if task == "classify" else {})}
    data["training"] = {**DATA["training"], "precision": "bfloat16", "device": "cuda"}
    asked = parse_study(yaml.safe_dump(data), where=Path("study.yaml"))
    found = {str(way): told(asked, way) for way in ways(asked, 1) if way.accumulate == 1}
    assert len(found) == 8 and all(one.host_gb == 0 for one in found.values() if not one.way.offload)
    assert found["plain, activations in main memory"].host_gb > 0
    assert found["recomputed"].peak_gb < found["plain"].peak_gb


def test_of_several_ways_that_copy_to_main_memory_one_is_chosen_that_has_enough_of_it() -> None:
    found = [Needs(Way("plain", offload=True), 2.0, 2.0, {}, "", (), 100, host_gb=9.0),
             Needs(Way("streamed", offload=True), 1.0, 1.0, {}, "", (), 107, host_gb=3.0)]
    assert [one and one.way.compute for one in (chosen(found, 5.0, gb) for gb in (10.0, 5.0, 1.0))] == \
        ["plain", "streamed", None]


def test_a_search_is_told_that_a_setting_can_be_made_to_fit() -> None:
    asked = study()
    task, plain = build_task(asked.task, []), told(asked, Way("plain")).taken_gb
    least = min(told(asked, way).taken_gb for way in ways(asked, 1))
    assert can_fit(asked, task, 1, 1, least + 0.001) and least < plain
    assert not can_fit(asked, task, 1, 1, 0.5)


def test_of_what_fits_that_is_chosen_which_costs_least() -> None:
    found = [Needs(Way(name, 1), gb, gb, {}, "", (), cost) for name, gb, cost in
             (("plain", 4.0, 100), ("streamed", 2.0, 107), ("recomputed", 1.0, 133))]
    assert [one and one.way.compute for one in (chosen(found, gb) for gb in (5, 3, 1.5, 0.5))] == \
        ["plain", "streamed", "recomputed", None]


def test_the_largest_patch_that_fits_plainly_is_one_that_does() -> None:
    asked = study()
    task, whole = build_task(asked.task, []), told(asked, Way("plain", 1)).taken_gb
    assert largest_patch(asked, task, 1, 1, whole + 0.001) == (32, 32, 32)
    less = 0.5 + 0.6 * (whole - 0.5)
    patch = largest_patch(asked, task, 1, 1, less)
    assert patch is not None and all(side % 2 == 0 for side in patch) and 16 < patch[0] < 32
    assert told(study(batches={"patch": list(patch)}), Way("plain", 1)).taken_gb <= less
    assert largest_patch(asked, task, 1, 1, 0.1) is None


def test_networks_that_cannot_be_computed_so_say_it() -> None:
    asked = study().model_copy(update={"model": MonaiModel(
        family="monai", network="BasicUNet", arguments={"features": [8] * 6})})
    assert told(asked, Way("recomputed", 1)).peak_gb < told(asked, Way("plain", 1)).peak_gb
    with pytest.raises(StudyError, match="cannot be computed slab by slab"):
        told(asked, Way("streamed", 1, 8.0))

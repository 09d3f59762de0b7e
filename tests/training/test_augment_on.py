"""Augmentation on the device: what is trained with it, and how the place is chosen and kept."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from megavox.core.signals import Stop, Stopped
from megavox.core.workspace import RunFolder
from megavox.inference.recipe import Recipe
from megavox.memory.rules import Derived
from megavox.pipeline import train as stage
from megavox.pipeline.augment_on import KEY, faster_place, place_augmentation
from megavox.pipeline.plan import derived_plan
from megavox.pipeline.workshop import Workshop
from megavox.training.checkpoint import AVERAGED, NETWORK, OPTIMISER
from megavox.training.loop import train
from megavox.training.parallel import Ranks
from packed_arrays import WILD
from small_studies import changed, packed_organs, project_of

ALONE = Ranks(0, 1, torch.device("cpu"))
STEPS = 4
SECTIONS: dict[str, Any] = {
    "batches": {"augment_on": "device", "augment": WILD.model_dump()},
    "training": {"steps": STEPS, "validations": 2, "accumulate": 2, "keep": 1}}


@pytest.fixture(scope="module")
def organs(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    data, folder = packed_organs(tmp_path_factory.getbasetemp())
    return changed(data, **SECTIONS), folder


def losses(run: RunFolder) -> list[float]:
    lines = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


class StopAtOnce(Stop):
    """Asks to stop after every step."""

    @property
    def asked(self) -> bool:
        return True


def same_ending(one: RunFolder, other: RunFolder) -> None:
    for name in (NETWORK, AVERAGED, OPTIMISER):
        assert (one.step(STEPS) / name).read_bytes() == (other.step(STEPS) / name).read_bytes(), name
    assert len(losses(one)) == STEPS and losses(one) == losses(other)


@pytest.fixture(scope="module")
def whole(organs: tuple[dict[str, Any], Path]) -> RunFolder:
    """The training that nobody stopped, with augmentation on the device."""
    project = project_of(*organs, "on-device")
    stage.train(project)
    return project.run


def test_the_same_training_twice_ends_the_same(organs: Any, whole: RunFolder) -> None:
    project = project_of(*organs, "on-device-again")
    stage.train(project)
    same_ending(whole, project.run)


def test_stopped_after_each_step_it_ends_the_same(organs: Any, whole: RunFolder) -> None:
    project = project_of(*organs, "on-device-stopped")
    project.run.checkpoints.mkdir(parents=True)
    for step in range(1, STEPS + 1):
        training = Workshop(project, derived_plan(project).study).training(ALONE)
        with pytest.raises(Stopped, match=f"after step {step};"):
            train(training, project.run, ALONE, StopAtOnce("stopping"))
    same_ending(whole, project.run)


def test_it_learns_from_what_the_workers_would_have_made(organs: Any, whole: RunFolder) -> None:
    """The first loss, before rounding has spread through the weights."""
    data, folder = organs
    project = project_of(changed(data, batches={"augment_on": "cpu"}), folder, "by-workers")
    stage.train(project)
    assert losses(project.run)[0] == pytest.approx(losses(whole)[0], abs=1e-3)


# ------------------------------------------------------------------ auto


def test_auto_is_the_cpu_without_a_cuda_device_and_is_recorded(organs: Any) -> None:
    data, folder = organs
    project = project_of(changed(data, batches={"augment_on": "auto"}), folder, "auto")
    stage.train(project)
    recipe = Recipe.read(project.run.recipe)
    assert recipe.study.batches.augment_on == "cpu" and recipe.asked.batches.augment_on == "auto"
    assert [one["value"] for one in recipe.derived if one["key"] == KEY] == ["cpu"]
    assert place_augmentation(project, recipe.study, ALONE) == []


def test_the_faster_place_is_taken_and_both_times_are_told(organs: Any) -> None:
    data, folder = organs
    project = project_of(changed(data, batches={"augment_on": "auto"}), folder, "measured")
    study = derived_plan(project).study
    budget = study.training.model_copy(update={"steps": "auto", "budget": 10.0})  # which bounds the measuring
    found = faster_place(project, study.model_copy(update={"training": budget}), ALONE)
    workers, device = (float(text) for text in re.findall(r"(\d+\.\d+) s", found.why))
    assert found.key == KEY and found.value == ("device" if device < workers else "cpu") and min(workers, device) > 0


def test_a_run_goes_on_with_the_place_that_was_measured_when_it_began(organs: Any, whole: RunFolder,
                                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    data, folder = organs
    project = project_of(changed(data, batches={"augment_on": "auto"}), folder, "kept")
    with monkeypatch.context() as begun:
        begun.setattr(stage, "place_augmentation", lambda *_: [Derived(KEY, "device", "measured on a GPU")])
        begun.setattr(stage, "Stop", StopAtOnce)
        with pytest.raises(Stopped):
            stage.train(project)
    stage.train(project)
    recipe = Recipe.read(project.run.recipe)
    assert recipe.study.batches.augment_on == "device"
    assert [one["why"] for one in recipe.derived if one["key"] == KEY] == ["measured on a GPU"]
    same_ending(whole, project.run)

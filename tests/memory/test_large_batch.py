"""What the recipe for large batches changes, and that it changes nothing twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from megavox.memory.large_batch import LEAST_EMA, WARMUP, large_batch
from megavox.memory.rules import apply
from megavox.study import Study, parse_study, show_study

TEXT = """
name: small
cohort: {layout: decathlon, folder: images}
task: {kind: segment, classes: {core: 1}}
batches: {patch: [16, 16, 16], size: 4}
model: {family: unet, filters: 4, levels: 2}
training: {steps: 1000, scale: 16, ema: 0.99, optimiser: {rate: 0.003, warmup: 0.01}}
"""


@pytest.fixture
def study() -> Study:
    return parse_study(TEXT, where=Path("study.yaml"))


def test_as_many_samples_are_seen_in_fewer_steps(study: Study) -> None:
    found = apply(study, large_batch(study, 16))
    assert found.batches.size == 64 and found.training.steps == 63
    assert found.training.ema == pytest.approx(0.99**16)
    assert found.training.optimiser.warmup == WARMUP and found.training.optimiser.name == "lamb"
    assert found.training.optimiser.rate == pytest.approx(0.003 * 10 / 3 * 4), "four times that of lamb"


def test_no_setting_becomes_weaker_than_it_was(study: Study) -> None:
    patient = study.training.optimiser.model_copy(update={"warmup": 0.3, "clip": 0.5, "betas": (0.8, 0.9)})
    training = study.training.model_copy(update={"optimiser": patient, "ema": 0.5})
    found = apply(study, large_batch(study.model_copy(update={"training": training}), 64)).training
    assert (found.optimiser.warmup, found.optimiser.clip, found.optimiser.betas) == (0.3, 0.5, (0.8, 0.9))
    assert found.ema == 0.5
    assert apply(study, large_batch(study, 64)).training.ema == LEAST_EMA


def test_momentum_is_scaled_with_the_batch(study: Study) -> None:
    plain = study.training.optimiser.model_copy(update={"name": "sgd", "rate": 0.01})
    changed = study.model_copy(update={"training": study.training.model_copy(update={"optimiser": plain})})
    found = apply(changed, large_batch(changed, 8)).training.optimiser
    assert (found.name, found.rate, found.warmup) == ("sgd", pytest.approx(0.08), WARMUP)


def test_the_study_of_the_run_is_not_scaled_again(study: Study) -> None:
    found = apply(study, large_batch(study, 16))
    assert found.training.scale == 1 and large_batch(found, 1) == []
    again = parse_study(show_study(found), where=Path("study.yaml"))
    assert again.training == found.training


def test_one_batch_changes_nothing(study: Study) -> None:
    found = apply(study, large_batch(study, 1))
    assert found.training.model_copy(update={"scale": 16}) == study.training and found.batches == study.batches


def test_every_change_has_its_reason(study: Study) -> None:
    assert all(one.why for one in large_batch(study, 64))


def test_a_budget_stays(study: Study) -> None:
    timed = parse_study(TEXT.replace("steps: 1000", "budget: 20min"), where=Path("study.yaml"))
    found = apply(timed, large_batch(timed, 8))
    assert found.training.budget == 1200 and found.training.steps == "auto"

"""The training loop: schedules, averages, when it validates, when it stops, and what it repeats."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import nn

from megavox.batches.samples import Sample, Samples
from megavox.core.errors import MachineError, TrainingError, WorkspaceError
from megavox.core.files import read_json
from megavox.core.signals import Stop
from megavox.core.workspace import RunFolder
from megavox.memory.probe import probe, steps_in
from megavox.pipeline.plan import derived_plan
from megavox.pipeline.train import train as train_stage
from megavox.pipeline.workshop import Workshop
from megavox.study.training import OptimiserSection, TrainingSection
from megavox.training.best import AVERAGED, best_checkpoint
from megavox.training.checkpoint import NETWORK, latest_checkpoint
from megavox.training.loop import Training, checkpoint_steps, train, validation_steps
from megavox.training.optimiser import MovingAverage, build_optimiser, learning_rate
from megavox.training.parallel import Ranks
from small_studies import changed, packed_organs, project_of

ALONE = Ranks(0, 1, torch.device("cpu"))


@pytest.fixture
def organs(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    return packed_organs(tmp_path_factory.getbasetemp())


def training_of(organs: tuple[dict[str, Any], Path], **section: Any) -> Training:
    data, folder = organs
    project = project_of(changed(data, training=section), folder, "loop")
    return Workshop(project, derived_plan(project).study).training(ALONE)


def metrics(folder: RunFolder) -> list[dict[str, Any]]:
    return [json.loads(line) for line in folder.metrics.read_text().splitlines()]


# ------------------------------------------------------------------ schedule and average


@given(steps=st.integers(1, 400), warmup=st.floats(0, 0.9), schedule=st.sampled_from(
    ["polynomial", "cosine", "constant"]), power=st.floats(0.5, 3))
def test_learning_rate_is_the_closed_form(steps: int, warmup: float, schedule: Any, power: float) -> None:
    section = OptimiserSection(rate=0.3, warmup=warmup, schedule=schedule, power=power)
    rates = np.array([learning_rate(step, steps, section) for step in range(steps)])
    warm = round(warmup * steps)
    np.testing.assert_allclose(rates[:warm], 0.3 * np.arange(1, warm + 1) / max(warm, 1))
    t = np.arange(steps - warm) / max(steps - warm, 1)
    shape = {"polynomial": (1 - t) ** power, "cosine": np.cos(np.pi * t / 2) ** 2, "constant": np.ones_like(t)}
    np.testing.assert_allclose(rates[warm:], 0.3 * shape[schedule], rtol=1e-9, atol=1e-12)
    assert (rates > 0).all() and rates.max() <= 0.3 * (1 + 1e-12)


@pytest.mark.parametrize("decay", [0.0, 0.9, 0.99])
def test_moving_average_is_the_loop_over_all_weights(decay: float) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    average = MovingAverage(network, decay)
    expected = {name: value.double().numpy().copy() for name, value in network.state_dict().items()}
    for step in range(30):
        with torch.no_grad():
            for value in network.parameters():
                value.add_(torch.randn_like(value))
            network(torch.randn(2, 1, 4, 4))  # moves the running statistics and their count
        average.update(network, step)
        keep = min(decay, (1 + step) / (10 + step))
        for name, value in network.state_dict().items():
            new = value.double().numpy()
            expected[name] = new if name.endswith("tracked") else keep * expected[name] + (1 - keep) * new
    for name, value in average.weights.items():
        np.testing.assert_allclose(value.double().numpy(), expected[name], rtol=1e-5, atol=1e-6, err_msg=name)
    assert average.weights["1.num_batches_tracked"].item() == 30


def test_norms_and_biases_have_no_weight_decay() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.InstanceNorm2d(2, affine=True))
    for name in ("adam", "adamw", "sgd"):
        groups = build_optimiser(network, OptimiserSection(name=name, rate=0.1, weight_decay=0.1)).param_groups  # type: ignore[arg-type]
        decays = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
        assert [decays[id(p)] for p in network.parameters()] == [0.1, 0, 0, 0]


@given(steps=st.integers(1, 500), validations=st.integers(1, 50))
def test_validations_are_spread_evenly_and_end_with_the_last_step(steps: int, validations: int) -> None:
    found = sorted(validation_steps(TrainingSection(steps=steps, validations=validations)))
    assert len(found) == min(steps, validations)
    assert found[-1] == steps
    gaps = np.diff([0, *found])
    assert gaps.min() >= 1 and gaps.max() - gaps.min() <= 1


def test_checkpoints_come_at_validations_and_at_the_steps_asked_for() -> None:
    section = TrainingSection(steps=10, validations=2, checkpoint_every=3)
    assert checkpoint_steps(section) == {3, 5, 6, 9, 10}
    assert checkpoint_steps(TrainingSection(steps=10, validations=2)) == {5, 10}


# ------------------------------------------------------------------ how it ends


class Spoilt(Samples):
    """Samples of which one, at a given step, has a voxel that is not a number."""

    def sample(self, step: int, position: int) -> Sample:
        found = super().sample(step, position)
        if (step, position) == (2, 1):
            found.image[0, 3, 3, 3] = np.nan
        return found


def test_a_batch_with_nan_stops_the_training_and_names_its_cases(organs: Any, tmp_path: Path) -> None:
    training = training_of(organs, validations=4)
    good = training.samples
    spoilt = Spoilt(good.readers, good.numbers, patch=good.patch, batch=good.batch, section=good.section,
                    seed=good.seed)
    names = {good.case_name(2, 0), good.case_name(2, 1)}
    others = {reader.name for reader in good.readers} - names
    with Stop("stopping") as stop, pytest.raises(TrainingError) as caught:
        train(replace(training, samples=spoilt), RunFolder(tmp_path), ALONE, stop)
    message = str(caught.value)
    assert "nan at step 3" in message and all(name in message for name in names)
    assert not any(name in message for name in others)
    assert latest_checkpoint(RunFolder(tmp_path)) == RunFolder(tmp_path).step(2)
    with Stop("stopping") as stop:  # mended, it goes on from there
        assert train(training_of(organs, validations=4), RunFolder(tmp_path), ALONE, stop).step == 4


@pytest.mark.parametrize("optimiser", ["adamw", "sgd"])
def test_a_learning_rate_that_explodes_stops_the_training(organs: Any, tmp_path: Path, optimiser: str) -> None:
    training = training_of(organs, steps=8, validations=1, optimiser={
        "name": optimiser, "rate": 1e30, "clip": None, "warmup": 0.0, "weight_decay": 0.0})
    with Stop("stopping") as stop, pytest.raises(TrainingError, match=r"organ_\d+.*training\.optimiser\.rate"):
        train(training, RunFolder(tmp_path), ALONE, stop)


class Hungry(nn.Module):
    """Asks for more memory than there is, really."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(x) + torch.empty(10**15).sum()


def test_want_of_memory_is_the_machines_and_says_what_to_lower(organs: Any, tmp_path: Path) -> None:
    training = training_of(organs)
    training = replace(training, network=Hungry(training.network))
    told = r"batch of 2 x 1 x 16 x 16 x 16.*batches\.size"
    with Stop("stopping") as stop, pytest.raises(MachineError, match=told) as caught:
        train(training, RunFolder(tmp_path), ALONE, stop)
    assert "can't allocate memory" in caught.value.found
    with pytest.raises(MachineError):
        probe(training, ALONE, 0.0)


@dataclass
class Marks:
    """A task whose validation scores are given; its loss is real."""

    task: Any
    scores: list[float]
    headline: str = "dice"
    given: list[float] = field(default_factory=list)

    def loss(self, output: Any, target: torch.Tensor) -> torch.Tensor:
        return self.task.loss(output, target)

    def score(self, rows: list[Any]) -> dict[str, float]:
        self.given.append(self.scores[len(self.given)])
        return {"dice": self.given[-1]}


NAN = math.nan


@pytest.mark.parametrize(("scores", "patience", "ends", "best"), [
    ([0.1, 0.2, 0.2, 0.1, 0.9, 0.9, 0.9, 0.9], 2, 4, 2),
    ([0.1, 0.2, 0.2, 0.3, 0.1, 0.4, 0.1, 0.2], 2, 8, 6),
    ([0.5, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1], None, 8, 1),
    ([NAN, NAN, 0.1, NAN, 0.2, 0.1, 0.1, 0.1], None, 8, 5),
    ([NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN], 3, 4, 1)])
def test_patience_and_the_best_checkpoint(organs: Any, tmp_path: Path, scores: list[float], patience: int | None,
                                          ends: int, best: int) -> None:
    training = training_of(organs, steps=8, validations=8, patience=patience, keep=1)
    training = replace(training, task=Marks(training.task, scores), validate=lambda network: [])
    folder = RunFolder(tmp_path)
    with Stop("stopping") as stop:
        progress = train(training, folder, ALONE, stop)
    assert (progress.step, progress.best_step) == (ends, best)
    assert best_checkpoint(folder) == folder.step(best)
    kept = {path.name for path in folder.checkpoints.glob("step-*")}
    assert kept == {folder.step(best).name, folder.step(ends).name}
    with Stop("stopping") as stop:  # started again, it has nothing to do
        again = train(training, folder, ALONE, stop)
    assert (again.step, again.best_step) == (ends, best)
    assert [line["step"] for line in metrics(folder) if "loss" in line] == list(range(1, ends + 1))


def test_what_is_written_in_the_course_of_a_training(organs: Any, tmp_path: Path) -> None:
    training = training_of(organs, steps=6, validations=2)
    folder = RunFolder(tmp_path)
    with Stop("stopping") as stop:
        progress = train(training, folder, ALONE, stop)
    lines = metrics(folder)
    assert [line["step"] for line in lines if "validation" in line] == [3, 6]
    rates = [line["learning_rate"] for line in lines if "loss" in line]
    assert rates == [learning_rate(step, 6, training.section.optimiser) for step in range(6)]
    scores = [line["validation"]["dice"] for line in lines if "validation" in line]
    assert progress.best_score == max(scores) and progress.best_step == [3, 6][int(np.argmax(scores))]
    averaged, latest = (load_file(folder.step(6) / name) for name in (AVERAGED, NETWORK))
    assert any(not torch.equal(averaged[name], latest[name]) for name in latest)
    # The score is that of the averaged weights, and validation leaves the latest ones alone.
    training.network.load_state_dict(averaged)
    assert training.task.score(training.validate(training.network))["dice"] == scores[-1]


def test_accumulating_gives_the_gradient_of_the_whole_batch(organs: Any, tmp_path: Path) -> None:
    """With cross-entropy alone and plain SGD two micro-batches of 1 are one batch of 2."""
    weights = []
    for parts in (1, 2):
        training = training_of(organs, steps=2, validations=1, accumulate=parts, ema=0.0, optimiser={
            "name": "sgd", "momentum": 0.0, "rate": 0.1, "clip": None})

        class Plain(Marks):
            def loss(self, output: Any, target: torch.Tensor) -> torch.Tensor:
                return nn.functional.cross_entropy(output, target.long())

        training = replace(training, task=Plain(None, [0.0]), validate=lambda network: [])
        folder = RunFolder(tmp_path / str(parts))
        folder.root.mkdir()
        with Stop("stopping") as stop:
            train(training, folder, ALONE, stop)
        weights.append(load_file(folder.step(2) / NETWORK))
    for name, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][name], rtol=1e-4, atol=1e-6)


# ------------------------------------------------------------------ a budget


def test_steps_in_a_budget() -> None:
    assert steps_in(1000, 50, 0.5, 20, 10) == int((950 - 50 - 200) / 0.5)
    assert steps_in(10, 20, 1.0, 1, 1) == 10  # never fewer


def test_the_probe_measures_and_leaves_the_network_alone(organs: Any) -> None:
    training = training_of(organs)
    before = {name: value.clone() for name, value in training.network.state_dict().items()}
    found = probe(training, ALONE, 0.0)
    assert found.steps == 3 and found.step_s > 0 and 0 <= found.waiting <= 1
    assert 0.1 < found.memory_gb < 20
    assert all(torch.equal(value, before[name]) for name, value in training.network.state_dict().items())


def test_a_budget_becomes_steps_that_repeat_the_run_exactly(organs: Any) -> None:
    data, folder = organs
    timed = {key: value for key, value in data["training"].items() if key != "steps"}
    first = project_of({**data, "training": {**timed, "budget": "2s"}}, folder, "budget")
    trained = train_stage(first)
    steps = read_json(first.run.recipe)["study"]
    assert f"steps: {trained.progress.step}\n" in steps and "budget: null" in steps
    assert trained.progress.step == trained.study.training.steps
    second = project_of(changed(data, training={"steps": trained.progress.step}), folder, "steps")
    train_stage(second)
    for name in (NETWORK, AVERAGED):
        one, two = (load_file(best_checkpoint(project.run) / name) for project in (first, second))
        assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


def test_other_settings_are_named_and_refused(organs: Any) -> None:
    data, folder = organs
    train_stage(project_of(changed(data, training={"steps": 2}), folder, "begun"))
    other = changed(data, training={"steps": 2, "ema": 0.5}, batches={"foreground": 0.75})
    with pytest.raises(WorkspaceError, match=r"training\.ema was 0\.99 and is 0\.5") as caught:
        train_stage(project_of(other, folder, "begun"))
    assert "batches.foreground" in str(caught.value) and "training.steps" not in str(caught.value)


def test_a_finished_run_is_left_as_it_is(organs: Any) -> None:
    data, folder = organs
    project = project_of(data, folder, "finished")
    train_stage(project)
    before = {path: path.read_bytes() for path in project.run.root.rglob("*") if path.is_file()}
    again = train_stage(project)
    assert again.progress.step == 4
    assert {path: path.read_bytes() for path in project.run.root.rglob("*") if path.is_file()} == before

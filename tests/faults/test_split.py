"""One sample on several real ranks is that sample on one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file
from test_ranks import SGD, finish, torchrun, two_ranks

from megavox.core.errors import StudyError
from megavox.inference.recipe import Recipe
from megavox.memory.planner import Way, needs, ways
from megavox.memory.streamed.stream import split
from megavox.models.resnet import ResNet
from megavox.pipeline.plan import derived_plan, plan
from megavox.pipeline.project import Project
from megavox.pipeline.scale import scale
from megavox.pipeline.train import refuse_early, train
from megavox.tasks.registry import build_task
from small_studies import changed, packed_organs, project_of

SHARED: dict[str, Any] = {
    "batches": {"size": 2, "patch": [24, 16, 16]}, "task": {"dice": "batch"}, "model": {"norm": "batch"},
    "training": {**SGD, "steps": 3, "validations": 1, "ranks": {"split": 2}}}


@pytest.mark.parametrize("count", [2, 4])
def test_ranks_that_share_a_sample_give_its_outputs_gradients_and_statistics(count: int) -> None:
    """And each takes its share of the memory; also of pairs of ranks with a sample each, and of a training's loss."""
    finish(two_ranks(Path(__file__).with_name("rank_split.py"), count=count))


def test_other_networks_are_refused() -> None:
    with pytest.raises(StudyError, match=r"model\.family: ResNet cannot share a sample"):
        split(ResNet(18, 3, 1, 2, filters=4), 1)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A study of which two ranks share each sample, packed."""
    data, folder = packed_organs(tmp_path_factory.mktemp("split"))
    return project_of(changed(data, **SHARED), folder, "shared")


@pytest.mark.xdist_group("two ranks")
def test_a_study_whose_ranks_share_each_sample_learns_as_one_rank_does(shared: Project) -> None:
    """Through the command line, with batch norms, the plan of the memory, and a validation."""
    finish(torchrun(shared, shared.workspace.root.parent / "shared.yaml"))
    ranks = shared.study.training.ranks.model_copy(update={"split": 1})
    training = shared.study.training.model_copy(update={"ranks": ranks})
    one = Project.at(shared.study.model_copy(update={"training": training}), shared.workspace.root, "alone")
    train(one)
    losses = [[json.loads(line)["loss"] for line in p.run.metrics.read_text().splitlines() if '"loss"' in line]
              for p in (one, shared)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4) and len(losses[0]) == 3
    weights = [load_file(p.run.step(3) / "network.safetensors") for p in (one, shared)]
    for name, value in weights[0].items():
        assert weights[1][name] == pytest.approx(value, abs=1e-5), name
    assert Recipe.read(shared.run.recipe).study.training.memory.compute == "streamed"
    assert Recipe.read(one.run.recipe).study.training.memory.compute == "plain"
    told = json.loads(shared.run.memory.read_text())
    assert told["fit"]["ranks"] == 2 and told["taken_gb"] > 0.1


def test_what_a_rank_takes_that_has_half_a_sample_is_told(shared: Project) -> None:
    study = derived_plan(shared).study
    batches = study.batches.model_copy(update={"patch": [96, 48, 48], "size": 1})
    half = study.model_copy(update={"batches": batches})
    assert ways(half, 2) == [Way("streamed", slab_mb=8.0)]
    training = half.training.model_copy(update={"ranks": half.training.ranks.model_copy(update={"split": 1})})
    whole, task = half.model_copy(update={"training": training}), build_task(study.task, [])
    told = [needs(one, task, 1, ranks, Way("streamed", slab_mb=0.5)).kinds["activations"]
            for one, ranks in ((half, 2), (whole, 1))]
    assert 0.5 * told[1] < told[0] < 0.6 * told[1]


@pytest.mark.parametrize("stage", [plan, train, lambda project: refuse_early(project, 3)])
def test_ranks_that_cannot_be_dealt_are_refused_at_once(shared: Project, stage: Any) -> None:
    other = replace(shared, run_name="never")
    with pytest.raises(StudyError, match=r"training\.ranks\.split: [13] ranks cannot share samples by 2"):
        stage(other)
    assert not other.run.recipe.exists()


def test_the_pace_of_ranks_that_share_samples_is_not_measured(shared: Project) -> None:
    with pytest.raises(StudyError, match=r"training\.ranks\.split: .* Expected: 1"):
        scale(shared, [1, 2], "local", [], 1.0)


@pytest.mark.parametrize(("sections", "words"), [
    ({"task": {"dice": "sample"}}, "only for model.family: unet, and with task.dice: batch"),
    ({"cohort": {"layout": "folders", "folder": "/"}, "task": {"kind": "classify", "classes": ["a", "b"]},
      "model": {"family": "resnet", "depth": 18}}, "only for model.family: unet"),
    ({"training": {"memory": {"compute": "plain"}}}, "memory.compute: plain does not go with ranks.split")])
def test_studies_that_cannot_share_samples_are_refused(shared: Project, sections: dict[str, Any], words: str) -> None:
    data = shared.study.model_dump(mode="json", exclude_unset=True)
    data = {**changed(data, **sections), **{name: sections[name] for name in sections if "model" in sections}}
    with pytest.raises(ValueError, match=words):
        type(shared.study).model_validate(data)

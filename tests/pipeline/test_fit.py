"""A training is made to fit: as `plan` chose, and otherwise where memory runs out for real."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException

from megavox.core.errors import StudyError, WorkspaceError
from megavox.inference.recipe import Recipe
from megavox.pipeline.attempts import Attempts
from megavox.pipeline.pack import pack
from megavox.pipeline.plan import derived_plan, plan
from megavox.pipeline.project import Project
from megavox.pipeline.train import train
from megavox.training.parallel import Ranks
from small_studies import changed, environment, project_of, segment_cohort

LITTLE = Path(__file__).parents[1] / "faults" / "train_with_little.py"
STEPS = {"training": {"steps": 1, "validations": 1}}


@pytest.fixture(scope="module")
def organs(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """A cohort of its own: there is one plan in a workspace."""
    folder = tmp_path_factory.mktemp("fit")
    data = changed(segment_cohort(folder / "images"), **STEPS)
    pack(project_of(data, folder, "pack"))
    return data, folder


def asked(organs: tuple[dict[str, Any], Path], run: str, **sections: Any) -> Project:
    data, folder = organs
    return project_of(changed(data, **sections), folder, run)


def computed(project: Project) -> str:
    return str(Recipe.read(project.run.recipe).study.training.memory.compute)


def trained(project: Project) -> subprocess.CompletedProcess[str]:
    """By a process of its own, as a limit on one needs: that of the tests has what other tests left."""
    words = ["train", str(_study(project)), "--run-name", project.run_name]
    return subprocess.run([sys.executable, "-m", "megavox", *words], capture_output=True, text=True,
                          env=environment(), check=False)


def _study(project: Project) -> Path:
    return project.workspace.root.parent / f"{project.run_name}.yaml"


def test_what_plan_chose_is_what_train_does(organs: tuple[dict[str, Any], Path]) -> None:
    large = {"batches": {"patch": [32, 32, 32], "size": 2}, "model": {"filters": 16}}
    project = asked(organs, "planned", **large)
    plain = plan(project)
    assert plain.fit is not None and plain.probe is not None
    assert (str(plain.fit.way), len(plain.fit.found)) == ("plain", 1)
    most = plain.fit.found[0].taken_gb - 0.001
    chosen = plan(project, most)
    assert chosen.fit is not None and chosen.probe is None and chosen.fit.way.compute == "streamed"
    assert json.loads(project.workspace.plan.read_text())["memory"]["way"]["compute"] == "streamed"
    kept = asked(organs, "kept-too", **large, training={**STEPS["training"], "keep": 1})
    for run in (project, kept):  # a step of both is the same
        done = trained(run)
        assert done.returncode == 0, done.stderr
        assert computed(run) == "streamed"
    other = asked(organs, "other", **{**large, "model": {"filters": 12}})
    train(other)
    assert computed(other) == "plain", "the plan was for another network"
    said = asked(organs, "said", **large, training={**STEPS["training"], "memory": {"compute": "recomputed"}})
    train(said)
    assert computed(said) == "recomputed"


def test_what_was_told_holds_for_one_study_and_one_machine(organs: tuple[dict[str, Any], Path]) -> None:
    project = asked(organs, "kept")
    train(project)
    rows = Recipe.read(project.run.recipe).derived
    assert [row["key"] for row in rows if "memory" in row["key"]] == ["training.memory.compute"]
    train(project)
    assert Recipe.read(project.run.recipe).derived == rows, "nothing is derived twice"
    here, kept, study = Ranks(0, 1, torch.device("cpu")), Attempts.of(project.run), derived_plan(project).study
    assert kept is not None and kept.fit.holds(project, study, here)
    assert not kept.fit.holds(project, study, replace(here, count=2))
    assert not replace(kept.fit, limit_gb=1e6).holds(project, study, here), "this machine has less"
    large = replace(kept.fit.needs(), taken_gb=1e5)
    for needed, enough in ((kept.fit.needs(), True), (large, False)):
        planned = replace(kept.fit, limit_gb=1e6, given=True, found=(needed,))
        assert planned.holds(project, study, here) == enough, "it was planned for a larger machine"
    other = asked(organs, "kept", model={"filters": 6})
    assert not kept.fit.holds(other, derived_plan(other).study, here), "it is another network"


def test_what_a_training_took_is_written_beside_what_was_told(organs: tuple[dict[str, Any], Path],
                                                              capsys: pytest.CaptureFixture[str]) -> None:
    project = asked(organs, "took")
    train(project)
    kept = Attempts.of(project.run)
    assert kept is not None and kept.taken_gb is not None and kept.taken_gb > 0.05 and kept.ran_out == []
    assert f"told for a step, {kept.taken_gb:.3g} GB were taken" in capsys.readouterr().err


def test_a_run_that_was_begun_may_be_computed_otherwise_but_not_rounded_otherwise(
        organs: tuple[dict[str, Any], Path]) -> None:
    def again(**memory: Any) -> Project:
        return asked(organs, "again", training={"steps": 3, "validations": 3, "keep": 3, "memory": memory})

    train(again())
    for step, compute in ((2, "streamed"), (1, "plain")):
        _forget_from(again(), step)
        train(again(compute=compute))
        assert computed(again()) == compute
    with pytest.raises(WorkspaceError, match=r"training\.memory\.keep_as was auto and is bfloat16"):
        train(again(keep_as="bfloat16"))


def test_what_cannot_be_read_of_memory_is_told_anew(organs: tuple[dict[str, Any], Path],
                                                   capsys: pytest.CaptureFixture[str]) -> None:
    project = asked(organs, "torn")
    plan(project, 100.0)
    for path in (project.workspace.plan, project.run.memory):
        for text in ("", "{", "[]", '{"fit": {"a": 1}, "memory": {"a": 1}}'):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            project.run.done.unlink(missing_ok=True)
            train(project)
            assert f"{path} cannot be read" in capsys.readouterr().err
    kept = Attempts.of(project.run)
    assert kept is not None and not kept.fit.given


def _forget_from(project: Project, step: int) -> None:
    """As if the run had been killed before that step was done."""
    for number in range(step, 4):
        shutil.rmtree(project.run.step(number), ignore_errors=True)
    project.run.best.unlink(missing_ok=True)
    project.run.done.unlink()


def test_a_network_that_cannot_be_followed_is_trained_plainly(organs: tuple[dict[str, Any], Path],
                                                              capsys: pytest.CaptureFixture[str],
                                                              monkeypatch: pytest.MonkeyPatch) -> None:
    def looks_at_numbers(*_: Any) -> None:
        raise DataDependentOutputException("aten._local_scalar_dense")

    monkeypatch.setattr("megavox.memory.planner.follow", looks_at_numbers)
    project = asked(organs, "numbers")
    found = plan(project)
    assert found.fit is None and found.probe is not None
    train(project)
    assert project.run.done.exists() and not project.run.memory.exists()
    assert "cannot be told without making a step (DataDependentOutputException" in capsys.readouterr().err


def test_what_fits_in_no_way_is_told_with_what_it_takes(organs: tuple[dict[str, Any], Path]) -> None:
    project = asked(organs, "never", training={"memory": {"limit_gb": 0.2}})
    for stage in (plan, train):
        with pytest.raises(StudyError, match=r"fits 0\.2 GB in no way: \S+.* takes the least, 0\.5"):
            stage(project)
    assert not project.run.recipe.exists()


def test_a_limit_on_a_cpu_is_kept_and_the_next_way_is_taken_within_it(organs: tuple[dict[str, Any], Path]) -> None:
    """What was told is made too little by hand: the plain way is begun, and asks for more than the limit."""
    large = {"batches": {"patch": [32, 32, 32], "size": 24, "workers": 0}, "model": {"filters": 16, "levels": 3}}
    project = asked(organs, "limited", **large)
    told = plan(project, 100.0).fit
    assert told is not None
    plain, streamed = told.found[:2]
    wrong = replace(told, limit_gb=streamed.taken_gb + 0.05, found=(replace(plain, taken_gb=0.95), streamed))
    Attempts(wrong, []).write(project.run)
    done = trained(project)
    assert done.returncode == 0, done.stderr
    rows = json.loads(project.run.memory.read_text())["ran_out"]
    assert [row["way"]["compute"] for row in rows] == ["plain"], done.stderr
    assert rows[0]["told_gb"] == 0.95 and computed(project) == "streamed"


def test_memory_that_runs_out_is_written_down_and_another_way_is_taken_once(
        organs: tuple[dict[str, Any], Path]) -> None:
    large = {"batches": {"patch": [32, 32, 32], "size": 24, "workers": 0}, "model": {"filters": 16, "levels": 3}}
    enough, too_little = asked(organs, "enough", **large), asked(organs, "too-little", **large)
    done = _with(enough, 750)
    rows = json.loads(enough.run.memory.read_text())["ran_out"]
    assert done.returncode == 0, done.stderr
    assert [row["way"]["compute"] for row in rows] == ["plain"] and rows[0]["taken_gb"] > 0
    assert computed(enough) == "streamed" and "memory ran out computing it plain" in done.stderr
    failed = _with(too_little, 450)
    rows = json.loads(too_little.run.memory.read_text())["ran_out"]
    assert failed.returncode == 2 and "not enough memory" in failed.stderr
    assert [row["way"]["compute"] for row in rows] == ["plain", "streamed"]


def _with(project: Project, megabytes: float) -> subprocess.CompletedProcess[str]:
    words = [str(LITTLE), str(_study(project)), str(project.workspace.root), project.run_name, str(megabytes)]
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, env=environment(), check=False)

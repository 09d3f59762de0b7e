"""A search with real trials on this machine: what it tells, how it is left, and that nothing is lost or done twice."""

from __future__ import annotations

import multiprocessing
import os
import pty
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from optuna.trial import TrialState

from megavox.core.errors import DivergenceError, StudyError, WorkspaceError
from megavox.core.files import read_json
from megavox.jobs.section import Asked
from megavox.pipeline.away import cancel, jobs
from megavox.pipeline.feasible import can_be_trained
from megavox.pipeline.project import Project
from megavox.pipeline.search_report import content_of
from megavox.pipeline.trial import _of_setting
from megavox.pipeline.trials import CASES, Trials
from megavox.pipeline.tune import Search, search_of, tune
from megavox.study import Study, load_study
from megavox.study.load import validated
from small_studies import changed, environment, packed_organs, project_of

LONG_S, STEPS = 240, 6
SPACE: dict[str, Any] = {"training.optimiser.rate": {"low": 1e-4, "high": 1e-1, "log": True},
                         "model.filters": {"low": 2, "high": 6, "step": 2}}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tune")


@pytest.fixture
def made(base: Path, tmp_path: Path) -> Iterator[Any]:
    """Makes the project of a search of its own; jobs that a failed test leaves behind are ended."""
    data, folder = packed_organs(base)
    site = folder / f"{tmp_path.name}-site.yaml"
    site.write_text(yaml.safe_dump({"kind": "local", "cpus": 3, "place": str(tmp_path / "slots")}))
    found: list[Project] = []

    def make(search: dict[str, Any], steps: int = STEPS, **sections: Any) -> Project:
        study = changed(data, training={"steps": steps, "validations": 2}, **sections)
        search = {"workers": 3, "jobs": 5, "space": SPACE, **search}
        study.setdefault("sites", {"here": str(site)})
        found.append(project_of({**study, "search": search}, folder, tmp_path.name))
        return found[-1]

    yield make
    for known in jobs(found[0]) if found else []:
        if known.job.name.startswith(tmp_path.name) and not all(part.state.ended for part in known.parts):
            cancel(known.job)


def command(project: Project, *words: str) -> list[str]:
    study = project.workspace.root.parent / f"{project.run_name}.yaml"
    return [sys.executable, "-m", "megavox", "tune", str(study), "--workspace", str(project.workspace.root),
            "--run-name", project.run_name, "--site", "here", *words]


def run(words: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=LONG_S, env=environment())


def trials_of(project: Project) -> list[Path]:
    return sorted(project.workspace.jobs.glob(f"{project.run_name}-*"))


def test_a_search_tells_what_it_found_and_its_best_setting_can_be_trained(made: Any) -> None:
    space = {**SPACE, "training.optimiser.rate": {"choices": [0.003, 1e30]}}
    project = made({"space": space, "jobs": 5}, model={"filters": 6})
    done = run(command(project))
    assert done.returncode == 0, done.stderr
    assert "5 of 5 trials have ended" in done.stdout and done.stderr.count("trial ") >= 5
    search = search_of(project, "here")
    content = content_of(search)
    for row in content.trials:
        diverged = row.setting["training.optimiser.rate"] > 1
        assert (row.state, row.cause) == (("failed", "setting") if diverged else ("done", "")) and row.seconds > 0
        assert diverged == ("the loss became" in row.told)
    first = content.trials[0]
    assert first.setting == {"training.optimiser.rate": 0.003, "model.filters": 6}, "the study's own comes first"
    assert content.best is not None and content.default_value == first.value
    assert [share for share, _ in first.scores] == [0.5, 1.0]
    best_text = project.workspace.search(project.run_name).best.read_text()
    best = load_study(project.workspace.search(project.run_name).best)
    ran = search.trials.run(content.best.number)
    assert best.search is None and ran.done.exists() and load_study(ran.study).model == best.model
    evaluated = next(line for line in best_text.splitlines() if "megavox evaluate" in line).partition("megavox ")[2]
    assert run([sys.executable, "-m", "megavox", *evaluated.split()]).returncode == 0
    again = run(command(project))
    assert again.returncode == 0 and len(trials_of(project)) == 5, again.stderr
    asked = search.ledger.study.user_attrs["asked"]
    assert asked["cases"] == project.split_hash() and asked["study"]["split"]["test"] == 0.25
    for change, told in (("search.objective=dice core", "objective was dice and is dice core"),
                         ("training.steps=7", "steps was 6 and is 7"), ("search.workers=2", "")):
        other = run(command(project, "--set", change))
        assert (other.returncode == 2) == bool(told) and told in other.stderr, other.stderr


def test_a_setting_that_needs_too_much_memory_is_never_sent_or_fails_by_its_fault(made: Any, tmp_path: Path) -> None:
    site = tmp_path / "small.yaml"
    site.write_text(yaml.safe_dump({"kind": "local", "cpus": 2, "place": str(tmp_path / "slots"),
                                    "jobs": {"memory_gb": 0.75}}))
    space = {"batches.size": {"choices": [2, 2000]}, "training.optimiser.rate": {"low": 1e-4, "high": 1e-2}}
    project = made({"space": space, "jobs": 4, "workers": 2, "method": "sobol"}, sites={"here": str(site)})
    blind = search_of(project, "here")
    tune(blind, lambda: None, lambda: False)
    rows = {row.setting["batches.size"]: row for row in content_of(blind).trials}
    assert rows[2].state == "done" and (rows[2000].state, rows[2000].cause) == ("failed", "setting")
    assert "memory" in rows[2000].told
    section = project.study.search.model_copy(update={"method": "asynchronous"})
    careful = search_of(replace(project, run_name=f"{project.run_name}-careful",
                                study=project.study.model_copy(update={"search": section})), "here")
    assert all(trial.params["batches.size"] == 2 for trial in (careful.ledger.propose() for _ in range(8)))


def test_an_objective_that_there_is_none_of_and_keys_of_packing_are_refused(made: Any) -> None:
    with pytest.raises(StudyError, match=r"no validation score 'dyce'.*one of 'dice', 'dice core'"):
        search_of(made({"jobs": 1, "objective": "dyce"}), "here")
    with pytest.raises(StudyError, match=r"task\.mask_tolerance_mm: this key cannot be searched"):
        search_of(made({"space": {"task.mask_tolerance_mm": {"low": 0.1, "high": 0.5}}}), "here")
    with pytest.raises(StudyError, match=r"\[16, 16\] is one of its choices.*3 numbers each"):
        search_of(made({"space": {"batches.patch": {"choices": [[16, 16, 16], [16, 16]]}}}), "here")


def test_a_network_whose_memory_cannot_be_told_is_sent(made: Any) -> None:
    space = {"model.arguments": {"choices": [{"img_size": 16, "feature_size": 12}, {"feature_size": 12}]}}
    project = made({"space": {**space, **{"training.optimiser.rate": SPACE["training.optimiser.rate"]}}})
    swin = {"family": "monai", "network": "SwinUNETR", "arguments": {"feature_size": 12}}
    study = validated(Study, {**project.study.model_dump(), "model": swin, "batches": {
        **project.study.batches.model_dump(), "patch": [32, 32, 32]}}, "here")
    ledger = search_of(replace(project, study=study), "here").ledger
    settings = [ledger.setting(ledger.propose()) for _ in range(4)]
    assert all(one["model.arguments"] == {"feature_size": 12} for one in settings), "the other one cannot be built"


def test_jobs_of_another_search_are_not_taken_for_its_own(made: Any) -> None:
    project = made({})
    search = search_of(project, "here")
    setting = {"training.optimiser.rate": 0.01, "model.filters": 4}
    search.trials.send(0, 1, setting)
    search.trials.send(0, 1, setting)
    training = project.study.training.model_copy(update={"steps": STEPS + 1})
    other = replace(project, study=project.study.model_copy(update={"training": training}))
    with pytest.raises(WorkspaceError, match=r"of another search: training\.steps was 6 and is 7"):
        Trials(other, "here", Asked(), "dice", "dice").send(0, 1, setting)
    (search.trials.job(0, 1).path / CASES).write_text("others")
    with pytest.raises(WorkspaceError, match="of another search: the cases"):
        search.trials.send(0, 1, setting)
    search.trials.cancel(0, 1)


def test_a_batch_that_a_job_derives_is_not_judged_here(made: Any) -> None:
    project = made({}, batches={"size": "auto"})
    setting = {"training.optimiser.rate": 0.01}
    assert can_be_trained(project, Asked(ranks=7), None)(setting)
    assert not can_be_trained(project, Asked(ranks=7), None)({**setting, "batches.size": 8})


@pytest.mark.parametrize(("error", "setting"), [
    (RuntimeError("Given groups=1, weight of size [4, 2, 3, 3], expected input to have 2 channels"), True),
    (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"), True),
    (RuntimeError("CUDA out of memory. Tried to allocate 20 GiB"), True),
    (DivergenceError("the loss became NaN"), True),
    (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), False),
    (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
    (RuntimeError("can't start new thread"), False),
    (RuntimeError("received 0 items of ancdata"), False),
    (RuntimeError("unable to open shared memory object </torch_1>"), False),
    (OSError(5, "I/O error"), False)])
def test_faults_of_the_machine_teach_nothing(error: Exception, setting: bool) -> None:
    assert _of_setting(error) == setting


def drive(project: Project) -> None:
    """In a process of its own, to be killed."""
    tune(search_of(project, "here"), lambda: None, lambda: False)


def ended_well(search: Search, count: int) -> bool:
    whole = [trial for trial in search.ledger.trials() if search.ledger.setting(trial) is not None]
    return len(whole) == count and all(trial.state is TrialState.COMPLETE for trial in whole)


def test_killed_twenty_times_it_loses_and_repeats_nothing(made: Any) -> None:
    trials = 12  # of which some are left after the last kill
    project, drawn = made({"jobs": trials}), random.Random(0)
    context = multiprocessing.get_context("fork")
    for _ in range(20):
        driver = context.Process(target=drive, args=(project,))
        driver.start()
        time.sleep(drawn.uniform(0.05, 1.4))
        os.kill(driver.pid, signal.SIGKILL)
        driver.join()
        assert driver.exitcode == -signal.SIGKILL
    assert not ended_well(search_of(project, "here"), trials)
    tune(search_of(project, "here"), lambda: None, lambda: False)
    search = search_of(project, "here")
    assert ended_well(search, trials)
    for trial in search.ledger.trials():
        if search.ledger.setting(trial) is None:
            continue
        job = search.trials.job(trial.number, 1)
        assert read_json(job.begun())["attempt"] == 1
        steps = [line for line in search.trials.run(trial.number).metrics.read_text().splitlines() if '"loss"' in line]
        assert len(steps) == STEPS
    assert all(path.name.endswith(".1") for path in trials_of(project))


def test_only_one_command_drives_a_search(made: Any) -> None:
    project = made({"jobs": 3})
    search, other = search_of(project, "here"), search_of(project, "here")
    refused: list[bool] = []

    def tell() -> None:
        with pytest.raises(WorkspaceError, match="another command drives this search"):
            tune(other, lambda: None, lambda: False)
        refused.append(True)

    tune(search, tell, lambda: bool(refused))
    assert refused
    tune(other, lambda: None, lambda: False)
    assert ended_well(other, 3)


@pytest.mark.parametrize("answer", ["y", "n"])
def test_ctrl_c_asks_whether_trials_go_on(made: Any, answer: str) -> None:
    project = made({"jobs": 2, "workers": 2}, steps=100_000 if answer == "n" else STEPS)
    ours, theirs = pty.openpty()
    caller = subprocess.Popen(command(project), stdin=theirs, stdout=subprocess.PIPE, stderr=theirs, env=environment(),
                              preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))
    until(lambda: len(list(project.workspace.jobs.glob(f"{project.run_name}-*/begun.json"))) == 2)
    caller.send_signal(signal.SIGINT)
    seen = b""
    while b"running? [Y/n]" not in seen:
        seen += os.read(ours, 10000)
    os.write(ours, f"{answer}\n".encode())
    told, _ = caller.communicate(timeout=LONG_S)
    os.close(theirs)
    assert caller.returncode == 130 and b"0 of 2 trials have ended" in told
    search = search_of(project, "here")
    if answer == "y":
        tune(search, lambda: None, lambda: False)
        assert ended_well(search, 2) and len(trials_of(project)) == 2
        return
    until(lambda: all(part.state.ended for known in jobs(project) for part in known.parts
                      if known.job.name.startswith(project.run_name)))
    sent: list[int] = []
    tune(search, lambda: sent.append(1), lambda: len(sent) > 2)
    assert {path.name.rpartition(".")[2] for path in trials_of(project)} == {"1", "2"}, "sent once more"


def until(true: Any) -> None:
    begin = time.monotonic()
    while not true():
        assert time.monotonic() - begin < LONG_S
        time.sleep(0.1)

"""A training that is stopped and continued is bit for bit the training that was not, on one kind of device."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from megavox.core.signals import PASSED_ON_S, Stop, Stopped
from megavox.core.workspace import DONE, RunFolder
from megavox.pipeline.plan import derived_plan
from megavox.pipeline.project import Project
from megavox.pipeline.train import train as train_stage
from megavox.pipeline.workshop import Workshop
from megavox.training.checkpoint import AVERAGED, NETWORK, OPTIMISER, complete_checkpoints
from megavox.training.loop import train
from megavox.training.parallel import Ranks
from small_studies import UNET, changed, environment, packed_organs, project_of

ALONE = Ranks(0, 1, torch.device("cpu"))
STEPS = 6
# Everything that could carry state from step to step: dropout, running statistics, micro-batches, momenta.
SECTIONS: dict[str, Any] = {
    "model": {**UNET, "norm": "batch", "dropout": 0.2}, "batches": {"size": 4},
    "training": {"steps": STEPS, "validations": 3, "accumulate": 2, "keep": 1}}
STEPS_OF_TIME = ("samples_per_s", "waiting", "seconds")


@pytest.fixture(scope="module")
def organs(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    data, folder = packed_organs(tmp_path_factory.getbasetemp())
    return changed(data, **SECTIONS), folder


@pytest.fixture(scope="module")
def whole(organs: tuple[dict[str, Any], Path]) -> RunFolder:
    """The training that nobody stopped."""
    data, folder = organs
    project = project_of(data, folder, "whole")
    train_stage(project)
    return project.run


def go_on(project: Project, workers: int = 0, stop: Stop | None = None) -> None:
    """Start or continue the run's training loop with so many loader workers."""
    project.run.checkpoints.mkdir(parents=True, exist_ok=True)
    training = Workshop(project, derived_plan(project).study).training(ALONE)
    with stop or Stop("stopping") as entered:
        train(replace(training, workers=workers), project.run, ALONE, entered)


def same_ending(one: RunFolder, other: RunFolder) -> None:
    """The last checkpoints are equal in every byte, and so are the metrics but for timings."""
    for name in (NETWORK, AVERAGED, OPTIMISER):
        assert (one.step(STEPS) / name).read_bytes() == (other.step(STEPS) / name).read_bytes(), name
    assert one.best.read_bytes() == other.best.read_bytes()
    assert [path.name for path in complete_checkpoints(one)] == [path.name for path in complete_checkpoints(other)]
    assert timeless(one) == timeless(other)


def timeless(folder: RunFolder) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    assert len(lines) == STEPS + 3
    return [{key: value for key, value in line.items() if key not in STEPS_OF_TIME} for line in lines]


class StopAfter(Stop):
    """Asks to stop after so many steps, as a signal would."""

    def __init__(self, steps: int) -> None:
        super().__init__("stopping")
        self.left = steps

    @property
    def asked(self) -> bool:
        self.left -= 1
        if self.left == 0:
            self._note(signal.SIGTERM, None)
        return super().asked


def test_stopped_by_a_signal_after_every_step_and_continued(organs: Any, whole: RunFolder) -> None:
    data, folder = organs
    project = project_of(data, folder, "signal")
    for step in range(1, STEPS + 1):
        with pytest.raises(Stopped) as caught:
            go_on(project, stop=StopAfter(1))
        assert f"after step {step};" in caught.value.text and caught.value.status == 75
    go_on(project)  # nothing is left to do
    same_ending(project.run, whole)


def test_stopped_and_continued_with_another_number_of_workers(organs: Any, whole: RunFolder) -> None:
    data, folder = organs
    project = project_of(data, folder, "workers")
    with pytest.raises(Stopped):
        go_on(project, workers=0, stop=StopAfter(3))
    go_on(project, workers=2)
    same_ending(project.run, whole)


# ------------------------------------------------------------------ real processes


def start(project: Project, *more: str) -> subprocess.Popen[str]:
    """`megavox train` in a session of its own, as a terminal or a batch queue starts it."""
    study = project.workspace.root.parent / f"{project.run_name}.yaml"
    command = [sys.executable, "-m", "megavox", "train", str(study), "--workspace", str(project.workspace.root),
               "--run-name", project.run_name, *more]
    return subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                            start_new_session=True, cwd=project.workspace.root)


def when(condition: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 60) -> None:
    """Wait until a condition holds while the process runs."""
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


def steps_logged(project: Project) -> int:
    path = project.run.metrics
    return sum('"loss"' in line for line in path.read_text().splitlines()) if path.exists() else 0


def test_killed_twice_and_continued(organs: Any, whole: RunFolder) -> None:
    """SIGKILL at whatever instant: in the first part, and once more in the second."""
    data, folder = organs
    project = project_of(data, folder, "killed")
    for step in (3, 5):
        process = start(project)
        when(lambda step=step: steps_logged(project) >= step, process)  # type: ignore[misc]
        process.kill()
        process.communicate()
    assert steps_logged(project) < STEPS or not project.run.done.exists()
    train_stage(project)
    same_ending(project.run, whole)


LONG: dict[str, Any] = {"training": {"steps": 5000, "validations": 1, "checkpoint_every": 5000}}


@pytest.mark.parametrize(("number", "status", "group"), [
    (signal.SIGTERM, 75, False),
    (signal.SIGUSR1, 75, True),  # a batch queue sends it to every process of the job
    (signal.SIGINT, 130, True)])  # and a terminal sends Ctrl-C to every process of the group
def test_signals_write_a_checkpoint_and_the_same_command_goes_on(organs: Any, number: signal.Signals, status: int,
                                                                 group: bool) -> None:
    data, folder = organs
    data = changed(data, **LONG, batches={"workers": int(group)})
    project = project_of(data, folder, f"signal-{number.name}")
    process = start(project)
    when(lambda: steps_logged(project) >= 2, process)
    os.killpg(process.pid, number) if group else process.send_signal(number)
    out, told = process.communicate(timeout=60)
    assert process.returncode == status, told
    [checkpoint] = complete_checkpoints(project.run)
    step = int(checkpoint.name.removeprefix("step-"))
    assert f"stopped after step {step}; a checkpoint was written" in told
    assert "Traceback" not in told + out
    assert step == steps_logged(project) and (checkpoint / DONE).exists()
    assert not project.run.done.exists()
    with pytest.raises(Stopped) as caught:
        go_on(project, stop=StopAfter(2))
    assert f"after step {step + 2};" in caught.value.text
    assert steps_logged(project) == step + 2


def test_a_second_ctrl_c_ends_at_once() -> None:
    before = signal.getsignal(signal.SIGINT)
    with Stop("stopping") as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.signal == signal.SIGINT
        os.kill(os.getpid(), signal.SIGINT)  # at once: the same one, passed on
        time.sleep(PASSED_ON_S + 0.1)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
    assert signal.getsignal(signal.SIGINT) is before
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL

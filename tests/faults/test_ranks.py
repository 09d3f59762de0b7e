"""Two real ranks under torchrun: the same samples and weights as one, and none survives another's death."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from safetensors.numpy import load_file

from megavox.core.files import read_json
from megavox.pipeline.project import Project
from megavox.pipeline.train import train
from small_studies import changed, environment, packed_organs, project_of

# Plain SGD, so that a difference of gradients is a difference of weights and not of a ratio of them.
SGD = {"optimiser": {"name": "sgd", "rate": 0.01, "momentum": 0.0, "weight_decay": 0.0}, "ema": 0.0}


def torchrun(project: Project, study: Path) -> subprocess.Popen[str]:
    """Start a training on two ranks, in a process group of its own."""
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "megavox",
             "train", str(study), "--workspace", str(project.workspace.root), "--run-name", project.run_name]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment(),
                            start_new_session=True)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ranks")


def test_two_ranks_train_the_batch_of_one(base: Path) -> None:
    data, folder = packed_organs(base)
    data = changed(data, training={**SGD, "steps": 3, "validations": 1}, batches={"size": 4})
    one = project_of(data, folder, "one")
    train(one)
    two = project_of(data, folder, "two")
    process = torchrun(two, folder / "two.yaml")
    told, _ = process.communicate(timeout=240)
    assert process.returncode == 0, told

    def weights(project: Project) -> dict:
        step = read_json(project.run.best)["step"]
        return load_file(project.run.step(step) / "network.safetensors")

    losses = [[json.loads(line)["loss"] for line in p.run.metrics.read_text().splitlines() if '"loss"' in line]
              for p in (one, two)]
    # The Dice part of the loss is of each rank's own half, so the two differ a little, and only a little: other
    # samples would differ by far more.
    assert losses[0] == pytest.approx(losses[1], rel=0.02)
    a, b = weights(one), weights(two)
    moved = [abs(a[name] - b[name]).max() for name in a]
    assert max(moved) < 2e-3


def test_the_death_of_a_rank_ends_the_others_within_a_minute(base: Path) -> None:
    data, folder = packed_organs(base)
    data = changed(data, training={"steps": 100_000, "validations": 1}, batches={"size": 4})
    project = project_of(data, folder, "killed")
    process = torchrun(project, folder / "killed.yaml")
    try:
        deadline = time.monotonic() + 120
        while not (project.run.metrics.exists() and len(project.run.metrics.read_text().splitlines()) > 2):
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline, "the ranks did not begin to train"
            time.sleep(0.2)
        children = psutil.Process(process.pid).children(recursive=True)
        ranks = [child for child in children if "megavox" in child.cmdline()]
        assert len(ranks) == 2
        ranks[1].kill()
        _, alive = psutil.wait_procs(children, timeout=60)
        assert not alive, [child.cmdline() for child in alive]
        assert process.wait(timeout=10) != 0
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        assert process.stdout is not None
        process.stdout.close()
        process.wait()

"""Two real ranks under torchrun: the same samples and weights as one, and none survives another's death."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from rank_equality import learn
from rank_in_backward import FEW
from rank_records import record
from safetensors.numpy import load_file

from megavox.core.files import read_json
from megavox.pipeline.plan import derived_plan
from megavox.pipeline.project import Project
from megavox.pipeline.train import train
from megavox.pipeline.workshop import Workshop
from megavox.training.parallel import Ranks
from small_studies import changed, environment, packed_organs, project_of

# Plain SGD, so that a difference of gradients is a difference of weights and not of a ratio of them.
SGD = {"optimiser": {"name": "sgd", "rate": 0.01, "momentum": 0.0, "weight_decay": 0.0}, "ema": 0.0}


def two_ranks(*words: str | Path, count: int = 2) -> subprocess.Popen[str]:
    """Start two ranks, or more, under torchrun, in a process group of their own."""
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    return subprocess.Popen([*start, *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                            env=environment(), start_new_session=True)


def torchrun(project: Project, study: Path) -> subprocess.Popen[str]:
    """Start a training on two ranks."""
    return two_ranks("-m", "megavox", "train", study, "--workspace", project.workspace.root, "--run-name",
                     project.run_name)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def two(base: Path) -> Project:
    """A run of four steps on two ranks."""
    data, folder = packed_organs(base)
    data = changed(data, training={**SGD, "steps": 4, "validations": 1, "checkpoint_every": 2, "keep": 4},
                   batches={"size": 4})
    project = project_of(data, folder, "two")
    finish(torchrun(project, folder / "two.yaml"))
    return project


def finish(process: subprocess.Popen[str]) -> None:
    told, _ = process.communicate(timeout=300)
    assert process.returncode == 0, told


def weights(project: Project) -> dict[str, np.ndarray]:
    return load_file(project.run.step(4) / "network.safetensors")


@pytest.mark.xdist_group("two ranks")
def test_two_ranks_train_the_batch_of_one(two: Project) -> None:
    one = Project.at(two.study, two.workspace.root, "one")
    train(one)
    losses = [[json.loads(line)["loss"] for line in p.run.metrics.read_text().splitlines() if '"loss"' in line]
              for p in (one, two)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    for name, value in weights(one).items():
        assert weights(two)[name] == pytest.approx(value, abs=1e-5), name
    told = read_json(two.run.pace)
    assert told["ranks"] == 2 and told["batch"] == 4 and 0 < told["efficiency"] < 2 and told["pairs"] >= 1
    assert 0 <= told["uneven"] < 1


@pytest.mark.xdist_group("two ranks")
@pytest.mark.parametrize("count", [2, 1])
def test_a_run_goes_on_bit_for_bit_and_on_other_ranks_but_for_rounding(two: Project, count: int) -> None:
    again = Project.at(two.study, two.workspace.root, f"two-on-{count}")
    shutil.copytree(two.run.root, again.run.root)
    shutil.rmtree(again.run.step(4))  # as it was after the second step
    again.run.best.unlink()
    again.run.done.unlink()
    if count == 1:
        train(again)
    else:
        finish(torchrun(again, two.workspace.root.parent / "two.yaml"))
    for name, value in weights(two).items():
        assert weights(again)[name] == pytest.approx(value, abs=0 if count == 2 else 1e-5), name


# What is a mean over samples, and what is not: Dice of the batch, batch norms. With ranks and micro-batches that
# make as many samples a step.
MEANS = {"task": {"dice": "sample"}}, {1: 4, 2: 2, 4: 1}
SUMS = {"task": {"dice": "batch"}, "model": {"norm": "batch"}}, {1: 1, 2: 1, 4: 1}
COMPUTED: dict[int, dict[str, object]] = {1: {"compute": "plain"},
                                          2: {"compute": "streamed", "slab_mb": 0.05, "channels_last": False},
                                          4: {"compute": "recomputed", "channels_last": True}}


def test_ranks_are_micro_batches_in_all_but_name(base: Path) -> None:
    """The arithmetic by which many ranks are emulated on a few: twenty steps in float64 differ by rounding alone, in
    whatever way they are computed."""
    data, folder = packed_organs(base)
    optimiser = {"name": "lamb", "rate": 0.02, "clip": 1.0}
    found: dict[str, list[np.ndarray]] = {"means": [], "sums": []}
    for count in (1, 2, 4):
        pairs: list[Path] = []
        for name, (sections, micro_batches) in (("means", MEANS), ("sums", SUMS)):
            project = project_of(changed(data, **sections, batches={"size": 8}, training={
                "optimiser": optimiser, "steps": 20, "accumulate": micro_batches[count],
                "memory": COMPUTED[count]}), folder, f"{name}-{count}")
            pairs += [folder / f"{name}-{count}.yaml", folder / f"{name}-{count}.npy"]
            if count == 1:
                learn(project, pairs[-1], Ranks(0, 1, torch.device("cpu")))
        if count > 1:
            finish(two_ranks(Path(__file__).with_name("rank_equality.py"), project.workspace.root, *pairs, count=count))
        for name, output in zip(found, pairs[1::2], strict=True):
            found[name].append(np.load(output))
    network = Workshop(project, derived_plan(project).study).network(torch.device("cpu"))
    first = np.concatenate([value.double().numpy().ravel() for value in network.state_dict().values()])
    assert abs(found["sums"][0] - first).max() > 1e-2, "they did learn"
    for alone, *others in found.values():
        assert all(abs(alone - other).max() <= 1e-10 for other in others)


def test_two_ranks_step_in_the_backward_pass_as_one_does_after_it(base: Path) -> None:
    """Steps of the loop in float64, and of every memory strategy, beside those of one rank with the batch of both."""
    data, folder = packed_organs(base)
    data = changed(data, task={"dice": "sample"}, batches={"size": 4}, training={
        "optimiser": {"name": "lamb", "rate": 0.02, "clip": None}, "ranks": {"bucket_mb": 0.01}, "steps": FEW})
    project = project_of(data, folder, "after-backward")
    alone, shared = folder / "after.npy", folder / "within.npy"
    learn(project, alone, Ranks(0, 1, torch.device("cpu")), FEW)
    project_of(changed(data, training={**data["training"], "memory": {"in_backward": True}}), folder, "in-backward")
    script = Path(__file__).with_name("rank_in_backward.py")
    finish(two_ranks(script, project.workspace.root, folder / "in-backward.yaml", shared))
    assert abs(np.load(alone) - np.load(shared)).max() <= 1e-10


def test_two_ranks_see_the_samples_of_one_and_learn_the_same(base: Path) -> None:
    """With a loss that is a mean over voxels two ranks are one rank, but for the order in which numbers are added."""
    data, folder = packed_organs(base)
    # A uniform rate from the first step on, and no clipping, which would hide a gradient that is twice too large.
    optimiser = {**SGD["optimiser"], "rate": 0.2, "warmup": 0.0, "clip": None}  # type: ignore[dict-item]
    data = changed(data, training={"optimiser": optimiser, "ema": 0.9, "steps": 3, "validations": 1},
                   batches={"size": 4})
    notes, weights = {}, {}
    for run in ("alone", "shared"):
        project, output = project_of(data, folder, run), folder / f"records-{run}"
        output.mkdir()
        if run == "alone":
            record(project, output)
        else:
            script = Path(__file__).with_name("rank_records.py")
            process = two_ranks(script, folder / f"{run}.yaml", project.workspace.root, run, output)
            told, _ = process.communicate(timeout=240)
            assert process.returncode == 0, told
        notes[run] = [read_json(path) for path in sorted(output.iterdir())]
        weights[run] = load_file(project.run.step(3) / "network.safetensors")
    [alone], shared = notes["alone"], notes["shared"]
    assert len(shared) == 2
    assert sorted(shared[0]["samples"] + shared[1]["samples"]) == sorted(alone["samples"])
    assert [len(rank["samples"]) for rank in shared] == [6, 6]
    assert len({tuple(sample) for sample in alone["samples"]}) == 12
    for rank in shared:  # each has all rows of the validation
        assert rank["scores"] == pytest.approx(alone["scores"], abs=1e-4, nan_ok=True)
    first = Workshop(project, derived_plan(project).study).network(torch.device("cpu")).state_dict()
    for name, value in weights["alone"].items():
        assert weights["shared"][name] == pytest.approx(value, abs=1e-5), name
    assert max(abs(weights["alone"][name] - first[name].numpy()).max() for name in first) > 1e-3  # they did learn


def test_a_rank_may_validate_and_save_longer_than_a_dead_one_is_waited_for(base: Path) -> None:
    """The share of one rank may hold the one huge case; a run that goes on begins with a save of the first rank."""
    data, folder = packed_organs(base)
    project = project_of(changed(data, training={"steps": 2, "validations": 1}), folder, "slow")
    output = folder / "records-slow"
    output.mkdir()
    script = Path(__file__).with_name("rank_records.py")
    for _ in ("from the start", "from its last checkpoint"):
        process = two_ranks(script, folder / "slow.yaml", project.workspace.root, "slow", output, "12")
        told, _ = process.communicate(timeout=240)
        assert process.returncode == 0, told
        assert len(list(output.iterdir())) == 2


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
        told, _ = process.communicate(timeout=10)
        assert process.returncode != 0
        assert told.count("megavox: rank 0 of 2: another rank died") == 1
        assert "our fault" not in told
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        assert process.stdout is not None
        process.stdout.close()
        process.wait()

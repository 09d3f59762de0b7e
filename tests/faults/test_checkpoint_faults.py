"""Checkpoints survive a kill at every write, and refuse to load when they are damaged or of another network."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from save_and_die import BEST, STEPS, parts, save, train_to
from torch import nn

from megavox.core.errors import CheckpointError
from megavox.core.files import read_json
from megavox.core.workspace import DONE, RunFolder
from megavox.training.best import AVERAGED, best_checkpoint
from megavox.training.checkpoint import (
    NETWORK,
    OPTIMISER,
    STATE,
    complete_checkpoints,
    latest_checkpoint,
    load_checkpoint,
    load_weights,
    save_checkpoint,
)
from megavox.training.optimiser import MovingAverage
from small_studies import environment


def loads(path: Path) -> int:
    """The step of a checkpoint that loads and holds exactly what was saved."""
    network, average, optimiser = parts()
    progress = load_checkpoint(path, network, average, optimiser)
    same = train_to(progress.step)
    assert progress == same[3] and path.name == f"step-{progress.step:08d}"
    for found, expected in ((network.state_dict(), same[0].state_dict()), (average.weights, same[1].weights)):
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in found)
    for index, values in same[2].state_dict()["state"].items():
        for key, value in values.items():
            assert torch.equal(optimiser.state_dict()["state"][index][key], value)
    return progress.step


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> list[RunFolder]:
    """Run folders of processes killed at the 1st, 2nd, ... write boundary; the last one came through."""
    folder = tmp_path_factory.mktemp("killed")
    script = Path(__file__).with_name("save_and_die.py")
    subprocess.run([sys.executable, str(script), str(folder)], check=True, env=environment(), timeout=120)
    found = sorted(folder.iterdir(), key=lambda path: int(path.name))
    assert [int(path.name) for path in found] == list(range(1, len(found) + 1))
    assert len(found) > 60  # several boundaries a file, for each of the steps
    return [RunFolder(path) for path in found]


def test_after_a_kill_at_any_write_the_last_good_checkpoint_loads(killed: list[RunFolder]) -> None:
    steps = []
    for folder in killed:
        latest = latest_checkpoint(folder)
        steps.append(loads(latest) if latest else 0)
        if folder.best.exists():
            assert loads(best_checkpoint(folder)) <= steps[-1]
        for path in folder.checkpoints.glob("step-*"):
            assert (path / DONE).exists() == (path in complete_checkpoints(folder))
    assert steps == sorted(steps)  # nothing that was there gets lost later
    assert set(steps) == set(range(STEPS + 1))


def test_after_a_kill_at_any_write_the_run_ends_as_if_nothing_had_happened(killed: list[RunFolder],
                                                                           tmp_path: Path) -> None:
    for number, folder in enumerate(killed):
        again = RunFolder(tmp_path / str(number))
        shutil.copytree(folder.root, again.root)
        latest = latest_checkpoint(again)
        for step in range(loads(latest) if latest else 1, STEPS + 1):  # the loop saves the loaded state once more
            save(again, step)
        assert read_json(again.best) == {"step": BEST, "score": BEST / 10}
        assert [loads(path) for path in complete_checkpoints(again)] == [BEST, STEPS]
        names = {path.name for path in again.checkpoints.iterdir()}
        assert names == {"best.json", again.step(BEST).name, again.step(STEPS).name}


# ------------------------------------------------------------------ damage


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = RunFolder(tmp_path_factory.mktemp("good"))
    for step in (1, 2):
        save(folder, step, keep=2)
    return folder


def damaged(good: RunFolder, place: Path, name: str, data: bytes | None) -> Path:
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(good.root, place)
    path = RunFolder(place).step(2) / name
    path.unlink() if data is None else path.write_bytes(data)
    return path


@settings(max_examples=60)
@example(name=DONE, at=1 - 1e-9, bit=0)  # the last line break
@given(name=st.sampled_from([NETWORK, AVERAGED, OPTIMISER, STATE, DONE]), at=st.floats(0, 1, exclude_max=True),
       bit=st.integers(0, 7))
def test_one_changed_bit_is_noticed_wherever_it_is(good: RunFolder, tmp_path_factory: pytest.TempPathFactory,
                                                   name: str, at: float, bit: int) -> None:
    data = bytearray((good.step(2) / name).read_bytes())
    data[int(at * len(data))] ^= 1 << bit
    path = damaged(good, tmp_path_factory.getbasetemp() / "flipped", name, bytes(data))
    with pytest.raises(CheckpointError, match=r"step-00000002/\w+\.(safetensors|json)") as caught:
        load_checkpoint(path.parent, *parts())
    assert "Remove that checkpoint folder" in str(caught.value)


@pytest.mark.parametrize("name", [NETWORK, AVERAGED, OPTIMISER, STATE])
@pytest.mark.parametrize("kept", [None, 0.0, 0.5, 0.999])
def test_a_missing_or_truncated_file_is_named(good: RunFolder, tmp_path: Path, name: str, kept: float | None) -> None:
    data = (good.step(2) / name).read_bytes()
    path = damaged(good, tmp_path / "cut", name, None if kept is None else data[:int(kept * len(data))])
    with pytest.raises(CheckpointError, match=str(path)):
        load_checkpoint(path.parent, *parts())
    shutil.rmtree(path.parent)  # as the message says
    latest = latest_checkpoint(RunFolder(tmp_path / "cut"))
    assert latest is not None and loads(latest) == 1


def test_prediction_refuses_changed_weights_too(good: RunFolder, tmp_path: Path) -> None:
    data = bytearray((good.step(2) / AVERAGED).read_bytes())
    data[-3] ^= 1  # of the last weight: still a valid file of sensible numbers
    path = damaged(good, tmp_path / "weights", AVERAGED, bytes(data))
    with pytest.raises(CheckpointError, match=r"averaged\.safetensors.*SHA-256"):
        load_weights(path.parent, parts()[0])


def test_done_is_what_sha256sum_checks(good: RunFolder) -> None:
    subprocess.run(["sha256sum", "--check", "--strict", DONE], cwd=good.step(2), check=True, capture_output=True)
    assert len((good.step(2) / DONE).read_text().splitlines()) == 4


@pytest.mark.parametrize("other", [
    nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Linear(5, 2)), nn.Sequential(nn.Linear(3, 4)),
    nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2), nn.Linear(2, 2))])
def test_weights_of_another_network_are_refused(good: RunFolder, other: nn.Module) -> None:
    with pytest.raises(CheckpointError, match="do not fit this network"):
        load_weights(good.step(2), other)
    with pytest.raises(CheckpointError, match="do not fit this network"):
        load_checkpoint(good.step(2), other, MovingAverage(other, 0.9), torch.optim.AdamW(other.parameters()))


def test_no_checkpoint_yet(tmp_path: Path) -> None:
    assert latest_checkpoint(RunFolder(tmp_path)) is None
    with pytest.raises(CheckpointError, match=r"no checkpoint yet.*megavox train"):
        best_checkpoint(RunFolder(tmp_path))


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_an_optimiser_without_tensors_of_its_own_is_kept_too(tmp_path: Path, momentum: float) -> None:
    network, average, _, progress = train_to(1)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.3, momentum=momentum)
    network(torch.ones(4, 3)).sum().backward()
    optimiser.step()
    save_checkpoint(RunFolder(tmp_path), network, average, optimiser, progress, keep=1)
    other = torch.optim.SGD(parts()[0].parameters(), lr=0.1, momentum=momentum)
    load_checkpoint(RunFolder(tmp_path).step(1), parts()[0], parts()[1], other)
    assert other.param_groups[0]["lr"] == 0.3
    for one, two in zip(optimiser.state_dict()["state"].values(), other.state_dict()["state"].values(), strict=True):
        assert all(torch.equal(one[key], two[key]) if one[key] is not None else two[key] is None for key in one)

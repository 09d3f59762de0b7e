"""The time of a step: what is counted, what is measured, and where it is kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from megavox.core.errors import MachineError
from megavox.memory.calibrate import Measured, _fit, _measure, calibrate
from megavox.memory.follow import STEPS, Exercise, follow, go
from megavox.memory.live import Live
from megavox.memory.step_time import (
    Throughput,
    keep_throughput,
    machine_facts,
    step_seconds,
    throughput_file,
    throughput_here,
)
from megavox.models.unet import UNet

FOUND = Throughput(8e10, 4e9, 6e9)
A, B = torch.zeros(100, 10), torch.zeros(100, 10)
W = torch.zeros(7, 100, 1)
FLOATS = 4 * 1000


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "megavox"


def counted(work: Callable[[], object]) -> tuple[int, int]:
    with Live(nn.Identity()) as live:
        work()
    return live.product_bytes, live.other_bytes


@pytest.mark.parametrize(("work", "product", "other"), [
    (lambda: A + B, 0, 3 * FLOATS),
    (lambda: A * A, 0, 2 * FLOATS),  # one tensor, read once
    (lambda: A.add_(B), 0, 3 * FLOATS),
    (lambda: A.double(), 0, 3 * FLOATS),
    (lambda: torch.cat([A, B]), 0, 4 * FLOATS),
    (lambda: A[:, :5] + 1, 0, FLOATS),  # half of it, read and written
    (lambda: A + B[:1].expand(100, 10), 0, 3 * FLOATS),
    (lambda: A.sum(), 0, FLOATS + 4),
    (lambda: A + torch.zeros(1).expand(100, 10), 0, 4 + 4 + 2 * FLOATS),  # one number is made, and read
    (lambda: A @ B.T, 2 * FLOATS + 4 * 100 * 100, 0),
    (lambda: functional.conv1d(A[None], W), FLOATS + 4 * 700 + 4 * 70, 0)])
def test_bytes_of_operators_are_exact(work: Callable[[], object], product: int, other: int) -> None:
    assert counted(work) == (product, other)


@pytest.mark.parametrize("work", [
    lambda: A.T, lambda: A.view(1000), lambda: A[3:7], lambda: A.expand(3, 100, 10), lambda: A.detach(),
    lambda: A.split(5), lambda: A.unbind(), lambda: A.permute(1, 0)[None], lambda: A.reshape(10, 100),
    lambda: torch.empty(1000), lambda: torch.empty_like(A), lambda: A.new_empty(5)])
def test_views_and_empty_tensors_move_nothing(work: Callable[[], object]) -> None:
    assert counted(work) == (0, 0)


def training(batch: int) -> Exercise:
    def loss(logits: Tensor) -> Tensor:
        return functional.cross_entropy(logits, torch.zeros(len(logits), *logits.shape[2:], dtype=torch.long))

    return Exercise(lambda: UNet(3, 1, 3, widths=[8, 16], strides=[(2, 2, 2)]), (batch, 1, 16, 16, 16), loss,
                    lambda network: torch.optim.SGD(network.parameters(), lr=0.01))


def test_fake_tensors_move_as_many_bytes_as_real_ones() -> None:
    told, took = follow(training(2)), go(training(2))
    assert told.product_bytes == took.product_bytes > 0
    assert told.other_bytes == pytest.approx(took.other_bytes, rel=1e-3)


def test_the_time_of_a_step_is_what_is_done_over_what_can_be_done() -> None:
    live = follow(training(2))
    only = [step_seconds(live, Throughput(*rates)) for rates in ((1, 1e30, 1e30), (1e30, 1, 1e30), (1e30, 1e30, 1))]
    assert only == pytest.approx([one / STEPS for one in (live.operations, live.product_bytes, live.other_bytes)])
    assert step_seconds(live, Throughput(1, 1, 1)) == pytest.approx(sum(only))
    assert 1.5 < step_seconds(follow(training(4)), FOUND) / step_seconds(live, FOUND) < 2


def test_peak_and_bandwidth_are_found_again_from_the_times_they_make() -> None:
    work = [(10**9, 10**6), (10**8, 10**8), (3 * 10**8, 2 * 10**7), (10**6, 10**8)]
    peak, bandwidth = _fit([Measured(ops, size, ops / 8e10 + size / 4e9) for ops, size in work])
    assert (peak, bandwidth) == pytest.approx((8e10, 4e9), rel=1e-6)


def test_where_bytes_explain_nothing_the_bandwidth_is_still_a_number() -> None:
    rates = _fit([Measured(ops, size, ops / 8e10) for ops, size in ((10**9, 10**6), (10**8, 10**8), (10**7, 10**8))])
    assert all(0 < rate < float("inf") for rate in rates)


def test_a_short_calibration_finds_positive_numbers() -> None:
    assert all(0 < rate < 1e16 for rate in asdict(calibrate("cpu", torch.float32, seconds=0.0)).values())


def test_a_layer_under_autocast_computes_as_much_and_moves_copies_besides() -> None:
    layer = partial(nn.Conv3d, 4, 4, 3, padding=1), (1, 4, 8, 8, 8)
    full, half = (_measure(layer, "cpu", dtype, 0.0) for dtype in (torch.float32, torch.bfloat16))
    assert half.operations == full.operations == 3 * 2 * 4 * 4 * 27 * 8**3  # forward, and both gradients
    assert half.moved > full.moved


def test_what_was_kept_is_read_again_and_only_here(cache: Path) -> None:
    assert throughput_here() is None
    facts = machine_facts("cpu", torch.float32)
    path = keep_throughput(FOUND, facts)
    assert path.parent == cache
    assert throughput_here() == FOUND
    assert throughput_here(dtype=torch.bfloat16) is None


@pytest.mark.parametrize("name", ["processor", "cores", "threads", "torch"])
def test_what_another_machine_measured_is_not_used(cache: Path, name: str) -> None:
    here = machine_facts("cpu", torch.float32)
    there = {**here, name: "another"}
    keep_throughput(FOUND, there)
    assert throughput_here() is None
    throughput_file(there).rename(throughput_file(here))  # under this one's name
    assert throughput_here() is None


@pytest.mark.parametrize("damage", [
    lambda text: text[:20], lambda text: "", lambda text: "[]", lambda text: "{}",
    lambda text: text.replace("operations_per_s", "operations"), lambda text: text.replace("80000000000.0", "-1.0"),
    lambda text: text.replace("80000000000.0", "null"), lambda text: text.replace("80000000000.0", '"many"'),
    lambda text: text.replace("80000000000.0", "NaN"),
    lambda text: json.dumps({**json.loads(text), "throughput": [1, 2, 3]})])
def test_a_damaged_file_is_told_of_and_not_used(cache: Path, damage: Callable[[str], str],
                                                capsys: pytest.CaptureFixture[str]) -> None:
    path = keep_throughput(FOUND, machine_facts("cpu", torch.float32))
    damaged = damage(path.read_text())
    assert damaged != path.read_text()
    path.write_text(damaged)
    assert throughput_here() is None
    assert "damaged" in capsys.readouterr().err


def test_without_a_place_for_caches_it_is_in_the_users_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for place in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", place)
        assert throughput_file({}).parent == tmp_path / ".cache" / "megavox"


def test_a_cache_that_cannot_be_made_is_told_with_a_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(MachineError, match="XDG_CACHE_HOME"):
        keep_throughput(FOUND, {})

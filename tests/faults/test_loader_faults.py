"""Loader workers that die, and damaged cases that they meet."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from megavox.batches.loader import batches
from megavox.core.errors import StoreError, TrainingError
from packed_arrays import samples_of, three_cases

SECONDS = 10.0  # within which a dead worker must be noticed


def processes_below() -> set[int]:
    """Ids of all processes below this one; workers are children of multiprocessing's fork server."""
    return {child.pid for child in psutil.Process().children(recursive=True)}


@pytest.fixture
def readers(tmp_path):
    return three_cases(tmp_path)


@pytest.mark.parametrize("taken", [1, 5])
def test_a_killed_worker_ends_training_soon_and_names_a_case(readers, taken):
    samples = samples_of(readers, (8, 8, 8), batch=2)
    list(batches(samples, first_step=0, steps=1, workers=1))  # starts the processes that stay
    before = processes_below()
    making = batches(samples, first_step=0, steps=10_000, workers=2, prefetch=2)
    for _ in range(taken):
        next(making)
    workers = processes_below() - before
    assert len(workers) == 2, workers
    os.kill(max(workers), signal.SIGKILL)
    begin = time.monotonic()
    with pytest.raises(TrainingError) as caught:
        for _ in making:
            assert time.monotonic() - begin < 3 * SECONDS, "the death went unnoticed"
    assert time.monotonic() - begin < SECONDS
    assert "worker died" in str(caught.value) and "lower batches.workers" in caught.value.fix
    assert any(reader.name in str(caught.value) for reader in readers)
    assert not workers & processes_below(), "the other workers are ended too"


def damage(folder: Path, shard: str, harm: str) -> None:
    """Harm one file of a packed case."""
    data = (folder / shard).read_bytes()
    if harm == "truncated":
        (folder / shard).write_bytes(data[:-10])
    elif harm == "flipped":
        (folder / shard).write_bytes(data[:100] + bytes([data[100] ^ 4]) + data[101:])
    elif harm == "gone":
        (folder / shard).unlink()
    else:
        (folder / "positions.npy").write_bytes(b"")


@pytest.mark.parametrize(("harm", "workers"), [("truncated", 0), ("gone", 0), ("positions", 0), ("flipped", 0),
                                               ("flipped", 1)])
def test_a_damaged_case_is_named_through_the_worker_which_ends(readers, harm, workers):
    victim = readers[1]
    samples = samples_of(readers, (8, 8, 8), batch=1, foreground=1.0)
    list(batches(samples, first_step=0, steps=1, workers=workers))  # starts the processes that stay
    before = processes_below()
    damage(victim.folder, victim.record.bytes[0][0], harm)
    for reader in readers:  # as a new process would find it
        vars(reader).pop("positions", None)
    samples = samples_of(readers, (8, 8, 8), batch=1, foreground=1.0)
    with pytest.raises(StoreError) as caught:
        list(batches(samples, first_step=0, steps=6, workers=workers))
    assert caught.value.where.startswith(f"{victim.name} ") and "megavox pack" in caught.value.fix
    assert processes_below() <= before


@pytest.mark.parametrize(("what", "how"), [("load", "crash"), ("load", "stay"), ("pack", "stay")])
def test_no_worker_outlives_the_main_process(tmp_path, what, how):
    """After an error that leaves the loader alive, and after SIGKILL, as for want of memory."""
    script = Path(__file__).resolve().parents[1] / "leave_workers.py"
    with subprocess.Popen([sys.executable, str(script), what, how, str(tmp_path)], text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        below = psutil.Process(process.pid).children(recursive=True)
        if how == "stay":
            process.kill()
        try:
            assert process.wait(SECONDS) == (1 if how == "crash" else -signal.SIGKILL)
            _, left = psutil.wait_procs(below, timeout=SECONDS)
            assert not left
        finally:
            for one in [*below, process]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.kill()

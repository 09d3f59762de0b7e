"""`megavox pack` that is asked to stop: at once, in one line, and the same command goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from megavox.core.files import TEMPORARY
from megavox.store.layout import RECORD
from small_studies import environment, segment_cohort, write_study

SECONDS = 25.0  # within which it must end; reading one image would take a minute
CASES = 12


@pytest.fixture
def study(tmp_path: Path) -> Path:
    return write_study(tmp_path / "study.yaml", segment_cohort(tmp_path / "images", CASES))


def slow(folder: Path, where: str) -> dict[str, str]:
    """Environment in which the eighth image takes a minute to open to `workers`, or a moment to the `main` process."""
    name = sorted(path.name for path in (folder / "images" / "imagesTr").glob("*.nii.gz"))[7]
    (folder / "path").mkdir()
    (folder / "path" / "sitecustomize.py").write_text(
        "import multiprocessing, sys, time\n"
        "def hook(event, arguments):\n"
        f"    if event == 'open' and str(arguments[0]).endswith({'imagesTr/' + name!r}) and (\n"
        f"            (multiprocessing.parent_process() is None) == {where == 'main'}):\n"
        f"        open({str(folder / 'slow')!r}, 'w').close()\n"
        f"        time.sleep({0.3 if where == 'main' else 60})\n"
        "sys.addaudithook(hook)\n")
    variables = environment()
    return {**variables, "PYTHONPATH": f"{folder / 'path'}{os.pathsep}{variables.get('PYTHONPATH', '')}"}


def start(study: Path, variables: dict[str, str]) -> subprocess.Popen[str]:
    """`megavox pack` in a session of its own, as a terminal or a batch queue starts it."""
    return subprocess.Popen([sys.executable, "-m", "megavox", "pack", str(study)], env=variables, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)


def when(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def packed(store: Path) -> dict[str, int]:
    """Names and inodes of the whole cases in the store."""
    return {path.parent.name: path.parent.stat().st_ino for path in store.glob(f"*/{RECORD}")}


@pytest.mark.parametrize(("number", "times", "group", "status"), [
    (signal.SIGINT, 1, True, 130),  # a terminal sends Ctrl-C to every process of the group
    (signal.SIGINT, 3, False, 130),  # and who waits for us may pass it on once more
    (signal.SIGTERM, 1, True, 75),
    (signal.SIGUSR1, 1, False, 75)])
def test_a_signal_ends_packing_at_once_and_the_same_command_goes_on(study: Path, number: signal.Signals, times: int,
                                                                    group: bool, status: int) -> None:
    store = study.parent / "workspace" / "store"
    process = start(study, slow(study.parent, "workers"))
    when(lambda: (study.parent / "slow").exists() and len(packed(store)) > 3, process)
    below = psutil.Process(process.pid).children(recursive=True)
    assert below
    begin = time.monotonic()
    for _ in range(times):
        os.killpg(process.pid, number) if group else process.send_signal(number)
        time.sleep(0.02)
    out, told = process.communicate(timeout=30)
    assert time.monotonic() - begin < SECONDS
    assert process.returncode == status and out == ""
    before = packed(store)
    assert told.startswith("megavox: stopping\nmegavox: stopped; ") and "the same command goes on" in told
    # A Ctrl-C that is passed on in the very moment after the first was dealt with costs the count.
    assert times > 1 or f"; {len(before)} cases are packed in {store} and" in told
    assert not [path for path in store.iterdir() if path.name.startswith(TEMPORARY)]
    _, left = psutil.wait_procs(below, timeout=5)
    assert not left
    done = subprocess.run([*process.args], env=environment(), text=True, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    after = packed(store)
    assert f"{CASES} cases packed" in done.stdout and len(after) == CASES
    assert before.items() <= after.items(), "what was packed is kept"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
def test_a_signal_while_headers_are_read_is_heard_too(study: Path, number: signal.Signals, status: int) -> None:
    process = start(study, slow(study.parent, "main"))
    when((study.parent / "slow").exists, process)
    begin = time.monotonic()
    process.send_signal(number)
    _, told = process.communicate(timeout=30)
    assert time.monotonic() - begin < SECONDS and process.returncode == status
    assert "stopped; 0 cases are packed in" in told and "the same command goes on" in told

"""A stage that is asked to stop says so at once, whatever it is writing at that moment."""

from __future__ import annotations

import subprocess
import sys

import pytest

from small_studies import environment

TOLD = "megavox: stopping\n"


def run(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run code that may send itself signals while a `Stop` listens."""
    head = "import os, signal, sys, time\nfrom megavox.core.signals import Stop\n"
    return subprocess.run([sys.executable, "-c", head + code], env={**environment(), **variables}, text=True,
                          capture_output=True, timeout=60, check=False)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGUSR1"])
def test_the_line_comes_before_the_step_has_ended(name: str) -> None:
    done = run(f"with Stop('stopping') as stop:\n    os.kill(os.getpid(), signal.{name})\n    time.sleep(0.05)\n"
               "    os.write(2, b'the step ended\\n')\n")
    assert (done.returncode, done.stderr) == (0, f"{TOLD}the step ended\n")


def test_it_is_told_once() -> None:
    done = run("with Stop('stopping') as stop:\n    for number in (10, 15, 10, 2, 15):\n"
               "        os.kill(os.getpid(), number)\n"
               "        time.sleep(0.01)\n")
    assert (done.returncode, done.stderr) == (0, TOLD)


def test_the_first_rank_speaks_for_all() -> None:
    code = ("with Stop('stopping') as stop:\n    os.kill(os.getpid(), 15)\n    time.sleep(0.01)\n"
            "    assert stop.signal == 15\n")
    assert [run(code, RANK=rank).stderr for rank in ("0", "1")] == [TOLD, ""]


def test_a_signal_in_the_midst_of_a_write_does_no_harm() -> None:
    """Python's buffered streams raise when they are entered again from a signal."""
    done = run("import itertools\n"
               "signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)\n"
               "end = time.monotonic() + 1\n"
               "def again(*_):\n    stop.signal = None\n    stop._note(signal.SIGTERM, None)\n"
               "signal.signal(signal.SIGALRM, again)\n"
               "with Stop('stopping') as stop:\n"
               "    while time.monotonic() < end:\n        sys.stderr.buffer.write(b'.' * 50)\n"
               "    signal.setitimer(signal.ITIMER_REAL, 0)\n")
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stderr.count(TOLD.strip()) > 50


@pytest.mark.parametrize("harm", ["os.close(2)", "r, w = os.pipe(); os.dup2(w, 2); os.close(r); os.close(w)"])
def test_nobody_to_tell_is_no_reason_to_fail(harm: str) -> None:
    done = run(f"{harm}\nwith Stop('stopping') as stop:\n    os.kill(os.getpid(), 15)\n    time.sleep(0.01)\n"
               "    assert stop.signal == 15\nos._exit(7)\n")
    assert done.returncode == 7

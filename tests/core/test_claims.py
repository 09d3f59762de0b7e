"""Claims: one command has a name at a time, and a process that dies has none."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from megavox.core.claims import Claims

HOLD = """
import sys
from pathlib import Path
from megavox.core.claims import Claims
with Claims(Path(sys.argv[1])) as claims:
    print(claims.take("a"), flush=True)
    sys.stdin.read()
"""


def test_claims_of_one_process(tmp_path: Path) -> None:
    with Claims(tmp_path / "claims") as one, Claims(tmp_path / "claims") as other:
        assert one.take("a") and one.take("b") and not other.take("a")
        assert other.take("c") and not one.take("c")
        one.release("a")
        assert other.take("a") and not one.take("a")
        with one.alone() as alone:
            assert not alone
    with Claims(tmp_path / "claims") as third:
        assert third.take("a") and third.take("b")
        with third.alone() as alone:
            assert alone
    assert (tmp_path / "claims").stat().st_size == 0


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "claims"
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               text=True)
    assert process.stdout is not None and process.stdin is not None
    assert process.stdout.readline() == "True\n"
    with Claims(path) as claims:
        assert not claims.take("a") and claims.take("b")
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert claims.take("a")
        with claims.alone() as alone:
            assert alone
    process.stdin.close()
    process.stdout.close()

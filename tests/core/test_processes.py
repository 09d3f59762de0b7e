"""How a rank ends."""

from __future__ import annotations

import subprocess
import sys

import pytest

from small_studies import environment

ENDING = """
import atexit
from megavox.core.processes import leave
atexit.register(print, "the interpreter is on its way out")
print("the last line", end="")
leave(3)
"""


@pytest.mark.parametrize(("count", "told"), [("1", "the last linethe interpreter is on its way out\n"),
                                             ("2", "the last line")])
def test_one_of_several_ranks_ends_at_once_and_loses_no_word(count: str, told: str) -> None:
    done = subprocess.run([sys.executable, "-c", ENDING], capture_output=True, text=True, check=False,
                          env={**environment(), "WORLD_SIZE": count})
    assert (done.returncode, done.stdout) == (3, told), done.stderr

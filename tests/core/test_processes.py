"""How a rank ends, and from where workers are started."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from small_studies import environment, segment_cohort, write_study

ROOT = Path(__file__).parents[2]

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


# ------------------------------------------------------------------ scripts of users


GUARD = 'if __name__ == "__main__":'


@pytest.mark.parametrize("guarded", [True, False])
def test_the_readme_s_script_works_and_without_its_guard_nothing_is_set_aside(tmp_path: Path, guarded: bool) -> None:
    [lines] = re.findall(r"```python\n(.+?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert GUARD in lines
    script = tmp_path / "mine.py"
    script.write_text(lines if guarded else lines.replace(GUARD, "if True:"))
    write_study(tmp_path / "study.yaml", segment_cohort(tmp_path / "images"))
    done = subprocess.run([sys.executable, script.name], capture_output=True, text=True, check=False, cwd=tmp_path,
                          env=environment())
    if guarded:
        assert done.returncode == 0, done.stderr
        return
    told = done.stderr.splitlines()[-1]
    assert f"ScriptError: {script}: line " in told and f"Expected: {GUARD}" in told
    assert "pack(project)" in lines.splitlines()[int(re.findall(r"line (\d+)", told)[0]) - 1]
    assert not (tmp_path / "workspace" / "quarantine.csv").exists()


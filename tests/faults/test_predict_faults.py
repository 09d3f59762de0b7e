"""Cohort runs under attack: killed as a whole, worker by worker, by their own cases, and beside each other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from apart import run_apart
from megavox.core.files import read_json
from predict_faults import KILLS, deadly, killed_anywhere, newest_killed, overlapped, two_commands, workers_killed

ALL = [f"case{number:02d}" for number in range(24)]


def outcome(work: Callable[[Path], None], root: Path) -> Any:
    """What a run under attack wrote of itself."""
    run_apart(work, root, {"OMP_NUM_THREADS": "1"})
    return read_json(root / "outcome.json")


def test_killed_at_random_moments_and_started_again_equals_one_clean_run(tmp_path: Path) -> None:
    found = outcome(killed_anywhere, tmp_path)
    assert found["kills"] >= KILLS == 100 and found["rounds"] >= 1


@pytest.mark.parametrize("work", [workers_killed, newest_killed])
def test_workers_that_are_killed_are_replaced_and_their_cases_done(
        work: Callable[[Path], None], tmp_path: Path) -> None:
    found = outcome(work, tmp_path)
    assert found["kills"] >= 3 and found["listed"] == 16, "every case is done or set aside"
    assert found["masks"] == 16 and found["equal"], "and what was set aside is done by the next command"


def test_cases_that_break_their_worker_are_retried_once_and_set_aside(tmp_path: Path) -> None:
    found = outcome(deadly, tmp_path)
    assert found["statuses"] == [0, 0] and not found["unfinished"]
    reasons = {row["case"]: (row["reason"], row["message"]) for row in found["quarantine"]}
    assert set(reasons) == {"case01", "case03", "case04", "case06"}
    assert reasons["case01"][0] == reasons["case03"][0] == "killed its worker"
    assert "SIGKILL" in reasons["case01"][1] and "status 3" in reasons["case03"][1]
    assert "ValueError: a bug" in reasons["case06"][1] and "Traceback" in found["trace"]
    assert found["done"] == [name for name in ALL[:12] if name not in reasons]
    first, again = found["reads"]
    assert all(first[name] == 2 for name in ("case01", "case03", "case06", "case08", "case09"))
    assert all(first[name] <= 2 for name in first)
    assert set(again) == {"case01", "case03", "case06"}, "tried again: it may have been the machine"


def test_two_commands_share_the_work_and_write_one_table(tmp_path: Path) -> None:
    found = outcome(two_commands, tmp_path)
    assert found["statuses"] == [0, 0]
    assert found["table"] == ALL and found["reads"] == dict.fromkeys(ALL, 1), "each case is done once"
    assert {one["rows"] + one["elsewhere"] for one in found["commands"]} == {24}
    assert any(one["elsewhere"] == 0 for one in found["commands"]), "one of them finds that all is done"


def test_reading_computing_and_writing_overlap(tmp_path: Path) -> None:
    found = outcome(overlapped, tmp_path)

    def met(one: str, other: str) -> bool:
        return any(a < d and c < b for a, b in found[one] for c, d in found[other])

    assert all(len(found[kind]) == 8 for kind in ("reading", "computing", "writing"))
    assert met("reading", "computing") and met("computing", "writing") and met("reading", "writing")

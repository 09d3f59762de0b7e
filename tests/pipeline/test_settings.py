"""What a store was packed with, and what is told where that is not what is wanted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megavox.pipeline.pack import pack
from megavox.pipeline.project import packing_settings
from megavox.study.compare import MOST, differences
from small_studies import changed, project_of, segment_cohort

VALUES = st.none() | st.integers() | st.text(max_size=5) | st.lists(st.integers(), max_size=3)
NESTED = st.recursive(st.dictionaries(st.text("abc", min_size=1, max_size=2), VALUES, max_size=4),
                      lambda inner: st.dictionaries(st.text("abc", min_size=1, max_size=2), inner | VALUES, max_size=4))


@pytest.mark.parametrize(("before", "now", "told"), [
    ({"seed": 1}, {"seed": 1}, ""),
    ({"seed": 1}, {"seed": 2}, "seed was 1 and is 2"),
    ({"images": {"spacing_mm": [1.0, 2.0], "grey": False}}, {"images": {"spacing_mm": "native", "grey": False}},
     "images.spacing_mm was [1.0, 2.0] and is native"),
    ({"task": {"classes": {"core": 1}}}, {"task": {"classes": {"core": 1, "shell": 2}}},
     "task.classes.shell was not set and is 2"),
    ({"a": 1, "b": 2}, {"b": 3}, "b was 2 and is 3; a was 1 and is not set"),
    ({"a": None}, {"a": {"b": 1}}, "a.b was not set and is 1; a was None and is not set"),
    ({"a": {}}, {}, "a was {} and is not set")])
def test_differences_name_keys_and_both_values(before: Any, now: Any, told: str) -> None:
    assert differences(before, now) == told


def test_of_many_differences_the_first_are_told() -> None:
    told = differences({}, {f"k{n}": n for n in range(MOST + 3)})
    assert told.count(" was not set and is ") == MOST and told.endswith("; and 3 further keys")


@given(NESTED, NESTED)
def test_there_are_none_only_between_equals(before: dict[str, Any], now: dict[str, Any]) -> None:
    assert (differences(before, now) == "") == (before == now)


def test_settings_are_those_that_packing_depends_on_and_survive_json(tmp_path: Path) -> None:
    data = segment_cohort(tmp_path / "images", 2)
    study = project_of(data, tmp_path, "one").study
    found = packing_settings(study)
    assert json.loads(json.dumps(found)) == found
    for sections, told in (({"training": {"steps": 99}}, ""), ({"images": {"quarantine": "refuse"}}, ""),
                           ({"split": {"test": 0.5}}, "split.test was 0.25 and is 0.5"),
                           ({"images": {"spacing_mm": [3, 3, 3]}},
                            "images.spacing_mm was [2.5, 2.5, 2.5] and is [3.0, 3.0, 3.0]")):
        other = project_of(changed(data, **sections), tmp_path, "other").study
        assert differences(found, packing_settings(other)) == told


def test_pack_keeps_its_settings_and_says_why_it_packs_anew(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data = segment_cohort(tmp_path / "images", 8)
    project = project_of(data, tmp_path, "one")
    pack(project)
    assert "packed again" not in capfd.readouterr().err
    assert project.packing()["settings"] == packing_settings(project.study)
    pack(project_of({**data, "seed": 4}, tmp_path, "two"))
    assert "8 cases packed before are of no use and are packed again: seed was 3 and is 4" in capfd.readouterr().err
    (project.workspace.store / "settings.json").write_text("{")
    pack(project_of({**data, "seed": 4}, tmp_path, "two"))
    assert "settings.json is damaged" in capfd.readouterr().err

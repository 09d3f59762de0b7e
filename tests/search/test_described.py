"""What is searched is said in the study's own words, and what is wrong with it in ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from megavox.core.errors import StudyError
from megavox.search.described import space_of, with_setting
from megavox.search.space import Bound, Choice, Number
from megavox.study import Study, parse_study

STUDY = {"name": "s", "cohort": {"layout": "decathlon", "folder": "here"},
         "task": {"kind": "segment", "classes": {"a": 1}}, "model": {"family": "unet"},
         "batches": {"patch": [32, 32, 32]}}


def study(**space: Any) -> Study:
    text = yaml.safe_dump({**STUDY, "search": {"space": {name.replace("__", "."): one for name, one in space.items()}}},
                          sort_keys=False)
    return parse_study(text, where=Path("study.yaml"))


def test_the_space_is_that_of_the_keys() -> None:
    space = space_of(study(
        batches__patch={"choices": [[32, 32, 32], [64, 64, 64]]}, model__filters={"low": 4, "high": 32, "step": 2},
        model__levels={"low": 2, "high": 4}, training__optimiser__rate={"low": "1e-8", "high": 1e-2, "log": True},
        training__optimiser__name={"choices": ["adamw", "sgd"]},
        training__optimiser__momentum={"low": 0, "high": 0.99, "when": {"training.optimiser.name": "sgd"}},
        batches__size={"low": 2, "high": "batches.patch / 4"}))
    assert space.parameters == (
        Choice("batches.patch", ([32, 32, 32], [64, 64, 64])),
        Number("model.filters", Bound(4), Bound(32), step=2, integer=True),
        Number("model.levels", Bound(2), Bound(4), step=1, integer=True),
        Number("training.optimiser.rate", Bound(1e-8), Bound(1e-2), log=True),
        Choice("training.optimiser.name", ("adamw", "sgd")),
        Number("training.optimiser.momentum", Bound(0), Bound(0.99), when={"training.optimiser.name": ("sgd",)}),
        Number("batches.size", Bound(2), Bound(0.25, "batches.patch"), step=1, integer=True))


def test_bounds_follow_keys_that_are_there() -> None:
    space = space_of(study(batches__patch={"choices": [[64, 64, 64], [8, 8, 8]]},
                           batches__size={"low": 2, "high": "batches.patch / 4"}))
    assert space.parameters[1] == Number("batches.size", Bound(2), Bound(0.25, "batches.patch"), step=1, integer=True)
    under = {"low": 2, "high": 4, "when": {"training.optimiser.name": "sgd"}}
    for bound in ("model.levels * 2", "model.levels / 0", "training.optimiser.name"):
        with pytest.raises(StudyError):
            space_of(study(training__optimiser__name={"choices": ["adamw", "sgd"]}, model__levels=under,
                           model__filters={"low": 1, "high": bound}))


def test_a_setting_makes_a_study() -> None:
    setting = {"model.levels": 3, "training.optimiser.rate": 0.1}
    found = with_setting(study(model__levels={"low": 2, "high": 4}), setting)
    assert found.model.model_dump()["levels"] == 3 and found.training.optimiser.rate == 0.1 and found.search is None


@pytest.mark.parametrize(("end", "value"), [
    ("batches.size * 2", 16), ("2 * batches.size", 16), ("batches.size/4", 2), ("batches.size", 8),
    ("0.5*batches.size", 4)])
def test_bounds_are_products_and_quotients(end: str, value: float) -> None:
    space = space_of(study(batches__size={"low": 2, "high": 8}, model__filters={"low": 1, "high": end}))
    assert space.parameters[1].bounds({"batches.size": 8}) == (1, value)


@pytest.mark.parametrize(("name", "section", "told"), [
    ("model.filter", {"low": 4, "high": 8}, r"search\.space\.model\.filter.*Did you mean filters"),
    ("modle.filters", {"low": 4, "high": 8}, "cannot be searched"),
    ("model.unet.filters", {"low": 4, "high": 8}, "there is no key model.unet.filters"),
    ("images.spacing_mm", {"choices": [1, 2]}, "not of its packed cases"),
    ("model.filters", {"low": -4, "high": 8}, r"search\.space\.model\.filters.*found -4"),
    ("model.norm", {"choices": ["instance", "bach"]}, "found 'bach'.*Did you mean batch"),
    ("model.filters", {"low": 8, "high": 4}, "must be less than high"),
    ("model.filters", {"low": 8}, "give low and high, or choices"),
    ("model.filters", {"low": 8, "high": 9, "choices": [1, 2]}, "either choices"),
    ("model.filters", {"low": 0, "high": 9, "log": True}, "low must be above 0"),
    ("model.filters", {"low": 1, "high": "batches.patch / 2"}, "stands before it"),
    ("model.filters", {"low": 1, "high": "twice as many"}, "found 'twice as many', expected a number, or another"),
    ("model.filters", {"low": 1, "high": 9, "when": {"model.norm": "batch"}}, "condition model.norm = batch"),
    ("model.filters", {"low": 4, "high": 32, "step": 1.5}, "found step 1.5.*whole number"),
    ("training.optimiser.rate", {"low": 1e-4, "high": 1e-2, "step": 1, "log": True}, "no step beside log"),
    ("model.filters", {"low": 1, "hihg": 9}, "Did you mean high"), ("model.filters", [1, 9], "expected a section"),
    ("training.optimiser.rate", {"low": "model.dropout / 10", "high": 1, "log": True}, "may become 0")])
def test_what_is_wrong_is_said(name: str, section: Any, told: str) -> None:
    with pytest.raises(StudyError, match=f"(?s){told}"):
        space_of(study(**{"model.dropout": {"low": 0, "high": 0.3}, name: section}))

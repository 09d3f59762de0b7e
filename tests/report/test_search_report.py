"""The report of a search: what its figures and tables say of known trials, and that any search has a page."""

from __future__ import annotations

import csv
import dataclasses
import re
from collections.abc import Callable
from functools import cache
from math import log10
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up_search import BEGAN, LOST, MEMORY, PARAMETERS, made_up_dice, made_up_setting, search_content
from test_report_figures import texts
from test_report_page import NASTY, Page

from megavox.core.randomness import generator
from megavox.report.search_charts import importance_bars, learning_curves, limits, progress
from megavox.report.search_content import ParameterRow, SearchContent, TrialRow
from megavox.report.search_page import write_search_report
from megavox.report.search_setting_charts import parallel_coordinates, parameter_slice, short
from megavox.report.search_tables import failure_table, in_order
from megavox.report.wording import TIMES
from megavox.search.importance import importance

RATE = ParameterRow("rate", "number", log=True)


def trial(number: int, value: float | None = None, **more: Any) -> TrialRow:
    """A trial of an hour that ended `number` hours after the first."""
    return TrialRow(**{"number": number, "setting": {"rate": 10.0 ** -(1 + number % 4)}, "value": value,
                       "state": "failed" if value is None else "done", "began": BEGAN + 3600 * number, "seconds": 3600,
                       "ended": BEGAN + 3600 * (number + 1), **more})


def small(*trials: TrialRow, **more: Any) -> SearchContent:
    return SearchContent(**{"study_name": "Small", "objective": "dice", "goal": "maximise", "workers": 2,
                            "method": "random", "trials": trials, "parameters": [RATE], **more})


def nasty() -> SearchContent:
    """Markup in every place that text can reach."""
    trials = [trial(n, n / 10 if n % 2 else None, setting={NASTY: (NASTY, "b")[n % 3 == 0]},
                    told="" if n % 2 else NASTY) for n in range(8)]
    return small(*trials, study_name=NASTY, objective=NASTY, method=NASTY, parameters=[ParameterRow(NASTY, "choice")],
                 defaults={NASTY: NASTY}, importance={NASTY: 1.0}, best_study=NASTY, provenance={NASTY: NASTY})


CHOICES = [one for one in PARAMETERS if one.kind == "choice"]
CONTENTS: dict[str, Callable[[], SearchContent]] = {
    "whole": search_content, "nothing yet": small, "nasty text": nasty,
    "many": lambda: search_content(500, 16), "one at a time": lambda: search_content(20, 1, parameters=PARAMETERS[:2]),
    "minimise": lambda: search_content(20, goal="minimise", objective="loss", parameters=PARAMETERS[:2]),
    "only choices": lambda: search_content(20, parameters=CHOICES[:2]),
    "first is under way": lambda: small(trial(0, state="running", ended=None)),
    "one": lambda: small(trial(0, 0.5)),
    "all failed": lambda: small(*(trial(n, cause="setting", told=MEMORY) for n in range(5))),
    "all equal": lambda: small(*(trial(n, 0.5, setting={"rate": 0.1}) for n in range(9)), importance={"rate": 0.0}),
    "a single choice": lambda: small(*(trial(n, 0.1 * n, setting={"rate": None}) for n in range(3)),
                                     parameters=[ParameterRow("rate", "choice")]),
    "no times": lambda: small(*(trial(n, 0.1 * n, began=None, ended=None, seconds=0.0) for n in range(3))),
    "huge and zero": lambda: small(*(trial(n, value) for n, value in enumerate([0.0, 1e300, -1e300, 0.5, 0.4]))),
    "no parameters": lambda: small(trial(0, 0.5, setting={}), trial(1, 0.6, setting={}), parameters=[])}


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The page of each of `CONTENTS`, written once."""
    return cache(lambda name: write_search_report(tmp_path_factory.mktemp("searches") / "report", CONTENTS[name]()))


@pytest.mark.parametrize("name", CONTENTS)
def test_any_search_has_a_whole_page_that_stands_alone(name: str, pages: Callable[[str], Path]) -> None:
    index = pages(name)
    page, used = Page(index), set()
    assert "http:" not in index.read_text() and "https:" not in index.read_text()
    for tag, attributes in page.tags:
        for key in ("src", "href"):
            target = attributes.get(key)
            if target and not target.startswith("#"):
                assert (index.parent / target).is_file(), target
                used.add(target)
        assert tag != "img" or attributes["alt"]
    written = {str(path.relative_to(index.parent)) for path in index.parent.rglob("*") if path.is_file()}
    assert written - {"index.html", "trials.csv"} == used - {"trials.csv"}
    links = {(attributes.get("href") or "")[1:] for _, attributes in page.tags
             if (attributes.get("href") or "").startswith("#")}
    assert links <= {attributes.get("id") for _, attributes in page.tags}
    assert "nan" not in re.sub(r"[a-z]nan|nan[a-z]", "", page.text) and "None" not in page.text


def test_page_tells_the_result_and_the_cost(pages: Callable[[str], Path]) -> None:
    content, text = search_content(), Page(pages("whole")).text
    best = content.best
    assert best is not None and best.value == max(one.value or 0.0 for one in content.trials)
    assert "After 60 jobs, the best setting reached a validation Dice of " \
           f"{best.value:.4g} (trial {best.number}). The study's own setting reached 0.81." in text
    hours = sum(2 * one.seconds for one in content.trials) / 3600
    assert f"Machine-hours {hours:.1f}" in text
    counts = {state: len(content.of_state(state)) for state in ("done", "stopped", "failed", "running")}
    assert f"Jobs done {counts['done']} {counts['stopped']} stopped early, {counts['failed']} failed, 3 under" in text
    assert (pages("whole").parent / "best.yaml").read_text() == content.best_study


def test_text_is_never_markup(pages: Callable[[str], Path]) -> None:
    index = pages("nasty text")
    page = Page(index)
    assert sum(tag == "script" for tag, _ in page.tags) == 1  # our own, that sorts tables
    assert page.text.count("<script>alert('x')</script>") > 10
    assert all("<script" not in path.read_text() for path in (index.parent / "figures").glob("*.svg"))


def test_same_search_gives_the_same_bytes(pages: Callable[[str], Path], tmp_path: Path) -> None:
    folders = [pages("whole").parent, write_search_report(tmp_path / "r", search_content()).parent]
    files = [{path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
             for folder in folders]
    assert files[0] == files[1] and len(files[0]) == 2 + 1 + 6 + len(PARAMETERS)


def test_many_trials_make_no_heavy_page(pages: Callable[[str], Path]) -> None:
    assert sum(path.stat().st_size for path in pages("many").parent.rglob("*") if path.is_file()) < 5_000_000


def test_trials_as_a_file(pages: Callable[[str], Path]) -> None:
    content = search_content()
    with (pages("whole").parent / "trials.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [int(row["trial"]) for row in rows] == list(range(63))
    for row, one in zip(rows, content.trials, strict=True):
        assert (float(row["dice"]) if row["dice"] else None) == one.value and row["told"] == one.told
        assert float(row["training.optimiser.rate"]) == one.setting["training.optimiser.rate"]
        assert (row["training.optimiser.momentum"] == "") == ("training.optimiser.momentum" not in one.setting)
    assert rows[0]["began"] == "2031-02-27T23:06:40+00:00"  # `date -u -d @1930000000`


def test_best_so_far_follows_the_order_in_which_jobs_ended() -> None:
    trials = [trial(0, 0.5, ended=BEGAN + 9000, seconds=1800, ranks=4), trial(1, 0.7, ended=BEGAN + 3600, ranks=2),
              trial(2, ended=BEGAN + 7200, cause="machine", told=LOST), trial(3, 0.6, state="done", ended=BEGAN + 1800)]
    content = small(*trials)
    assert [one.number for one in content.ended] == [3, 1, 2, 0]
    assert [one.number for one in content.done] == [1, 3, 0]
    assert [one.number for one in dataclasses.replace(content, goal="minimise").done] == [0, 3, 1]
    assert content.hours(BEGAN + 9000) == 2.5 and trials[0].machine_hours == 2
    words = texts(progress(content, "jobs"))
    assert {"jobs ended / M   (M = 2 at a time)", "best: 0.7, trial 1", "failed by the machine"} <= {*words}
    assert "failed by its setting" not in words and "stopped early: latest score" not in words
    assert "machine-hours of ended jobs" in texts(progress(content, "machine-hours"))
    assert "6" in texts(progress(content, "machine-hours"))  # 1 + 2 + 1 + 2 hours


def test_order_of_the_table_of_trials() -> None:
    stopped = {"state": "stopped", "value": None}
    rows = [trial(0), trial(1, 0.4), trial(2, **stopped), trial(3, scores=[(0.2, 0.1), (0.5, 0.3)], **stopped),
            trial(4, scores=[(0.5, 0.4)], **stopped), trial(5, state="running"), trial(6, 0.6), trial(7, 0.4)]
    assert [one.number for one in in_order(small(*rows))] == [6, 1, 7, 4, 3, 2, 0, 5]
    assert [one.number for one in in_order(small(*rows, goal="minimise"))] == [1, 7, 6, 3, 4, 2, 0, 5]


def test_failures_are_counted_by_cause_and_sentence() -> None:
    told = [("machine", LOST), ("setting", "the loss is not finite"), ("setting", MEMORY), ("setting", MEMORY)]
    table = failure_table(small(*(trial(n, cause=cause, told=words) for n, (cause, words) in enumerate(told))))
    assert table is not None
    assert [[cell.text for cell in row[1:]] for row in table.rows] == [
        [MEMORY, "2", "2, 3"], ["the loss is not finite", "1", "1"], [LOST, "1", "0"]]
    assert failure_table(small(trial(0, 0.5))) is None


def test_a_setting_that_diverged_does_not_flatten_the_others() -> None:
    values = [0.7 + 0.01 * n for n in range(20)]
    low, high = limits([*values, -1e6])
    assert 0.6 < low < 0.7 and 0.89 < high < 1
    assert limits([0.5, 0.5, 0.5, 0.5, 0.9])[1] > 0.9  # most are equal: nothing is far
    assert limits(values, [3.0])[1] > 3.0
    words = texts(progress(small(*(trial(n, value) for n, value in enumerate([*values, -1e6]))), "jobs"))
    assert "0.80" in words


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=30))
def test_an_axis_of_values_has_a_length_and_holds_its_middle(values: list[float]) -> None:
    low, high = limits(values)
    assert low < high and low <= np.median(values) <= high


def test_learning_curves_name_what_became_of_trials() -> None:
    words = set(texts(learning_curves(search_content())))
    best = search_content().best
    assert best is not None
    assert {"ran to its end", "stopped early", "under way", f"best: trial {best.number}"} <= words
    assert "no learning curves" in str(learning_curves(small(trial(0, 0.5))))


def test_slices_are_on_the_scale_of_their_parameter() -> None:
    content = search_content()
    words = {one.name: texts(parameter_slice(content, one)) for one in PARAMETERS}
    assert {"1e\u22125", "0.001", "0.01"} <= {*words["training.optimiser.rate"]}
    assert [word for word in words["training.optimiser.name"] if word.isalpha()] == ["adamw", "lamb", "sgd", "Dice"]
    sizes = [word for word in words["batches.patch"] if TIMES in word]
    assert sizes == [f"32 {TIMES} 32 {TIMES} 32", f"64 {TIMES} 64 {TIMES} 64", f"96 {TIMES} 96 {TIMES} 96"]
    assert {"no", "yes"} <= {*words["batches.augment.rotate"]}
    few = dataclasses.replace(content, trials=[one for one in content.trials if one.value is None])
    assert "No trial that has it" in str(parameter_slice(few, PARAMETERS[0]))


def test_numeric_choices_stand_in_their_order() -> None:
    content = small(*(trial(n, 0.1, setting={"batch": size}) for n, size in enumerate([100, 20, 3])))
    words = texts(parameter_slice(content, ParameterRow("batch", "choice")))
    assert [word for word in words if word in ("3", "20", "100")] == ["3", "20", "100"]


def test_parallel_coordinates_have_a_row_for_each_parameter() -> None:
    words = texts(parallel_coordinates(search_content()))
    assert {one.name for one in PARAMETERS} <= {*words} and "Dice" in words
    assert "adamw, lamb, sgd" in words and f"32 {TIMES} 32 {TIMES} 32 to 96 {TIMES} 96 {TIMES} 96" in words
    assert "Fewer than two" in str(parallel_coordinates(small(trial(0, 0.5))))


def test_importance_bars_have_the_most_important_first() -> None:
    words = texts(importance_bars({"a": 0.25, "b": 0.75}))
    assert words.index("b") < words.index("a") and {"75%", "25%"} <= {*words}
    assert "Too few" in str(importance_bars({}))


@pytest.mark.parametrize(("value", "text"), [
    (0.00071, "7.1e\u22124"), (1e-5, "1e\u22125"), (0.01, "0.01"), (0.0, "0"), (250000.0, "2.5e5"), (16, "16"),
    (True, "yes"), (None, "none"), ([96, 96, 64], f"96 {TIMES} 96 {TIMES} 64"), ("sgd", "sgd"), (-0.5, "\u22120.5")])
def test_values_of_parameters_as_people_write_them(value: Any, text: str) -> None:
    assert short(value) == text


def study_of(trials: int, value: Callable[[dict[str, Any], int], float] = made_up_dice) -> optuna.Study:
    """The made-up search as Optuna has it, with two trials that failed."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize")
    for number in range(trials):
        setting = made_up_setting(number)
        side = setting.pop("batches.patch")[0]
        setting["side"], setting["shift"] = side, int(generator(3, "shift", number).integers(side // 2 + 1))
        kinds = {"training.optimiser.rate": FloatDistribution(1e-6, 0.1, log=True),
                 "training.optimiser.name": CategoricalDistribution(("adamw", "sgd", "lamb")),
                 "training.optimiser.momentum": FloatDistribution(0.9, 0.99),
                 "training.batch": IntDistribution(1, 32, log=True), "model.filters": IntDistribution(8, 32, step=4),
                 "model.levels": IntDistribution(2, 5),
                 "batches.augment.rotate": CategoricalDistribution((False, True)),
                 "side": CategoricalDistribution((32, 64, 96)), "shift": IntDistribution(0, side // 2)}
        study.add_trial(optuna.trial.create_trial(
            params=setting, distributions={name: kinds[name] for name in setting},
            value=value({**setting, "batches.patch": [side] * 3}, number)))
    for _ in range(2):
        study.add_trial(optuna.trial.create_trial(state=optuna.trial.TrialState.FAIL))
    return study


def test_importance_finds_what_matters_among_conditions_and_bounds_that_move() -> None:
    shares = importance(study_of(60))
    assert next(iter(shares)) == "training.optimiser.rate" and shares["training.optimiser.rate"] > 0.6
    assert set(shares) == {one.name for one in PARAMETERS} - {"batches.patch"} | {"side", "shift"}
    assert sum(shares.values()) == pytest.approx(1) and min(shares.values()) >= 0
    assert shares == importance(study_of(60))


def test_importance_of_a_known_sum() -> None:
    """Of 3a + b, both uniform, a explains nine tenths of the variance; ranks change little in that."""
    study = optuna.create_study()
    for number in range(400):
        a, b, c = generator(5, "sum", number).uniform(size=3)
        kinds = dict.fromkeys("abc", optuna.distributions.FloatDistribution(0, 1))
        study.add_trial(optuna.trial.create_trial(params={"a": a, "b": b, "c": c}, distributions=kinds,
                                                  value=3 * a + b))
    shares = importance(study)
    assert shares["a"] == pytest.approx(0.9, abs=0.04) and shares["b"] == pytest.approx(0.1, abs=0.04)
    assert shares["c"] < 0.01


def test_importance_is_not_told_before_it_can_be_known() -> None:
    assert importance(study_of(0)) == importance(study_of(12)) == {}
    assert importance(study_of(40, lambda setting, number: 0.5)) == {}


def test_importance_is_that_of_the_searched_scale() -> None:
    """A value that follows the rate's logarithm is explained by it, though most rates are tiny."""
    shares = importance(study_of(60, lambda setting, number: -abs(log10(setting["training.optimiser.rate"]) + 4)))
    assert shares["training.optimiser.rate"] > 0.9

"""The table of a detection: resamples give what `froc` gives of them, intervals hold the truth as often as they say."""

from __future__ import annotations

import json
from math import inf, nan

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megavox.measures.detection import DIAMETERS_MM, GRID, Sweep, summarise_detection
from megavox.measures.froc import RATES, Marks, froc, mean_sensitivity, partial_area, sensitivity_at

RANGES = [(-inf, inf), (3.0, 5.0), (8.0, 15.0), (-inf, 3.0)]
AREA, MEAN = 0.67300, 0.57455  # of the search model


def of_search_model(random: np.random.Generator, n: int) -> list[Marks]:
    """1.5 lesions a case, found with chance 0.9 and scores N(2, 1), beside a Poisson number of N(0, 1), 20 a case."""
    return [Marks(np.where(random.random(lesions) < 0.9, random.normal(2, 1, lesions), nan),
                  random.choice([4.0, 7.0, 10.0, 20.0], lesions), random.normal(0, 1, random.poisson(20)))
            for lesions in random.poisson(1.5, n)]


SCORES = st.integers(0, 5).map(float)  # few, so that equal ones are common
FINDINGS = st.lists(st.tuples(SCORES | st.just(nan), st.sampled_from([-1.0, 2.0, 3.0, 4.0, 8.0, 15.0])), max_size=4)
CASES = st.builds(lambda findings, false: Marks(np.array([score for score, _ in findings]),
                                                np.array([mm for _, mm in findings]), np.array(false)),
                  FINDINGS, st.lists(SCORES, max_size=6))


@settings(max_examples=200)
@given(st.lists(CASES, min_size=1, max_size=6), st.data())
def test_a_resample_has_the_curve_of_its_list(cases: list[Marks], data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.integers(0, len(cases) - 1), min_size=1, max_size=12))
    found = Sweep(cases, RANGES).curves(np.bincount(rows, minlength=len(cases)))
    for curve, diameters_mm in zip(found, RANGES, strict=True):
        wanted = froc([cases[row] for row in rows], diameters_mm)
        rates = [*wanted.false_rate, *RATES]
        assert sensitivity_at(curve, rates) == pytest.approx(sensitivity_at(wanted, rates), abs=1e-12, nan_ok=True)
        for figure in (partial_area, mean_sensitivity):
            assert figure(curve) == pytest.approx(figure(wanted), abs=1e-12, nan_ok=True)
        assert curve.false_rate[-1] == wanted.false_rate[-1]


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    random, names = np.random.default_rng(3), [str(n) for n in range(100)]
    tables = [summarise_detection(of_search_model(random, 100), names, seed=n, resamples=120)["headline"]
              for n in range(60)]
    for name, truth in {"partial_area": AREA, "mean_sensitivity": MEAN}.items():
        low, value, high = np.array([[table[name][end] for end in ("low", "value", "high")] for table in tables]).T
        assert ((low <= truth) & (truth <= high)).sum() >= 51  # of 60; 57 are expected
        assert np.mean(high - low) / (2 * 1.96 * np.std(value, ddof=1)) == pytest.approx(1, abs=0.25)


def test_the_table_has_the_figures_of_the_curve_and_of_each_diameter() -> None:
    cases = of_search_model(np.random.default_rng(4), 60)
    table = summarise_detection(cases, [f"s{n // 2}" for n in range(60)], seed=0, resamples=100)
    curve = froc(cases)
    wanted = {"partial_area": partial_area(curve), "mean_sensitivity": mean_sensitivity(curve),
              **{f"sensitivity_at_{rate:g}": value for rate, value in zip(RATES, sensitivity_at(curve), strict=True)}}
    assert {name: entry["value"] for name, entry in table["headline"].items()} == pytest.approx(wanted, abs=1e-12)
    assert all(entry["low"] < entry["value"] < entry["high"] and entry["n"] == 60
               for entry in table["headline"].values())
    assert (table["n_cases"], table["n_subjects"]) == (60, 30)
    assert table["false_per_case"] == curve.false_rate[-1]
    assert sum(entry["n_findings"] for entry in table["strata"].values()) == table["n_findings"]
    assert list(table["strata"]) == list(DIAMETERS_MM)[:-1]  # none below 3 mm, none unknown
    for name, entry in table["strata"].items():
        assert entry["partial_area"]["value"] == pytest.approx(partial_area(froc(cases, DIAMETERS_MM[name])), abs=1e-12)
    drawn = table["curve"]
    assert set(RATES) <= set(drawn["false_rate"])
    assert drawn["sensitivity"] == pytest.approx(sensitivity_at(curve, GRID), abs=1e-12)
    assert all(low <= value <= high for low, value, high in
               zip(drawn["low"], drawn["sensitivity"], drawn["high"], strict=True))
    assert len(json.dumps(table, allow_nan=False)) < 30_000


def test_the_table_does_not_depend_on_the_order_of_the_cases() -> None:
    cases, subjects = of_search_model(np.random.default_rng(5), 20), np.array([f"s{n // 2:02d}" for n in range(20)])
    order = np.random.default_rng(6).permutation(20)
    tables = [summarise_detection([cases[n] for n in chosen], subjects[chosen], seed=1, resamples=50)
              for chosen in (np.arange(20), order)]
    assert tables[0] == tables[1]
    assert tables[0] != summarise_detection(cases, subjects, seed=2, resamples=50)


def test_resamples_without_a_finding_are_left_out() -> None:
    """One case of 12 has the one finding: whatever resample has it finds it, and the others say nothing of it."""
    empty = Marks(np.array([]), np.array([]), np.array([0.2]))
    table = summarise_detection([Marks(np.array([0.9]), np.array([-1.0]), np.array([])), *[empty] * 11],
                                [str(n) for n in range(12)], seed=0, resamples=200)
    one = {"value": 1.0, "low": 1.0, "high": 1.0, "n": 12, "undefined": ""}
    assert table["headline"]["partial_area"] == table["strata"]["below 3 mm or unknown"]["partial_area"] == one
    none = {"value": None, "low": None, "high": None, "n": 12, "undefined": "no finding of this diameter"}
    assert table["strata"]["3 to 5 mm"] == {"n_findings": 0, **dict.fromkeys(table["headline"], none)}
    nothing = summarise_detection([empty] * 12, [str(n) for n in range(12)], seed=0, resamples=20)
    assert nothing["headline"]["mean_sensitivity"]["undefined"] == "no finding in any case"
    assert nothing["curve"]["low"][0] is None and nothing["false_per_case"] == 1
    json.dumps(nothing, allow_nan=False)


def test_too_few_subjects_give_no_interval() -> None:
    table = summarise_detection(of_search_model(np.random.default_rng(7), 8), list("aabbccdd"), seed=0, resamples=20)
    entry = table["headline"]["partial_area"]
    assert entry["value"] > 0 and entry["low"] is None and entry["undefined"] == "no interval: fewer than 5 subjects"
    assert table["curve"]["low"] == [None] * len(GRID)

"""Intervals over subjects and the tables that evaluate writes."""

from __future__ import annotations

import json
import time
from math import isnan

import numpy as np
import pytest

from megavox.measures.bootstrap import bootstrap_table, subject_bootstrap
from megavox.measures.overlap import overlap
from megavox.measures.ranking import auroc, average_precision
from megavox.measures.summary import Measured, summarise_classification, summarise_segmentation

# ---------------------------------------------------------------- bootstrap


def test_interval_of_a_mean_has_its_textbook_width():
    values = np.random.default_rng(0).normal(size=400)
    interval = subject_bootstrap(lambda rows: values[rows].mean(), np.arange(400), 2000, seed=1)
    expected = 1.96 * values.std() / np.sqrt(400)
    assert (interval.high - interval.low) / 2 == pytest.approx(expected, rel=0.08)
    assert (interval.n_subjects, interval.n_defined, interval.undefined) == (400, 2000, "")


def test_repeats_of_a_subject_add_no_certainty():
    values = np.random.default_rng(1).normal(size=50)
    subjects = [f"s{i}" for i in range(50)]
    once = subject_bootstrap(lambda rows: values[rows].mean(), subjects, seed=3)
    tripled = np.tile(values, 3)
    thrice = subject_bootstrap(lambda rows: tripled[rows].mean(), subjects * 3, seed=3)
    assert (thrice.low, thrice.high) == pytest.approx((once.low, once.high))


def test_interval_depends_on_the_seed_and_not_on_row_order():
    values = np.random.default_rng(2).normal(size=60)
    subjects = np.array([f"s{i % 20:02}" for i in range(60)])
    order = np.random.default_rng(3).permutation(60)
    first = subject_bootstrap(lambda rows: values[rows].mean(), subjects, seed=5)
    moved = subject_bootstrap(lambda rows: values[order][rows].mean(), subjects[order], seed=5)
    assert (moved.low, moved.high) == pytest.approx((first.low, first.high), abs=1e-12)
    assert first == subject_bootstrap(lambda rows: values[rows].mean(), subjects, seed=5)
    assert first != subject_bootstrap(lambda rows: values[rows].mean(), subjects, seed=6)


def test_undefined_resamples_are_dropped_and_counted():
    # One subject of 12 carries the statistic: it is in a resample with chance 1 - (11/12)^12 = 0.648.
    rows_of_one = subject_bootstrap(lambda rows: 1.0 if 0 in rows else np.nan, np.arange(12), seed=0)
    assert (rows_of_one.low, rows_of_one.high) == (1, 1)
    assert rows_of_one.n_defined / 1000 == pytest.approx(1 - (11 / 12) ** 12, abs=0.05)
    never = subject_bootstrap(lambda rows: np.nan, np.arange(12), seed=0)
    assert isnan(never.low) and never.undefined == "undefined in most resamples" and never.n_defined == 0


def test_too_few_subjects_give_no_interval():
    table = bootstrap_table(lambda rows: {"a": 1.0, "b": 2.0}, ["x", "x", "y", "z", "w"] * 9, seed=0)
    assert set(table) == {"a", "b"}
    assert isnan(table["a"].low) and (table["a"].n_subjects, table["a"].undefined) == (4, "fewer than 5 subjects")


def test_bootstrap_of_fourteen_labels_takes_seconds():
    rng = np.random.default_rng(4)
    targets, scores = rng.random((700, 14)) < 0.2, rng.random((700, 14))
    names = [str(k) for k in range(14)]
    start = time.process_time()
    bootstrap_table(lambda rows: {name: auroc(scores[rows, k], targets[rows, k]) for k, name in enumerate(names)},
                    np.arange(700) // 2, seed=0)
    assert time.process_time() - start < 8  # about 1 s; slack for a busy machine


# ---------------------------------------------------------------- segmentation


def segmentation_rows(rng: np.random.Generator, n_subjects: int = 8, n_sessions: int = 2) -> list[dict]:
    rows = []
    for subject in range(n_subjects):
        for session in range(n_sessions):
            reference = np.zeros((12, 12, 12), np.uint8)
            reference[2:8, 2:8, 2:8], reference[8:11, 8:11, 8:11] = 1, 2
            prediction = np.roll(reference, rng.integers(0, 3), axis=2)
            if subject == 0:
                reference[reference == 2] = 0  # an empty reference
            if subject == 1:
                prediction[prediction == 2] = 0  # a missed object
            for row in overlap(prediction, reference, ["big", "small"], (1.0, 1.0, 1.0)):
                rows.append({"subject": f"s{subject}", "case": f"v{session}", **row.to_dict()})
    return rows


def test_segmentation_table_counts_what_is_undefined():
    rows = segmentation_rows(np.random.default_rng(0))
    table = summarise_segmentation(rows, ["big", "small"], seed=0, resamples=200)
    assert (table["n_cases"], table["n_subjects"]) == (16, 8)
    small = table["classes"]["small"]
    assert small["dice"]["mean"]["n"] == 14
    assert small["dice"]["undefined_reasons"] == {"empty reference, false positives": 2}
    assert small["hausdorff95_mm"]["n_undefined"] == 4
    assert small["hausdorff95_mm"]["undefined_reasons"] == {"empty reference, false positives": 2,
                                                            "empty prediction": 2}
    assert small["volume_prediction_mm3"]["n_undefined"] == 0
    dice = np.reshape([row["dice"] for row in rows], (16, 2))
    entry = table["all"]["dice"]
    assert entry["mean"]["value"] == pytest.approx(np.nanmean(dice, axis=1).mean(), abs=1e-12)
    assert entry["median"]["value"] == pytest.approx(np.median(np.nanmean(dice, axis=1)), abs=1e-12)
    assert table["classes"]["small"]["dice"]["median"]["value"] == pytest.approx(np.nanmedian(dice[:, 1]), abs=1e-12)
    assert entry["mean"]["low"] < entry["mean"]["value"] < entry["mean"]["high"]
    json.dumps(table, allow_nan=False)


def test_segmentation_table_reads_rows_of_a_csv_file():
    rows = segmentation_rows(np.random.default_rng(0))
    text = [{key: str(value) for key, value in row.items()} for row in rows]
    assert (summarise_segmentation(rows, ["big", "small"], 0, 50)
            == summarise_segmentation(text, ["big", "small"], 0, 50))


def test_segmentation_of_two_subjects_has_values_without_intervals():
    rows = segmentation_rows(np.random.default_rng(0), n_subjects=1)
    table = summarise_segmentation(rows, ["big", "small"], seed=0)
    big, small = (table["classes"][name]["dice"]["mean"] for name in ("big", "small"))
    assert big["value"] is not None and big["low"] is None
    assert big["undefined"] == "no interval: fewer than 5 subjects"
    assert small == {"value": None, "low": None, "high": None, "n": 0, "undefined": "no defined case"}
    assert summarise_segmentation([], ["big"], seed=0)["n_cases"] == 0


# ---------------------------------------------------------------- classification


def single_label_data(rng: np.random.Generator, k: int, n: int = 300) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    targets = rng.integers(0, k, n)
    shares = np.exp(rng.normal(size=(n, k)) + 1.5 * np.eye(k)[targets])
    return shares / shares.sum(axis=1, keepdims=True), targets, np.array([f"s{i // 2}" for i in range(n)])


@pytest.mark.parametrize("k", [2, 3])
def test_single_label_table(k):
    probabilities, targets, subjects = single_label_data(np.random.default_rng(k), k)
    names = ["a", "b", "c"][:k]
    table = summarise_classification(probabilities, targets, subjects, names, False, [0.5], seed=0, resamples=300)
    for name, entry in table["headline"].items():
        assert entry["n"] == 300 and entry["value"] is not None
        if name != "ece":
            assert entry["low"] < entry["value"] < entry["high"], name
    assert table["headline"]["ece"]["undefined"].startswith("no interval")
    assert np.sum(table["confusion"]) == 300
    per_class = [auroc(probabilities[:, i], targets == i) for i in range(k)]
    assert [table["classes"][name]["auroc"]["value"] for name in names] == pytest.approx(per_class)
    assert table["headline"]["auroc"]["value"] == pytest.approx(per_class[1] if k == 2 else np.mean(per_class))
    assert max(len(curve["sensitivity"]) for curve in table["roc"].values()) <= 200
    assert sum(point["n"] for point in table["calibration"]["top label"]) == 300
    json.dumps(table, allow_nan=False)


def test_multi_label_table_leaves_out_a_rare_label():
    rng = np.random.default_rng(5)
    targets = (rng.random((200, 3)) < [0.3, 0.5, 0.02]).astype(float)
    probabilities = np.clip(0.3 * targets + 0.7 * rng.random((200, 3)), 0, 1)
    targets[:20, 0] = np.nan
    table = summarise_classification(probabilities, targets, [str(i) for i in range(200)], ["a", "b", "rare"], True,
                                     [0.4, 0.5, 0.5], seed=0, resamples=200)
    assert list(table["undefined_classes"]) == ["rare"] and "rare" not in table["roc"]
    rare = table["classes"]["rare"]["auroc"]
    assert rare["value"] is None and "fewer than 10" in rare["undefined"]
    a, b = (table["classes"][name]["auroc"] for name in "ab")
    mean = table["headline"]["auroc"]
    assert mean["value"] == pytest.approx((a["value"] + b["value"]) / 2)
    # The rare label has both kinds in some resamples, and must not slip into their means.
    assert mean["low"] >= min(a["low"], b["low"]) and mean["high"] <= max(a["high"], b["high"])
    assert a["n"] == 180 and table["classes"]["a"]["n_positive"] == np.nansum(targets[:, 0])
    assert table["confusion"] is None and set(table["calibration"]) == {"a", "b", "rare"}
    json.dumps(table, allow_nan=False)


def test_table_decides_at_the_chosen_threshold():
    probabilities, targets, subjects = single_label_data(np.random.default_rng(7), 2)
    table = summarise_classification(probabilities, targets, subjects, ["no", "yes"], False, [0.8], seed=0,
                                     resamples=200)
    entry = table["headline"]["sensitivity"]
    assert entry["value"] == pytest.approx((probabilities[targets == 1, 1] >= 0.8).mean())
    assert entry["low"] < entry["value"] < entry["high"]
    assert table["confusion"][1][1] == ((probabilities[:, 1] >= 0.8) & (targets == 1)).sum()


def test_nothing_defined_says_so():
    table = summarise_classification(np.full((6, 2), 0.5), np.zeros(6, int), list("abcdef"), ["no", "yes"], False,
                                     seed=0, resamples=20)
    assert table["headline"]["auroc"]["undefined"] == "too few classes are defined"
    assert table["headline"]["ece"]["undefined"] == "fewer than 15 cases"
    assert table["headline"]["accuracy"]["value"] == 0
    assert table["undefined_classes"] == {"no": "no negative case", "yes": "no positive case"}


def test_shuffled_labels_score_at_chance():
    rng = np.random.default_rng(6)
    probabilities, targets, subjects = single_label_data(rng, 3)
    shuffled = rng.permutation(targets)
    table = summarise_classification(probabilities, shuffled, subjects, ["a", "b", "c"], False, seed=0, resamples=300)
    for name, chance in {"auroc": 0.5, "balanced_accuracy": 1 / 3}.items():
        entry = table["headline"][name]
        assert entry["low"] <= chance <= entry["high"], name
    findings = np.eye(3)[shuffled]
    table = summarise_classification(probabilities, findings, subjects, ["a", "b", "c"], True, seed=0, resamples=300)
    entry = table["headline"]["auroc"]
    assert entry["low"] <= 0.5 <= entry["high"]
    prevalence = np.mean([average_precision(np.zeros(300), findings[:, k]) for k in range(3)])
    assert table["headline"]["average_precision"]["value"] == pytest.approx(prevalence, abs=0.06)


def test_measured_is_plain():
    assert Measured(float("nan"), 0.0, 1.0, 3, "why").to_dict() == {
        "value": None, "low": 0.0, "high": 1.0, "n": 3, "undefined": "why"}

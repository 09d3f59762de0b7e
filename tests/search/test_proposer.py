"""What is proposed: the same for the same evidence, new, trainable, and better than chance."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from spaces import MIXED

from megavox.search.previews import preview
from megavox.search.proposer import Evidence, _levelled, first_points, propose
from megavox.search.space import Bound, Number, Setting, Space

PLANE = Space([Number("x", Bound(0), Bound(1)), Number("y", Bound(0), Bound(1))])
NONE = np.empty((0, 2))


def valley(points: np.ndarray) -> np.ndarray:
    return np.asarray(np.square(points - [0.7, 0.3]).sum(axis=1))


@pytest.fixture
def evidence() -> Evidence:
    points = first_points(PLANE, 12, seed=0)
    return Evidence(points, valley(points), np.zeros(12), NONE, NONE)


def proposed(evidence: Evidence, seed: int = 0, **more: object) -> np.ndarray:
    return propose(PLANE, evidence, np.random.default_rng(seed), **more)  # type: ignore[arg-type]


def test_it_goes_to_the_valley_and_says_so_again(evidence: Evidence) -> None:
    point = proposed(evidence)
    assert valley(point[None])[0] < evidence.values.min()
    assert np.array_equal(point, proposed(evidence))


def test_what_runs_is_not_proposed_again_and_spreads_the_others(evidence: Evidence) -> None:
    running = NONE
    for number in range(8):
        point = proposed(replace(evidence, running=running), number)
        running = np.vstack([running, point])
    apart = np.linalg.norm(running[:, None] - running[None], axis=2)[np.triu_indices(8, 1)]
    together = np.array([proposed(evidence, number) for number in range(8)])
    crowded = np.linalg.norm(together[:, None] - together[None], axis=2)[np.triu_indices(8, 1)]
    assert apart.min() > 1e-3 and np.median(apart) > 1.5 * np.median(crowded)


def test_a_preview_of_what_is_bad_keeps_away(evidence: Evidence) -> None:
    good = first_points(PLANE, 24, seed=3)
    near = np.linalg.norm(good - [0.2, 0.8], axis=1) > 0.45
    points, values = good[near], 0.1 * valley(good[near])
    noise = np.append(np.zeros(len(points)), 0.05**2)
    shown = Evidence(np.vstack([points, [0.2, 0.8]]), np.append(values, 0.95), noise, NONE, NONE)
    levelled, slope = _levelled(shown.values)
    assert shown.more_noise[-1] * slope[-1] ** 2 < 0.01 and levelled[-1] > 2
    assert all(np.linalg.norm(proposed(shown, seed) - [0.2, 0.8]) > 0.2 for seed in range(3))


def test_where_nothing_fits_it_repeats_rather_than_sends_what_does_not(evidence: Evidence) -> None:
    assert np.array_equal(proposed(evidence, fits=lambda _: False), evidence.points[evidence.values.argmin()])


def test_what_does_not_fit_is_never_proposed(evidence: Evidence) -> None:
    def fits(setting: Setting) -> bool:
        return bool(setting["x"] < 0.5)

    assert all(proposed(evidence, seed, fits=fits)[0] < 0.5 for seed in range(5))


def test_failures_teach_where_not_to_go(evidence: Evidence) -> None:
    failed = first_points(PLANE, 64, seed=1)
    failed = failed[failed[:, 0] > 0.55]
    known = evidence.points[:, 0] < 0.55
    taught = Evidence(evidence.points[known], evidence.values[known], np.zeros(known.sum()), failed, NONE)
    assert all(proposed(taught, seed)[0] < 0.6 for seed in range(3))
    assert proposed(replace(taught, failed=NONE))[0] > 0.6


def test_mixed_spaces_are_searched_on_their_levels() -> None:
    points = first_points(MIXED, 20, seed=3)
    settings = [MIXED.decode(point) for point in points]
    values = np.array([abs(np.log10(one["rate"]) + 4) + (one["optimiser"] == "sgd") for one in settings])
    found = [MIXED.decode(propose(MIXED, Evidence(points, values, np.zeros(20), points[:0], points[:0]),
                                  np.random.default_rng(seed))) for seed in range(3)]
    assert all(one["optimiser"] != "sgd" and 1e-6 < one["rate"] < 1e-2 for one in found)


def test_the_first_points_are_spread_and_do_not_depend_on_their_number() -> None:
    assert np.array_equal(first_points(MIXED, 64, 5)[:7], first_points(MIXED, 33, 5)[:7])
    assert np.array_equal(first_points(PLANE, 3, 5), first_points(PLANE, 64, 5)[:3])
    counts, _, _ = np.histogram2d(*first_points(PLANE, 64, 0).T, bins=4, range=[[0, 1], [0, 1]])
    assert (counts == 4).all()


def test_a_running_trial_is_foretold_by_how_others_went_on() -> None:
    shares = np.linspace(0.1, 1, 10)
    ended = [([(s, end + 0.3 * (1 - s) + 0.01 * k) for s in shares], end)
             for k, end in enumerate((0.2, 0.25, 0.3, 0.35, 0.4))]
    found = preview([(0.1, 0.9), (0.5, 0.6)], ended)
    assert found is not None
    assert found.value == pytest.approx(0.6 - 0.15 - 0.02, abs=0.01)
    assert found.variance == pytest.approx(2e-4, rel=0.1)
    assert preview([(0.1, 0.9)], ended) is None, "too early"
    assert preview([(0.5, 0.6)], ended[:4]) is None, "too few to learn from"
    assert preview([], ended) is None

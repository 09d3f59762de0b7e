"""Settings and points of the cube: there and back, within bounds, conditions kept."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import FloatDistribution
from spaces import MIXED

from megavox.search.space import MIDDLE, Bound, Choice, Number, Space

cubes = st.lists(st.floats(0, 1, exclude_max=True), min_size=MIXED.size, max_size=MIXED.size).map(np.array)


@given(cubes)
def test_a_setting_comes_back_and_keeps_its_bounds(drawn: np.ndarray) -> None:
    point = MIXED.uniform(drawn[None])[0]
    setting = MIXED.decode(point)
    again = MIXED.encode(setting)
    assert MIXED.decode(again) == pytest.approx(setting)
    shift = MIXED.parameters[7]
    assert np.delete(again, 7) == pytest.approx(np.delete(point, 7))
    assert shift.place(setting["shift"], setting) == again[7]
    assert 0 <= setting["shift"] <= setting["batches.patch"] / 2 and isinstance(setting["shift"], int)
    assert setting["filters"] in range(4, 33, 4) and 1e-8 <= setting["rate"] <= 1e-2
    assert ("momentum" in setting) == (setting["optimiser"] == "sgd")
    assert ("axis" in setting) == (setting["rotate"] and setting["optimiser"] != "adamw")


@given(cubes)
def test_snapping_keeps_what_is_decoded(drawn: np.ndarray) -> None:
    snapped = MIXED.snapped(drawn[None])
    assert MIXED.decode(snapped[0]) == pytest.approx(MIXED.decode(drawn))
    assert MIXED.snapped(snapped.copy()) == pytest.approx(snapped)


@given(st.integers(-20, 20), st.integers(1, 12), st.integers(1, 30), st.integers(0, 4))
def test_every_level_of_a_grid_can_be_proposed(low: int, step: int, count: int, digits: int) -> None:
    unit = 10.0**-digits
    ends = Bound(round(low * unit, 8)), Bound(round((low + step * count) * unit, 8))
    grid = Number("x", *ends, step=round(step * unit, 8))
    kept = FloatDistribution(*grid.bounds({}), step=grid.step)
    assert (kept.low, kept.high) == (grid.low.number, grid.high.number)
    for number in range(count + 1):
        value = grid.value(number / count, {})
        assert value == round((low + step * number) * unit, 8) and grid.holds(value, {})
        assert kept._contains(kept.to_internal_repr(value)), "Optuna would draw another one, and not say so"


def test_what_a_setting_does_not_have_makes_no_difference() -> None:
    points = MIXED.uniform(np.random.default_rng(0).random((200, MIXED.size)))
    for point in points:
        setting = MIXED.decode(point)
        for column, one in enumerate(MIXED.parameters):
            assert one.name in setting or point[column] == MIDDLE


def test_levels_are_drawn_equally_often() -> None:
    points = MIXED.uniform((np.arange(6400)[:, None] + 0.5) / 6400 * np.ones(MIXED.size))
    for column, levels in enumerate(MIXED.levels):
        if levels and MIXED.parameters[column].name != "batch" and not MIXED.parameters[column].when:
            _, counts = np.unique(points[:, column], return_counts=True)
            assert len(counts) == levels and counts.max() - counts.min() <= 1
    assert MIXED.levels.tolist() == [2, 3, 3, 8, 64, 0, 0, 0, 2, 2]


def test_choices_without_an_order_are_equally_far_apart() -> None:
    space = Space([Choice("optimiser", ("adamw", "sgd", "lamb")), Number("rate", Bound(0.0), Bound(1.0))])
    features = space.features(np.array([[0.0, 0.3], [0.5, 0.3], [1.0, 0.3]]))
    apart = np.linalg.norm(features[:, None] - features[None], axis=2)
    assert features.shape == (3, 4) and apart[np.triu_indices(3, 1)] == pytest.approx(np.ones(3))

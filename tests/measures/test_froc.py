"""Detection is measured as LUNA16 does, and finds what is known of a model of search in closed form."""

from __future__ import annotations

import numpy as np
import pytest
from froc_by_loops import Case, area, at, curve

from megavox.measures.froc import RATES, Marks, border_at, froc, mean_sensitivity, partial_area, scored, sensitivity_at

SETS, STEP_MM = 1000, 2.5


def drawn(random: np.random.Generator) -> Case:
    """A case on a coarse grid, so that borders, equal scores, double hits and shared candidates are common."""
    def places(count: int) -> list[tuple[float, float, float]]:
        return [tuple(STEP_MM * place) for place in random.integers(0, 5, (count, 3)).astype(float)]  # type: ignore[misc]

    scores = random.integers(0, 8, random.integers(0, 9)) / 8
    diameters = random.choice([-1.0, 5.0, 7.5, 10.0], random.integers(0, 4))
    return Case(list(zip(scores.tolist(), places(len(scores)), strict=True)),
                list(zip(places(len(diameters)), diameters.tolist(), (random.random(len(diameters)) < 0.7).tolist(),
                         strict=True)))


def marks(case: Case, most: int | None) -> Marks:
    centres, findings = (np.array(rows, dtype=float).reshape(-1, 3) for rows in (
        [place for _, place in case.candidates], [place for place, _, _ in case.findings]))
    return scored(centres, np.array([score for score, _ in case.candidates]), findings,
                  np.array([diameter for _, diameter, _ in case.findings], dtype=float),
                  np.array([counts for _, _, counts in case.findings], dtype=bool), most)


def test_it_is_what_the_published_rules_give() -> None:
    random, undefined = np.random.default_rng(0), 0
    for _ in range(SETS):
        cases, most = [drawn(random) for _ in range(random.integers(1, 6))], random.choice([None, 3])
        found = froc([marks(case, most) for case in cases])
        if not any(counts for case in cases for _, _, counts in case.findings):
            assert np.isnan(partial_area(found)) and np.isnan(sensitivity_at(found)).all()
            undefined += 1
            continue
        wanted = curve(cases, most)
        assert partial_area(found) == pytest.approx(area(wanted, 5.0), abs=1e-12)
        assert sensitivity_at(found) == pytest.approx([at(wanted, rate) for rate in RATES], abs=1e-12)
    assert 0 < undefined < SETS / 4


def test_the_worked_example() -> None:
    one = Marks(np.array([0.95, 0.8, np.nan]), np.full(3, 5.0), np.array([0.9, 0.6, 0.5]))
    other = Marks(np.array([0.7, 0.4]), np.full(2, 5.0), np.array([0.3, 0.2, 0.15]))
    assert partial_area(froc([one, other])) == pytest.approx(0.7, abs=1e-12)


def test_it_finds_the_truth_of_the_search_model() -> None:
    """Lesions are found with chance 0.9 and scores N(2, 1), beside a Poisson number of N(0, 1), 20 a case."""
    random, areas, means = np.random.default_rng(1), [], []
    for _ in range(50):
        cases = [Marks(np.where(random.random(n) < 0.9, random.normal(2, 1, n), np.nan), np.full(n, 5.0),
                       random.normal(0, 1, random.poisson(20)))
                 for n in random.multinomial(600, np.full(400, 1 / 400))]
        found = froc(cases)
        areas.append(partial_area(found))
        means.append(mean_sensitivity(found))
    for values, truth in ((areas, 0.67300), (means, 0.57455)):
        assert abs(np.mean(values) - truth) < 3 * np.std(values, ddof=1) / np.sqrt(len(values))


def test_one_lesion_and_one_perfect_detection_are_perfect() -> None:
    found = froc([Marks(np.array([0.9]), np.array([5.0]), np.array([]))])
    assert partial_area(found) == mean_sensitivity(found) == 1.0


def test_diameters_share_the_false_positives() -> None:
    case = Marks(np.array([0.9, np.nan]), np.array([4.0, 12.0]), np.array([0.5]))
    small, large = (froc([case], diameters) for diameters in ((0.0, 10.0), (10.0, np.inf)))
    assert small.sensitivity[-1] == 1.0 and large.sensitivity[-1] == 0.0
    assert small.false_rate[-1] == large.false_rate[-1] == 1.0


def test_an_unknown_diameter_counts_and_stays_unknown() -> None:
    case = scored(np.array([[0.0, 0.0, 4.9]]), np.array([0.7]), np.zeros((1, 3)), np.array([-1.0]), np.array([True]))
    assert froc([case]).sensitivity[-1] == 1.0 and (case.found, case.diameters_mm) == (0.7, -1.0)
    assert np.isnan(froc([case], (3.0, np.inf)).sensitivity).all()


def test_above_the_border_lie_at_most_so_many_false_positives() -> None:
    random = np.random.default_rng(2)
    for rate in (0.125, 1.0, 2.5):
        for scores in (random.normal(0, 1, 40), random.integers(0, 8, 40).astype(float)):
            cases = [Marks(scores[n:n + 1], np.array([5.0]), scores[8 + 4 * n:12 + 4 * n]) for n in range(8)]
            border = border_at(cases, rate)
            assert np.mean([(case.false > border).sum() for case in cases]) <= rate
            assert np.mean([(case.false >= border).sum() for case in cases]) > rate  # and no lower border will do
            if len(set(scores)) == 40:
                assert np.mean(scores[:8] > border) == sensitivity_at(froc(cases), [rate])[0]
    assert border_at(cases, 4.0) == -np.inf


def test_marks_are_read_from_plain_lists() -> None:
    case = Marks.of({"found": [0.5, None], "diameters_mm": [4, -1], "false": []})
    assert np.array_equal(case.found, [0.5, np.nan], equal_nan=True)
    assert case.diameters_mm.tolist() == [4.0, -1.0] and case.false.shape == (0,)

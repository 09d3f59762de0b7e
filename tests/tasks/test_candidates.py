"""Candidates lie where balls were drawn, in millimetres of the patient, one for each."""

from __future__ import annotations

import numpy as np
import pytest

from megavox.images.geometry import Geometry
from megavox.tasks.candidates import LEAST_MM3, candidates

GRID = Geometry((60, 50, 30), (0.8, 0.8, 1.5), (-20.0, 10.0, 100.0), (-1.0, 0, 0, 0, 0, 1.0, 0, 1.0, 0))


def ball(centre_xyz: tuple[float, float, float], radius_mm: float, score: float) -> np.ndarray:
    z, y, x = np.indices(GRID.shape)
    index = np.stack([x, y, z], axis=-1) - np.array(centre_xyz)
    distance = np.linalg.norm(index * GRID.spacing, axis=-1)
    return np.where(distance <= radius_mm, score * (1 - 0.3 * distance / radius_mm), 0.0)


def world(centre_xyz: tuple[float, float, float]) -> np.ndarray:
    matrix = GRID.affine()
    return np.asarray(matrix[:3, :3] @ centre_xyz + matrix[:3, 3])


def test_balls_are_found_where_they_are_and_as_large() -> None:
    balls = {(15.0, 12.0, 8.0): (6.0, 0.9), (40.0, 35.0, 20.0): (4.0, 0.5), (45.0, 10.0, 22.0): (3.0, 0.05)}
    found = candidates(np.maximum.reduce([ball(at, *about) for at, about in balls.items()]), GRID)
    assert found.scores == pytest.approx([0.9, 0.5, 0.05])
    for number, (at, (radius, _)) in enumerate(balls.items()):
        assert found.centres_mm[number] == pytest.approx(world(at), abs=0.1)
        assert found.diameters_mm[number] == pytest.approx(2 * radius, rel=0.1)


def test_a_faint_finding_that_touches_a_sure_one_is_found_too() -> None:
    found = candidates(np.maximum(ball((20, 20, 15), 5.0, 0.9), ball((32, 20, 15), 5.0, 0.2)), GRID)
    assert len(found.scores) == 2
    assert np.linalg.norm(found.centres_mm - [world((20, 20, 15)), world((32, 20, 15))], axis=1).max() < 1.0


def test_one_finding_is_one_candidate() -> None:
    random = np.random.default_rng(0)
    noisy = ball((25, 20, 15), 8.0, 0.9) * random.uniform(0.3, 1.0, GRID.shape)
    found = candidates(noisy, GRID)
    assert len(found.scores) == 1 and found.scores[0] == noisy.max()


def test_specks_and_what_is_too_faint_are_none() -> None:
    probability = np.zeros(GRID.shape)
    assert len(candidates(probability, GRID).scores) == 0
    probability.reshape(-1)[:int(LEAST_MM3 / GRID.voxel_mm3)] = 0.9
    probability[20:25, 20:25, 20:25] = 0.009
    assert candidates(probability, GRID).centres_mm.shape == (0, 3)


@pytest.mark.parametrize("spacing_mm", [0.7, 1.0, 2.5])
def test_the_smallest_nodules_that_count_are_candidates_on_any_grid(spacing_mm: float) -> None:
    grid = Geometry((12, 12, 12), (spacing_mm,) * 3, (0.0, 0.0, 0.0), (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0))
    z, y, x = np.indices(grid.shape)
    probability = np.where((x - 6) ** 2 + (y - 6) ** 2 + (z - 6) ** 2 <= (1.5 / spacing_mm) ** 2, 0.9, 0.0)
    assert candidates(probability, grid).centres_mm == pytest.approx(np.full((1, 3), 6 * spacing_mm), abs=1e-9)


def test_there_are_no_more_than_asked_for() -> None:
    many = np.maximum.reduce([ball((8 + 14 * i, 8 + 16 * j, 6 + 16 * k), 3.0, 0.2 + 0.1 * i + 0.05 * j + 0.02 * k)
                              for i in range(4) for j in range(3) for k in range(2)])
    assert len(candidates(many, GRID).scores) == 24
    few = candidates(many, GRID, most=5)
    assert (few.scores == np.sort(candidates(many, GRID).scores)[::-1][:5]).all()

"""The next setting to try, from all that is known of those before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

import numpy as np
from scipy.special import log_ndtr, logsumexp, ndtri
from scipy.stats import qmc

from megavox.core.randomness import generator
from megavox.search.gaussian_process import GaussianProcess, Prior
from megavox.search.improvement import NoisyImprovement
from megavox.search.space import Setting, Space

PRIORS = (Prior(scale=0.7), Prior(scale=0.35), Prior(scale=1.4))  # the ensemble
DRAWS = 32  # of the values of trials
SPREAD, NEAR, CLIMBS, AROUND, STARTS = 1024, 60, 7, 25, 8  # points that are looked at
FEW_LEVELS = 3  # are jumped between; others are climbed along
SAME = 1e-3  # side of the cube within which two points are one

Fits = Callable[[Setting], bool]
Score = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Evidence:
    """What is known of trials; values are to be small.

    Attributes:
        points: `(N, P)`, of those that ended, and of those that run and whose preview tells their value.
        values: `(N,)`.
        more_noise: `(N,)`, variance of each value beyond the noise of all: 0 where it has ended.
        failed: `(K, P)`, whose setting cannot be trained.
        running: `(M, P)`, of which nothing is known yet.
    """

    points: np.ndarray
    values: np.ndarray
    more_noise: np.ndarray
    failed: np.ndarray
    running: np.ndarray


def first_points(space: Space, count: int, seed: int) -> np.ndarray:
    """`(count, P)`, spread over the space evenly (a scrambled Sobol sequence); of more of them these are the first."""
    size = 1 << max(0, count - 1).bit_length()
    return space.uniform(_sobol(space.size, size, generator(seed, "first points")))[:count]


def propose(space: Space, evidence: Evidence, random: np.random.Generator, fits: Fits | None = None) -> np.ndarray:
    """The point `(P,)` that promises most.

    Args:
        space: of settings.
        evidence: with at least two values.
        random: what it draws from.
        fits: whether a setting can be trained at all, as far as that can be told beforehand.
    """
    promise = _promise(space, evidence, random)
    best = evidence.points[np.argsort(evidence.values)[:6]]
    points = np.vstack([space.uniform(_sobol(space.size, SPREAD, random)),
                        _around(space, best, NEAR, 0.15, random), _around(space, best, NEAR // 2, 0.03, random)])
    points = _climbed(space, points, promise, lambda point: fits is None or fits(space.decode(point)), random)
    new = [point for point in points if not len(evidence.running)
           or np.abs(evidence.running - point).max(axis=1).min() > SAME]
    return np.asarray([*new, *points, best[0]][0])  # rather the same again than one that does not fit


def _promise(space: Space, evidence: Evidence, random: np.random.Generator) -> Score:
    """The logarithm of improvement, averaged over the ensemble, times the chance that the setting can be trained."""
    points, running = space.features(evidence.points), space.features(evidence.running)
    values, slope = _levelled(evidence.values)
    drawn = _normal(DRAWS, len(points) + len(running), random)
    parts = [NoisyImprovement(GaussianProcess(points, values, prior, evidence.more_noise * slope**2), running, drawn)
             for prior in PRIORS]
    chance = _chance(space, evidence) if len(evidence.failed) else None

    def promise(points: np.ndarray) -> np.ndarray:
        features = space.features(points)
        found = logsumexp([part(features) for part in parts], axis=0)
        return np.asarray(found if chance is None else found + chance(features))

    return promise


def _levelled(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values whose differences count less the worse they are, since only the order of bad settings is of use; and
    how much less, for their noise: the derivative `(N,)` at each."""
    least = float(values.min())
    unit = max(float(np.median(values)) - least, 1e-9)
    scaled = (values - least) / unit
    beyond = np.maximum(scaled, 1)
    return np.minimum(scaled, 1) + np.log(beyond), 1 / (unit * beyond)


def _chance(space: Space, evidence: Evidence) -> Score:
    """Logarithm of the chance that a setting can be trained: a Gaussian process of 1 and -1 (least-squares
    classification, Rasmussen and Williams 2006, section 6.5)."""
    points = space.features(np.vstack([evidence.points, evidence.failed]))
    model = GaussianProcess(points, np.repeat([1.0, -1.0], [len(evidence.points), len(evidence.failed)]),
                            Prior(noise=0.05))
    border, softness = -model.mean / model.deviation, 0.25 / model.deviation

    def chance(features: np.ndarray) -> np.ndarray:
        mean, variance = model.at(features)
        return np.asarray(log_ndtr((mean - border) / np.sqrt(variance + softness**2)))

    return chance


def _climbed(space: Space, points: np.ndarray, score: Score, fits: Callable[[np.ndarray], bool],
             random: np.random.Generator) -> np.ndarray:
    """The best of points that fit, each moved to better ones around it for as long as there are some; best first."""
    scores = score(points)
    order = np.argsort(-scores)
    first = list(islice((number for number in order if fits(points[number])), STARTS))
    if not first:
        return points[:0]
    points, scores, reach = points[first], scores[first], 0.2
    for _ in range(CLIMBS):
        others = _around(space, points, AROUND, reach, random).reshape(len(points), AROUND, -1)
        theirs = score(others.reshape(-1, space.size)).reshape(len(points), AROUND)
        for row, candidates in enumerate(np.argsort(-theirs, axis=1)):
            better = (one for one in candidates if theirs[row, one] > scores[row] and fits(others[row, one]))
            chosen = next(better, None)
            if chosen is not None:
                points[row], scores[row] = others[row, chosen], theirs[row, chosen]
        reach *= 0.62
    return points[np.argsort(-scores)]


def _around(space: Space, points: np.ndarray, count: int, reach: float, random: np.random.Generator) -> np.ndarray:
    """`count` points around each, one after the other; one or two coordinates differ, by about `reach`."""
    points = np.repeat(points, count, axis=0)
    moved = random.random(points.shape) < 1.5 / space.size
    moved[np.arange(len(points)), random.integers(space.size, size=len(points))] = True
    levels = space.levels
    steps = np.where(levels > 0, np.maximum(reach, 1 / np.maximum(levels - 1, 1)), reach)
    found = points + moved * steps * random.standard_normal(points.shape)
    jumped = moved & (levels > 0) & (levels <= FEW_LEVELS)
    return space.snapped(np.where(jumped, space.uniform(random.random(points.shape)), found))


def _normal(count: int, size: int, random: np.random.Generator) -> np.ndarray:
    """`(count, size)` from a standard normal, spread evenly."""
    return np.asarray(ndtri(np.clip(_sobol(size, count, random), 1e-6, 1 - 1e-6)))


def _sobol(size: int, count: int, random: np.random.Generator) -> np.ndarray:
    """`(count, size)` from the unit cube, spread evenly; `count` is a power of 2."""
    return np.asarray(qmc.Sobol(size, rng=np.random.default_rng(int(random.integers(2**63)))).random(count))

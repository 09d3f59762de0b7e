"""A Gaussian process: what finished trials say of settings that were not tried.

Matern 5/2 with a length scale for each coordinate, and noise that is learnt too (Rasmussen and Williams 2006,
chapters 2, 4 and 5). Parameters are the most probable under log-normal priors. The prior of the length scales does not
grow with the number of coordinates: of a dozen hyper-parameters a few matter much, and three dozen trials have to show
which.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, log

import numpy as np
from scipy.linalg import LinAlgError, cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize

JITTER = 1e-6
LONGEST, SHORTEST = 50.0, 0.05  # length scales, of a cube with sides of 1
STEPS = 60  # of the optimiser


@dataclass(frozen=True)
class Prior:
    """What is expected before any trial; medians and deviations of logarithms.

    Attributes:
        scale, scale_spread: of length scales, in sides of the cube.
        noise, noise_spread: of the variance of noise, where the values' own is 1.
    """

    scale: float = 0.7
    scale_spread: float = 0.7
    noise: float = 0.02
    noise_spread: float = 1.2


class GaussianProcess:
    """Fitted to values; they are brought to mean 0 and deviation 1 inside.

    Args:
        points: `(N, F)`.
        values: `(N,)`.
        prior: of its parameters.
        more_noise: `(N,)`, variance of each value beyond that of all, in the values' unit squared.

    Attributes:
        points: as given.
        targets: `(N,)`, the values inside.
        mean, deviation: with which a value became one inside.
        parameters: `(F + 2,)`, logarithms of length scales, variance and noise, the most probable.
    """

    def __init__(self, points: np.ndarray, values: np.ndarray, prior: Prior = Prior(),
                 more_noise: np.ndarray | float = 0.0) -> None:
        self.points, self.mean, self.deviation = points, float(values.mean()), max(float(values.std()), 1e-9)
        self.targets = (values - self.mean) / self.deviation
        self._more_noise = np.broadcast_to(more_noise, len(values)) / self.deviation**2
        self.parameters = self._fitted(prior)
        self.scales, self.variance = np.exp(self.parameters[:-2]), exp(self.parameters[-2])
        self.noise = exp(self.parameters[-1])
        self._factor = cholesky(self.covariance(points, points) + np.diag(self._more_noise + self.noise + JITTER),
                                lower=True)
        self._weights = cho_solve((self._factor, True), self.targets)

    def covariance(self, some: np.ndarray, others: np.ndarray) -> np.ndarray:
        """`(N, M)`, of the values at two sets of points, without noise."""
        return self.variance * matern(_squares(some / self.scales, others / self.scales))

    def at(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and variance `(M,)` of the values at points, inside, without noise."""
        across = self.covariance(points, self.points)
        solved = solve_triangular(self._factor, across.T, lower=True)
        return across @ self._weights, np.maximum(self.variance - np.square(solved).sum(axis=0), 1e-10)

    def together(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean `(M,)` and covariance `(M, M)` of the values at points, inside, without noise."""
        across = self.covariance(points, self.points)
        solved = solve_triangular(self._factor, across.T, lower=True)
        return across @ self._weights, self.covariance(points, points) - solved.T @ solved

    # ------------------------------------------------------------------ fitting

    def _fitted(self, prior: Prior) -> np.ndarray:
        count = self.points.shape[1]
        squares = np.square(self.points.T[:, :, None] - self.points.T[:, None, :])  # (F, N, N)
        centre = np.array([log(prior.scale)] * count + [0.0, log(prior.noise)])
        spread = np.array([prior.scale_spread] * count + [1.0, prior.noise_spread])
        bounds = [(log(SHORTEST), log(LONGEST))] * count + [(-3.0, 3.0), (-12.0, 0.5)]
        return np.asarray(minimize(self._unlikeliness, centre, (squares, centre, spread), jac=True, method="L-BFGS-B",
                                   bounds=bounds, options={"maxiter": STEPS}).x)

    def _unlikeliness(self, parameters: np.ndarray, squares: np.ndarray, centre: np.ndarray,
                      spread: np.ndarray) -> tuple[float, np.ndarray]:
        """Negative logarithm of likelihood times prior, but for a constant, and its gradient."""
        inverse, variance, noise = np.exp(-2 * parameters[:-2]), exp(parameters[-2]), exp(parameters[-1])
        distance = np.tensordot(inverse, squares, 1)
        shape = matern(distance)
        try:
            factor = cholesky(variance * shape + np.diag(self._more_noise + noise + JITTER), lower=True,
                              check_finite=False)
        except LinAlgError:
            return 1e10, np.zeros_like(parameters)
        weights = cho_solve((factor, True), self.targets, check_finite=False)
        away = (parameters - centre) / spread
        value = 0.5 * self.targets @ weights + np.log(np.diag(factor)).sum() + 0.5 * away @ away
        inner = 0.5 * (cho_solve((factor, True), np.eye(len(weights)), check_finite=False) - np.outer(weights, weights))
        slope = inner * variance * _matern_slope(distance)
        gradient = np.concatenate([
            -2 * inverse * np.tensordot(squares, slope, axes=([1, 2], [0, 1])),
            [(inner * shape).sum() * variance, np.trace(inner) * noise]])
        return float(value), gradient + away / spread


def matern(squares: np.ndarray) -> np.ndarray:
    """Matern 5/2 of squared distances (Rasmussen and Williams 2006, equation 4.17)."""
    distance = np.sqrt(5 * squares)
    return (1 + distance + distance * distance / 3) * np.exp(-distance)


def _matern_slope(squares: np.ndarray) -> np.ndarray:
    """Derivative of `matern` by the squared distance."""
    distance = np.sqrt(5 * squares)
    return -5 / 6 * (1 + distance) * np.exp(-distance)


def _squares(some: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Squared distances `(N, M)`."""
    found = np.square(some).sum(axis=1)[:, None] + np.square(others).sum(axis=1) - 2 * some @ others.T
    return np.maximum(found, 0.0)

"""How much a further trial can be expected to improve on the best, while others run and none is measured exactly.

Expected improvement over the best of what the trials, those that run included, are without noise (Letham 2019,
arXiv:1706.07094). Nobody knows these values: they are drawn from their joint posterior, and the improvement is averaged
over the draws. A setting beside one that runs promises little, since it is likely to be known soon.
"""

from __future__ import annotations

from math import log, pi, sqrt

import numpy as np
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.special import erfcx, logsumexp, ndtr

from megavox.search.gaussian_process import GaussianProcess

NEARLY_EXACT = 1e-5  # variance of values that are taken for known, so that the matrix can be solved


class NoisyImprovement:
    """Of smaller values over the smallest.

    Args:
        model: fitted to the trials that have ended.
        running: `(M, F)`, points of those that have not.
        drawn: `(S, N + M)`, from a standard normal: the draws of their values.
    """

    def __init__(self, model: GaussianProcess, running: np.ndarray, drawn: np.ndarray) -> None:
        self._model, self._points = model, np.vstack([model.points, running])
        mean, covariance = model.together(self._points)
        spread = cholesky(covariance + NEARLY_EXACT * np.eye(len(mean)), lower=True)
        values = mean[:, None] + spread @ drawn.T  # (N + M, S)
        own = model.covariance(self._points, self._points)
        self._factor = cholesky(own + NEARLY_EXACT * np.eye(len(mean)), lower=True)
        self._weights = cho_solve((self._factor, True), values)
        self._best = values.min(axis=0)

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Logarithm `(K,)` of the improvement at points `(K, F)`, in the model's inner unit."""
        across = self._model.covariance(points, self._points)
        solved = solve_triangular(self._factor, across.T, lower=True, check_finite=False)
        deviation = np.sqrt(np.maximum(self._model.variance - np.square(solved).sum(axis=0), 1e-10))
        gaps = (self._best - across @ self._weights) / deviation[:, None]
        return np.asarray(logsumexp(log_improvement(gaps), axis=1) - log(gaps.shape[1]) + np.log(deviation))


def log_improvement(gaps: np.ndarray) -> np.ndarray:
    """Logarithm of phi(z) + z Phi(z), the expected improvement of a standard normal, also far below 0 (Ament 2023,
    arXiv:2310.20708, equation 14)."""
    found = np.empty_like(gaps)
    near = gaps > -1
    z = gaps[near]
    found[near] = np.log(np.exp(-z * z / 2) / sqrt(2 * pi) + z * ndtr(z))
    z = gaps[~near]
    ratio = sqrt(pi / 2) * erfcx(-z / sqrt(2)) * np.abs(z)  # |z| Phi(z) / phi(z), towards 1 from below
    far = z < -1e4  # where 1 - ratio has no digits left; it is 1 / z^2 there
    rest = np.where(far, 1 / np.square(z), np.maximum(1 - ratio, 1e-300))
    found[~near] = -z * z / 2 - log(2 * pi) / 2 + np.log(rest)
    return found

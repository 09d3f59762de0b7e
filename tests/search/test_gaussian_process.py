"""The Gaussian process against scikit-learn's, and against differences."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
from scipy.optimize import approx_fprime
from scipy.stats import norm
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern

from megavox.search.gaussian_process import JITTER, GaussianProcess, Prior
from megavox.search.improvement import NoisyImprovement, log_improvement


@pytest.fixture(scope="module")
def fitted() -> GaussianProcess:
    random = np.random.default_rng(0)
    points = random.random((40, 4))
    values = 3 + np.sin(5 * points[:, 0]) + points[:, 1] + 0.1 * random.standard_normal(40)
    return GaussianProcess(points, values, more_noise=np.linspace(0, 0.05, 40))


def test_its_posterior_is_scikit_learns(fitted: GaussianProcess) -> None:
    kernel = ConstantKernel(fitted.variance, "fixed") * Matern(fitted.scales, "fixed", nu=2.5)
    more = np.linspace(0, 0.05, 40) / fitted.deviation**2
    other = GaussianProcessRegressor(kernel, alpha=fitted.noise + JITTER + more, optimizer=None)
    other.fit(fitted.points, fitted.targets)
    points = np.random.default_rng(1).random((30, 4))
    mean, covariance = other.predict(points, return_cov=True)
    assert fitted.together(points)[0] == pytest.approx(mean, abs=1e-10)
    assert fitted.together(points)[1] == pytest.approx(covariance, abs=1e-10)
    assert fitted.at(points)[0] == pytest.approx(mean, abs=1e-10)
    assert fitted.at(points)[1] == pytest.approx(np.diag(covariance), abs=1e-10)


def test_its_gradient_is_that_of_differences(fitted: GaussianProcess) -> None:
    squares = np.square(fitted.points.T[:, :, None] - fitted.points.T[:, None, :])
    given = squares, np.zeros(6), np.ones(6)
    for parameters in np.random.default_rng(2).normal(0, 0.4, (5, 6)):
        wanted = approx_fprime(parameters, lambda p: fitted._unlikeliness(p, *given)[0], 1e-7)
        assert fitted._unlikeliness(parameters, *given)[1] == pytest.approx(wanted, rel=1e-4, abs=1e-4)


def test_it_finds_what_matters_and_how_much_is_noise() -> None:
    random = np.random.default_rng(3)
    points = random.random((80, 6))
    values = np.sin(6 * points[:, 0]) + 0.1 * random.standard_normal(80)
    model = GaussianProcess(points, values, Prior())
    assert model.scales[0] < model.scales[1:].min() / 2
    assert 0.05 < np.sqrt(model.noise) * model.deviation < 0.2


def test_the_logarithm_of_improvement_holds_far_away() -> None:
    gaps = np.array([5.0, 0.0, -0.9, -1.1, -7.0, -40.0, -3000.0, -9.9e3, -1.1e4])
    with mpmath.workdps(60):
        wanted = [float(mpmath.log(mpmath.npdf(z) + z * mpmath.ncdf(z))) for z in gaps]
    assert log_improvement(gaps) == pytest.approx(wanted, rel=1e-7)


def test_noisy_improvement_is_what_drawing_everything_gives(fitted: GaussianProcess) -> None:
    """The best of all trials, one that runs included, and the value of a further one are drawn together."""
    random = np.random.default_rng(4)
    running, point = random.random((1, 4)), np.array([[0.95, 0.05, 0.5, 0.5]])
    drawn = norm.ppf((random.permuted(np.tile(np.arange(4000), (41, 1)), axis=1).T + 0.5) / 4000)
    found = NoisyImprovement(fitted, running, drawn)(point)[0]
    mean, covariance = fitted.together(np.vstack([fitted.points, running, point]))
    values = random.multivariate_normal(mean, covariance + 1e-9 * np.eye(42), 400_000)
    wanted = np.maximum(values[:, :-1].min(axis=1) - values[:, -1], 0).mean()
    assert np.exp(found) == pytest.approx(wanted, rel=0.05)

"""Who proposes, by the word that `search.method` in a study takes: ours, and what there is to compare it with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from megavox.core.randomness import generator
from megavox.search.proposer import Fits
from megavox.search.sampler import AsynchronousSampler, Failures, Knowledge
from megavox.search.space import Space
from megavox.study.search import SearchSection

NEVER = 1 << 30  # so many trials never end, and settings are spread for ever


def sampler_of(section: SearchSection, space: Space, seed: int, fits: Fits) -> BaseSampler:
    """The sampler that a search asks for; a proposal depends on seed, number of the trial and storage alone.

    Args:
        section: the study's.
        space: of settings.
        seed: of the study.
        fits: whether a setting can be trained, as far as that can be told.
    """
    known = section.knowledge
    match section.method:
        case "asynchronous":
            failures: Failures = "region" if known.failures else "worst"
            knowledge = Knowledge(known.running, known.previews, failures, fits)
            return AsynchronousSampler(space, seed, section.initial, knowledge)
        case "poster":
            return AsynchronousSampler(space, seed, section.initial, Knowledge(False, False, "worst"))
        case "sobol":
            return AsynchronousSampler(space, seed, NEVER)
        case "tpe":
            return _Anew(lambda number: TPESampler(seed=number, constant_liar=True), seed)
        case _:
            return _Anew(lambda number: RandomSampler(seed=number), seed)


class _Anew(BaseSampler):
    """One of Optuna's samplers, made anew for each value: where a search goes on, it would draw its first ones again.

    Args:
        make: from a seed.
        seed: of the study.
    """

    def __init__(self, make: Callable[[int], BaseSampler], seed: int) -> None:
        self._make, self._seed = make, seed

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """None: each parameter is drawn by itself."""
        return {}

    def sample_relative(self, study: Study, trial: FrozenTrial,
                        search_space: dict[str, BaseDistribution]) -> dict[str, Any]:
        """See `infer_relative_search_space`."""
        return {}

    def sample_independent(self, study: Study, trial: FrozenTrial, param_name: str,
                           param_distribution: BaseDistribution) -> Any:
        """A value of one parameter."""
        sampler = self._make(int(generator(self._seed, "proposal", trial.number, param_name).integers(2**31)))
        return sampler.sample_independent(study, trial, param_name, param_distribution)

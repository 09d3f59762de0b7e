"""Which hyper-parameters matter: functional analysis of variance of a search's trials."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from scipy.stats import rankdata

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

FEWEST = 8  # trials with a value, and at least
FEWEST_EACH = 2  # for each parameter
DEPTH = 6  # of trees; deeper ones learn the noise


def importance(study: Study, seed: int = 0) -> dict[str, float]:
    """Share that each parameter has in what is known to make values differ; by functional ANOVA.

    Hutter, Hoos and Leyton-Brown 2014, "An efficient approach for assessing hyperparameter importance", main effects,
    here of the ranks of the values: a setting that diverged would otherwise be all that is explained. Parameters count
    on the scale that they are searched on. Where a setting lacks one, a number counts as the middle of its range, a
    choice as one more.

    Args:
        study: trials that have no value are left out.
        seed: of the random forest.

    Returns:
        Parameter to share, the largest first; the sum is 1. Empty with fewer than 8 values or 2 for each parameter, or
        where all values are equal.
    """
    import optuna
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    trials = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    names = list(dict.fromkeys(name for trial in trials for name in trial.params))
    ranks = rankdata([trial.value for trial in trials])
    if not names or len(trials) < max(FEWEST, FEWEST_EACH * len(names)) or len(set(ranks)) == 1:
        return {}
    filled = optuna.create_study()
    distributions = {name: _whole(name, trials) for name in names}
    for trial, rank in zip(trials, ranks, strict=True):
        settings = {name: _place(name, trial, distributions[name]) for name in names}
        filled.add_trial(optuna.trial.create_trial(params=settings, distributions=distributions, value=rank))
    shares = get_param_importances(filled, evaluator=FanovaImportanceEvaluator(max_depth=DEPTH, seed=seed))
    return {name: float(share) for name, share in shares.items()}


def _whole(name: str, trials: Sequence[FrozenTrial]) -> BaseDistribution:
    """Where a parameter lies in any trial: bounds may follow another parameter."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    found: list[Any] = [trial.distributions[name] for trial in trials if name in trial.params]
    if isinstance(found[0], CategoricalDistribution):
        return CategoricalDistribution(range(len(found[0].choices) + (len(found) < len(trials))))
    ends = [_scaled(end, one) for one in found for end in (one.low, one.high)]
    return FloatDistribution(min(ends), max(ends))


def _place(name: str, trial: FrozenTrial, whole: Any) -> float:
    """Where a trial lies in that."""
    from optuna.distributions import CategoricalDistribution

    values: Mapping[str, Any] = trial.params
    if isinstance(whole, CategoricalDistribution):
        return round(trial.distributions[name].to_internal_repr(values[name])) if name in values \
            else len(whole.choices) - 1
    return _scaled(values[name], trial.distributions[name]) if name in values else (whole.low + whole.high) / 2


def _scaled(value: float, distribution: Any) -> float:
    return math.log(value) if distribution.log else float(value)

"""Our proposals behind Optuna's sampler interface: everything is read from the storage each time.

What Optuna calls a trial carries here, besides its parameters: validation scores on the way as intermediate values, at
thousandths of the training; and where it failed, in the attribute `cause`, whether by its setting's fault (`setting`),
which teaches, or the machine's (`machine`), which does not.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from optuna.distributions import (
    BaseDistribution,
    CategoricalChoiceType,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState
from threadpoolctl import threadpool_limits

from megavox.core.errors import StudyError
from megavox.core.randomness import generator
from megavox.search.previews import Curve, preview
from megavox.search.proposer import Evidence, Fits, first_points, propose
from megavox.search.space import Choice, Parameter, Setting, Space

CAUSE, SETTING_AT_FAULT, MACHINE_AT_FAULT = "cause", "setting", "machine"
WHOLE = 1000  # the intermediate step at the end of a training
MOST_SPREAD = 20_000  # points among which enough must fit

Failures = Literal["region", "worst", "none"]


@dataclass(frozen=True)
class Knowledge:
    """What proposals are made from, besides the trials that ended well; each can be left out, to see what it is worth.

    Attributes:
        running: settings that are being tried.
        previews: their scores so far, and those of trials that were stopped.
        failures: settings that could not be trained: where such a `region` is, or as if they had scored `worst`.
        fits: tells beforehand of a setting whether it can be.
    """

    running: bool = True
    previews: bool = True
    failures: Failures = "region"
    fits: Fits | None = None


class AsynchronousSampler(BaseSampler):
    """Proposes while other trials run.

    Args:
        space: of settings.
        seed: proposals depend on it, on the trial's number and on the storage alone.
        initial: so many values must be known before a model is made; until then settings are spread evenly.
        knowledge: what else is used.
    """

    def __init__(self, space: Space, seed: int, initial: int = 3, knowledge: Knowledge = Knowledge()) -> None:
        self._space, self._seed, self._initial, self._knowledge = space, seed, max(2, initial), knowledge
        self._independent = RandomSampler(seed=seed)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """All parameters of the space, with their widest bounds."""
        return {one.name: _widest(one, self._space) for one in self._space.parameters}

    def sample_relative(self, study: Study, trial: FrozenTrial,
                        search_space: dict[str, BaseDistribution]) -> dict[str, Any]:
        """A setting for this trial."""
        trials = [one for one in study.get_trials(deepcopy=False) if one.number != trial.number]
        evidence = evidence_of(trials, self._space, study.direction, self._knowledge)
        if len(evidence.values) < self._initial:
            point = self._spread(trial.number)
        else:
            random = generator(self._seed, "proposal", trial.number)
            with threadpool_limits(1):  # on matrices as small as these, threads on busy cores wait for each other
                point = propose(self._space, evidence, random, self._knowledge.fits)
        return as_parameters(self._space, self._space.decode(point))

    def _spread(self, number: int) -> np.ndarray:
        fits, count = self._knowledge.fits, number + 1
        while True:
            points = first_points(self._space, count, self._seed)
            good = [point for point in points if fits is None or fits(self._space.decode(point))]
            if len(good) > number:
                return np.asarray(good[number])
            if count > MOST_SPREAD:
                raise StudyError(f"of {count} settings spread over the space {len(good)} can be trained",
                                 where="search.space", fix="Look for values that do not go together; if they need too "
                                 "much memory, lower the largest patch, batch or number of filters")
            count *= 2

    def sample_independent(self, study: Study, trial: FrozenTrial, param_name: str,
                           param_distribution: BaseDistribution) -> Any:
        """For parameters outside the space."""
        return self._independent.sample_independent(study, trial, param_name, param_distribution)


def evidence_of(trials: Sequence[FrozenTrial], space: Space, direction: StudyDirection,
                knowledge: Knowledge) -> Evidence:
    """What trials teach; values are turned so that small ones are good."""
    sign = sign_of(direction)
    curves = ended_of(trials, sign)
    known: list[tuple[np.ndarray, float, float]] = []
    failed, running = [], []
    for one in trials:
        point = _point(space, one)
        if point is None:
            continue
        if one.state is TrialState.COMPLETE:
            known.append((point, sign * (one.value or 0.0), 0.0))
        elif one.state is TrialState.FAIL:
            if knowledge.failures != "none" and one.user_attrs.get(CAUSE) == SETTING_AT_FAULT:
                failed.append(point)
        elif knowledge.previews and (found := preview(curve_of(one, sign), curves)) is not None:
            known.append((point, found.value, found.variance))  # it runs, or was stopped
        elif one.state is TrialState.PRUNED and one.intermediate_values:
            known.append((point, curve_of(one, sign)[-1][1], 0.0))  # it would have become better, but not good
        elif knowledge.running and one.state is TrialState.RUNNING:
            running.append(point)
    if knowledge.failures == "worst" and known:
        worst = max(value for _, value, _ in known)
        known, failed = [*known, *((point, worst, 0.0) for point in failed)], []
    values, noise = (np.array([one[column] for one in known]) for column in (1, 2))
    return Evidence(_rows([point for point, _, _ in known], space), values, noise, _rows(failed, space),
                    _rows(running, space))


def ended_of(trials: Sequence[FrozenTrial], sign: float) -> list[tuple[Curve, float]]:
    """Curves and values of the trials that ended well, times a sign."""
    return [(curve_of(one, sign), sign * (one.value or 0.0)) for one in trials if one.state is TrialState.COMPLETE]


def sign_of(direction: StudyDirection) -> float:
    """What values are to be multiplied by so that small ones are good."""
    return -1.0 if direction is StudyDirection.MAXIMIZE else 1.0


def _rows(points: Sequence[np.ndarray], space: Space) -> np.ndarray:
    return np.array(points) if points else np.empty((0, space.size))


def suggest(space: Space, trial: Trial) -> Setting:
    """Take the setting that was proposed for a trial, parameter by parameter, so that the storage has it."""
    setting: Setting = {}
    for one in space.active(setting):
        if isinstance(one, Choice):
            setting[one.name] = one.choices[_names(one).index(trial.suggest_categorical(one.name, _names(one)))]
        elif one.integer:
            low, high = one.bounds(setting)
            setting[one.name] = trial.suggest_int(one.name, round(low), round(high), step=round(one.step or 1),
                                                  log=one.log)
        else:
            low, high = one.bounds(setting)
            setting[one.name] = trial.suggest_float(one.name, low, high, step=one.step, log=one.log)
    return setting


def as_parameters(space: Space, setting: Mapping[str, Any]) -> dict[str, Any]:
    """A setting as the storage has it."""
    choices = {one.name for one in space.parameters if isinstance(one, Choice)}
    return {name: _name(value) if name in choices else value for name, value in setting.items()}


def setting_of(space: Space, trial: FrozenTrial) -> Setting | None:
    """The setting of a trial in the storage; None where whoever made the trial was cut off midway."""
    found: Setting = {}
    for one in space.active(found):
        if one.name not in trial.params:
            return None
        value = trial.params[one.name]
        found[one.name] = one.choices[_names(one).index(value)] if isinstance(one, Choice) else value
    return found


def _point(space: Space, trial: FrozenTrial) -> np.ndarray | None:
    setting = setting_of(space, trial)
    return None if setting is None else space.encode(setting)


def curve_of(trial: FrozenTrial, sign: float) -> Curve:
    """Scores of a trial at shares of its training, times a sign."""
    return [(step / WHOLE, sign * value) for step, value in sorted(trial.intermediate_values.items())]


def _widest(one: Parameter, space: Space) -> BaseDistribution:
    """A distribution that holds every value which any setting can have."""
    if isinstance(one, Choice):
        return CategoricalDistribution(_names(one))
    low, high = space.widest(one)
    if one.integer:
        least = math.ceil(low - 1e-9)
        return IntDistribution(least, max(least, math.floor(high + 1e-9)), log=one.log)
    return FloatDistribution(low, high, log=one.log)


def _names(one: Choice) -> list[CategoricalChoiceType]:
    return [_name(choice) for choice in one.choices]


def _name(choice: Any) -> CategoricalChoiceType:
    """A choice as storages and charts can hold it."""
    return choice if isinstance(choice, (bool, int, float, str)) or choice is None else json.dumps(choice)

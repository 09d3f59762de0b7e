"""Our proposals in Optuna's studies: kept as they were made, the same from the same storage."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import optuna
import pytest
from spaces import MIXED

from megavox.core.errors import StudyError
from megavox.search.sampler import (
    CAUSE,
    MACHINE_AT_FAULT,
    SETTING_AT_FAULT,
    WHOLE,
    AsynchronousSampler,
    Knowledge,
    evidence_of,
    setting_of,
    suggest,
)
from megavox.search.space import Bound, Choice, Number, Setting, Space

LISTS = Space([Choice("patch", ([16, 16, 16], [32, 32, 32])),
               Number("shift", Bound(0), Bound(0.5, "patch"), step=1, integer=True)])
FOLLOWING = Space([Number("size", Bound(2), Bound(16), step=2, integer=True),
                   Number("share", Bound(0.1), Bound(0.7), step=0.1),
                   Number("filters", Bound(0.125, "size"), Bound(32), log=True, step=1, integer=True),
                   Number("wide", Bound(0.1), Bound(0.3, "share"), step=0.03)])


@pytest.fixture(autouse=True)
def quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def study_of(space: Space, seed: int = 0, **knowledge: Any) -> optuna.Study:
    return optuna.create_study(sampler=AsynchronousSampler(space, seed, knowledge=Knowledge(**knowledge)))


def value_of(setting: Setting) -> float:
    return abs(float(np.log10(setting["rate"])) + 4) + (setting["optimiser"] == "sgd")


def tried(study: optuna.Study, count: int) -> list[Setting]:
    found = []
    for _ in range(count):
        trial = study.ask()
        found.append(suggest(MIXED, trial))
        study.tell(trial, value_of(found[-1]))
    return found


def test_every_parameter_is_the_one_that_was_proposed() -> None:
    for space in (MIXED, LISTS, FOLLOWING):
        study = study_of(space)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for number in range(12):
                trial = study.ask()
                setting = suggest(space, trial)
                proposed = trial.relative_params
                assert proposed is not None
                assert proposed.keys() == trial.params.keys() == setting.keys()
                assert all(proposed[name] == pytest.approx(value) for name, value in trial.params.items())
                assert setting_of(space, study.trials[-1]) == setting
                study.tell(trial, float(number))


def test_it_searches() -> None:
    settings = tried(study_of(MIXED, 2), 25)
    values = [value_of(setting) for setting in settings]
    assert np.mean(values[-8:]) < np.mean(values[:8]) / 2 and min(values) < 0.2


def test_nothing_but_the_storage_is_remembered() -> None:
    study = study_of(MIXED)
    tried(study, 6)
    again = study_of(MIXED)
    again.add_trials(study.trials)
    assert suggest(MIXED, study.ask()) == suggest(MIXED, again.ask())
    assert suggest(MIXED, study_of(MIXED, seed=1).ask()) != setting_of(MIXED, study.trials[0])


def test_what_trials_teach() -> None:
    study = study_of(MIXED)
    for number in range(6):
        trial = study.ask()
        suggest(MIXED, trial)
        for share in (0.2, 0.5, 0.9):
            trial.report(number + (1 - share), int(share * WHOLE))
        study.tell(trial, float(number))
    running, stopped, broken, unlucky, unborn = (study.ask() for _ in range(5))
    for trial in (running, stopped, broken, unlucky):
        suggest(MIXED, trial)
    stopped.report(9.5, WHOLE // 2)
    study.tell(stopped, state=optuna.trial.TrialState.PRUNED)
    for trial, cause in ((broken, SETTING_AT_FAULT), (unlucky, MACHINE_AT_FAULT)):
        trial.set_user_attr(CAUSE, cause)
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
    assert unborn.number == 10
    found = evidence_of(study.trials, MIXED, study.direction, Knowledge())
    assert found.values == pytest.approx([0, 1, 2, 3, 4, 5, 9.0])
    assert (found.more_noise[:6] == 0).all() and found.more_noise[6] > 0
    assert (len(found.failed), len(found.running)) == (1, 1)
    running.report(2.8, int(0.2 * WHOLE))
    found = evidence_of(study.trials, MIXED, study.direction, Knowledge())
    assert found.values[-2:] == pytest.approx([2.0, 9.0]) and not len(found.running)
    poster = evidence_of(study.trials, MIXED, study.direction,
                         Knowledge(running=False, previews=False, failures="worst"))
    assert poster.values == pytest.approx([0, 1, 2, 3, 4, 5, 9.5, 9.5])
    assert (len(poster.failed), len(poster.running)) == (0, 0)
    upwards = evidence_of(study.trials, MIXED, optuna.study.StudyDirection.MAXIMIZE, Knowledge())
    assert upwards.values[:6] == pytest.approx([0, -1, -2, -3, -4, -5])


def test_what_cannot_fit_is_never_tried_and_nothing_twice() -> None:
    def fits(setting: Setting) -> bool:
        return bool(setting["filters"] <= 8 and setting["batch"] < 4 and setting["batches.patch"] == 32)

    settings = tried(study_of(MIXED, fits=fits), 12)
    assert all(fits(setting) for setting in settings)
    assert len({str(setting) for setting in settings}) == 12
    with pytest.raises(StudyError, match="0 can be trained"):
        suggest(MIXED, study_of(MIXED, fits=lambda setting: False).ask())


def test_a_trial_that_was_stopped_early_teaches_its_last_score() -> None:
    study = study_of(MIXED)
    trial = study.ask()
    suggest(MIXED, trial)
    trial.report(7.0, 100)
    study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    assert evidence_of(study.trials, MIXED, study.direction, Knowledge()).values == pytest.approx([7.0])

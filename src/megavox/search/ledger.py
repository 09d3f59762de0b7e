"""The ledger: what was proposed, and what came back; trials of an Optuna study, in its storage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import optuna
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from megavox.core.errors import StudyError
from megavox.search.previews import Curve
from megavox.search.sampler import (
    CAUSE,
    MACHINE_AT_FAULT,
    WHOLE,
    as_parameters,
    curve_of,
    ended_of,
    setting_of,
    sign_of,
    suggest,
)
from megavox.search.space import Setting, Space
from megavox.study.compare import differences

ASKED = "asked"  # attribute of the whole: goal and space
TOLD = "told"  # attribute: how a trial ended, for people


class Ledger:
    """A search, begun or gone on with.

    Args:
        storage: see `storage.open_storage`.
        space: of settings.
        sampler: proposes.
        goal: of values.
        name: of the search, in its storage.
        about: what else its values depend on, as plain values.

    Raises:
        StudyError: the search of that name was begun with another goal or space, or is about something else.
    """

    def __init__(self, storage: BaseStorage, space: Space, sampler: BaseSampler,
                 goal: Literal["maximise", "minimise"], name: str, about: Mapping[str, Any] | None = None) -> None:
        self.storage, self.space, self._name = storage, space, name
        self.study = optuna.create_study(storage=storage, sampler=sampler, study_name=name, load_if_exists=True,
                                         direction="maximize" if goal == "maximise" else "minimize")
        asked = {"goal": goal, **{one.name: str(one) for one in space.parameters}, **(about or {})}
        changed = differences(self.study.user_attrs.get(ASKED, asked), asked)
        if changed:
            raise StudyError(f"this search was begun otherwise: {changed}", where=f"search {name}",
                             fix="Bring that back, or take another --run-name")
        self.study.set_user_attr(ASKED, asked)

    def begin_with(self, setting: Setting) -> None:
        """Let this be the next setting that is proposed, unless it is tried already or waits for that."""
        if not any(trial.state is TrialState.WAITING for trial in self.trials()) and all(
                self.setting(trial) != setting for trial in self.counted()):
            self.study.enqueue_trial(as_parameters(self.space, setting))

    def trials(self) -> list[FrozenTrial]:
        """All, in order."""
        return self.study.get_trials(deepcopy=False)

    def counted(self) -> list[FrozenTrial]:
        """Those that have a setting, and were not lost by the machine's fault."""
        return [trial for trial in self.trials() if self.setting(trial) is not None
                and trial.user_attrs.get(CAUSE) != MACHINE_AT_FAULT]

    def under_way(self) -> list[FrozenTrial]:
        """Those that have not ended."""
        return [trial for trial in self.trials() if trial.state is TrialState.RUNNING]

    def setting(self, trial: FrozenTrial) -> Setting | None:
        """Of a trial; None where whoever made it was cut off midway."""
        return setting_of(self.space, trial)

    def propose(self) -> FrozenTrial:
        """A new trial, which is under way from now on."""
        trial = self.study.ask()
        suggest(self.space, trial)
        return self.trials()[trial.number]

    def report(self, trial: FrozenTrial, share: float, score: float) -> None:
        """A score on the way, at a share of the training."""
        self.storage.set_trial_intermediate_value(self._id(trial), round(share * WHOLE), score)

    def note(self, trial: FrozenTrial, name: str, value: Any) -> None:
        """Keep an attribute of a trial under way."""
        self.storage.set_trial_user_attr(self._id(trial), name, value)

    def end(self, trial: FrozenTrial, value: float) -> None:
        """It ended well."""
        self.study.tell(trial.number, value)

    def stop(self, trial: FrozenTrial) -> None:
        """It was stopped, since it promised nothing."""
        self.study.tell(trial.number, state=TrialState.PRUNED)

    def fail(self, trial: FrozenTrial, cause: str, told: str) -> None:
        """It failed, by the fault of its setting or of the machine."""
        self.note(trial, CAUSE, cause)
        self.note(trial, TOLD, told)
        self.study.tell(trial.number, state=TrialState.FAIL)

    def curve(self, trial: FrozenTrial) -> Curve:
        """Scores of a trial, turned so that small ones are good."""
        return curve_of(trial, sign_of(self.study.direction))

    def ended(self) -> list[tuple[Curve, float]]:
        """Curves and values of the trials that ended well, turned so that small ones are good."""
        return ended_of(self.trials(), sign_of(self.study.direction))

    def _id(self, trial: FrozenTrial) -> int:
        study = self.storage.get_study_id_from_name(self._name)
        return self.storage.get_trial_id_from_study_id_trial_number(study, trial.number)

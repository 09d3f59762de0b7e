"""The driver: keeps so many trials at work until all have ended.

It remembers nothing: trials, their settings and scores are in the storage, and their work is where it was sent to. So
it can be killed at any instant. Started again, it sends what it had no time to send, follows what is under way, and
goes on.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from optuna.trial import FrozenTrial

from megavox.search.ledger import Ledger
from megavox.search.sampler import MACHINE_AT_FAULT, SETTING_AT_FAULT, WHOLE
from megavox.search.space import Setting
from megavox.search.stopping import hopeless
from megavox.study.search import SearchSection

LOOK_EVERY_S = 0.5
ATTEMPTS = 3  # of a trial whose machine is at fault
ATTEMPT, STOPPED = "attempt", "stopped"  # attributes of trials


class End(StrEnum):
    """How the work of a trial ended."""

    DONE = "done"
    SETTING = SETTING_AT_FAULT
    MACHINE = MACHINE_AT_FAULT


@dataclass(frozen=True)
class Sight:
    """Where the work of a trial is.

    Attributes:
        scores: share of the training and validation score, the latest last.
        end: None while it is under way.
        value: with which it ended.
        told: how it ended, for people.
    """

    scores: Sequence[tuple[float, float]] = ()
    end: End | None = None
    value: float | None = None
    told: str = ""


class Work(Protocol):
    """Where trials are carried out."""

    def send(self, number: int, attempt: int, setting: Setting) -> None:
        """Begin a trial's work. Once is enough: a second call finds it."""

    def look(self, trials: Sequence[tuple[int, int]]) -> Mapping[int, Sight]:
        """Where trials are, by number; asked with their attempts."""

    def cancel(self, number: int, attempt: int) -> None:
        """End a trial's work."""


def drive(ledger: Ledger, section: SearchSection, work: Work, tell: Callable[[], None] = lambda: None,
          leave: Callable[[], bool] = lambda: False) -> None:
    """Search until all trials have ended, or until `leave` says so; what is under way goes on then.

    No other driver may be at work on the same search meanwhile.

    Args:
        ledger: of the search.
        section: how many trials, and when one is stopped.
        work: where they are carried out.
        tell: called whenever something has changed.
        leave: asked all the time.
    """
    for trial in ledger.under_way():  # also what was proposed before this was killed, and not sent
        _send(ledger, trial, work)
    while not leave():
        trials = ledger.under_way()
        seen = work.look([(trial.number, _attempt(trial)) for trial in trials])
        changed = [_hear(ledger, trial, seen[trial.number], section, work) for trial in trials]
        whole = [trial for trial in ledger.trials() if ledger.setting(trial) is not None]  # others were cut off
        room = min(section.workers - len(ledger.under_way()), section.jobs - len(whole))
        for _ in range(room):
            _send(ledger, ledger.propose(), work)
        if any(changed) or room > 0:
            tell()
        if not ledger.under_way():
            return
        time.sleep(LOOK_EVERY_S)


def _send(ledger: Ledger, trial: FrozenTrial, work: Work) -> None:
    setting = ledger.setting(trial)
    if setting is None:
        ledger.fail(trial, MACHINE_AT_FAULT, "whoever proposed it was cut off")
    else:
        work.send(trial.number, _attempt(trial), setting)
    if STOPPED in trial.user_attrs:
        work.cancel(trial.number, _attempt(trial))


def _hear(ledger: Ledger, trial: FrozenTrial, sight: Sight, section: SearchSection, work: Work) -> bool:
    """Take down what is new of a trial; returns whether there was anything."""
    new = [(share, score) for share, score in sight.scores
           if round(share * WHOLE) not in trial.intermediate_values and math.isfinite(score)]
    for share, score in new:
        ledger.report(trial, share, score)
    if sight.end is None:
        if new:
            _end_if_hopeless(ledger, trial, section, work)
        return bool(new)
    value = sight.value if sight.value is not None and math.isfinite(sight.value) else None
    if STOPPED in trial.user_attrs and sight.end is not End.DONE:
        ledger.stop(trial)
    elif sight.end is End.DONE and value is not None:
        ledger.end(trial, value)
    elif sight.end is End.MACHINE and _attempt(trial) < ATTEMPTS:
        ledger.note(trial, ATTEMPT, _attempt(trial) + 1)
        _send(ledger, ledger.trials()[trial.number], work)
    else:
        told = "it ended without a value" if sight.end is End.DONE else sight.told
        ledger.fail(trial, MACHINE_AT_FAULT if sight.end is End.MACHINE else SETTING_AT_FAULT, told)
    return True


def _end_if_hopeless(ledger: Ledger, trial: FrozenTrial, section: SearchSection, work: Work) -> None:
    if section.stop is None or STOPPED in trial.user_attrs:
        return
    if hopeless(ledger.curve(ledger.trials()[trial.number]), ledger.ended(), section.stop):
        ledger.note(trial, STOPPED, True)  # before: whoever comes after a kill cancels it once more
        work.cancel(trial.number, _attempt(trial))


def _attempt(trial: FrozenTrial) -> int:
    return int(trial.user_attrs.get(ATTEMPT, 1))

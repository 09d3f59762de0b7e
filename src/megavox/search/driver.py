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

from megavox.core.errors import MachineError, StudyError
from megavox.search.ledger import Ledger
from megavox.search.sampler import CAUSE, MACHINE_AT_FAULT, SETTING_AT_FAULT, WHOLE
from megavox.search.space import Setting
from megavox.search.stopping import hopeless
from megavox.study.search import SearchSection

ASK_EVERY_S = 0.5  # whether to leave
ATTEMPTS = 3  # of a trial whose machine is at fault
IN_A_ROW = 3  # trials that ended so, after which the machine is to be mended first
FIRST_FAILURES = 10  # at the least: if all trials until then fail by their setting's fault, something else is wrong
ATTEMPT, FAULTS, STOPPED, WITHDRAWN = "attempt", "faults", "stopped", "withdrawn"  # attributes of trials


class End(StrEnum):
    """How the work of a trial ended."""

    DONE = "done"
    SETTING = SETTING_AT_FAULT
    MACHINE = MACHINE_AT_FAULT
    CANCELLED = "cancelled"  # by somebody: nothing is learnt, and it is not tried again


@dataclass(frozen=True)
class Sight:
    """Where the work of a trial is.

    Attributes:
        scores: share of the training and validation score, the latest last.
        end: None while it is under way.
        value: with which it ended.
        told: where it is, or how it ended, for people.
    """

    scores: Sequence[tuple[float, float]] = ()
    end: End | None = None
    value: float | None = None
    told: str = ""


class Work(Protocol):
    """Where trials are carried out.

    Attributes:
        every_s: how often it likes to be looked at.
    """

    every_s: float

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
        tell: called after each look.
        leave: asked all the time.

    Raises:
        StudyError: the first trials all failed by their setting's fault.
        MachineError: the latest trials all failed by the machine's.
    """
    for trial in ledger.under_way():  # also what was proposed before this was killed, and not sent
        _send(ledger, trial, work)
    while not leave():
        trials = ledger.under_way()
        seen = work.look([(trial.number, attempt_of(trial)) for trial in trials])
        for trial in trials:
            _hear(ledger, trial, seen[trial.number], section, work)
        room = min(section.workers - len(ledger.under_way()), section.jobs - len(ledger.counted()))
        for _ in range(room):
            _send(ledger, ledger.propose(), work)
        tell()
        if not ledger.under_way():
            return
        until = time.monotonic() + work.every_s
        while time.monotonic() < until and not leave():
            time.sleep(min(ASK_EVERY_S, work.every_s))


def _send(ledger: Ledger, trial: FrozenTrial, work: Work) -> None:
    setting = ledger.setting(trial)
    if setting is None:
        ledger.fail(trial, MACHINE_AT_FAULT, "whoever proposed it was cut off")
    else:
        work.send(trial.number, attempt_of(trial), setting)
    if STOPPED in trial.user_attrs:
        work.cancel(trial.number, attempt_of(trial))


def _hear(ledger: Ledger, trial: FrozenTrial, sight: Sight, section: SearchSection, work: Work) -> None:
    """Take down what is new of a trial."""
    new = [(share, score) for share, score in sight.scores
           if round(share * WHOLE) not in trial.intermediate_values and math.isfinite(score)]
    for share, score in new:
        ledger.report(trial, share, score)
    if sight.end is None:
        if new:
            _end_if_hopeless(ledger, trial, section, work)
        return
    value = sight.value if sight.value is not None and math.isfinite(sight.value) else None
    if STOPPED in trial.user_attrs and sight.end is not End.DONE:
        ledger.stop(trial)
    elif sight.end is End.DONE and value is not None:
        ledger.end(trial, value)
    elif _again(trial, sight.end):
        if sight.end is End.MACHINE:
            ledger.note(trial, FAULTS, trial.user_attrs.get(FAULTS, 0) + 1)
        ledger.note(trial, ATTEMPT, attempt_of(trial) + 1)
        _send(ledger, ledger.trials()[trial.number], work)
    else:
        told = "it ended without a value" if sight.end is End.DONE else sight.told
        ledger.fail(trial, SETTING_AT_FAULT if sight.end is End.DONE else sight.end, told)
        _refuse_to_fail_on(ledger, section, told)


def _again(trial: FrozenTrial, end: End) -> bool:
    """Whether a trial is to be sent once more."""
    if end is End.MACHINE:
        return bool(trial.user_attrs.get(FAULTS, 0) + 1 < ATTEMPTS)
    return end is End.CANCELLED and trial.user_attrs.get(WITHDRAWN) == attempt_of(trial)


def withdraw(ledger: Ledger, work: Work) -> None:
    """End what is under way; whoever goes on with the search sends it again."""
    for trial in ledger.under_way():
        ledger.note(trial, WITHDRAWN, attempt_of(trial))
        work.cancel(trial.number, attempt_of(trial))


def _refuse_to_fail_on(ledger: Ledger, section: SearchSection, told: str) -> None:
    """Stop where nothing but failures came; the same command goes on, for those who know better.

    Raises:
        StudyError, MachineError: as `drive`.
    """
    over = sorted((trial for trial in ledger.trials() if trial.datetime_complete and ledger.setting(trial) is not None),
                  key=lambda trial: trial.datetime_complete)[-IN_A_ROW:]  # type: ignore[arg-type, return-value]
    if len(over) == IN_A_ROW and all(trial.user_attrs.get(CAUSE) == MACHINE_AT_FAULT for trial in over):
        raise MachineError(f"the last {IN_A_ROW} trials failed by the machine's fault; the last one: "
                           f"{told.rstrip('. ')}", fix="Mend that; the same command goes on, and these do not count")
    failed = [trial for trial in ledger.trials() if trial.user_attrs.get(CAUSE) == SETTING_AT_FAULT]
    if len(failed) == max(FIRST_FAILURES, section.workers) and not ledger.ended():
        raise StudyError(f"the first {len(failed)} trials failed; the last one: {told.rstrip('. ')}",
                         where="search.space", fix="Mend the study, or the space, and take another --run-name; "
                         "the same command goes on with this one")


def _end_if_hopeless(ledger: Ledger, trial: FrozenTrial, section: SearchSection, work: Work) -> None:
    if section.stop is None or STOPPED in trial.user_attrs:
        return
    if hopeless(ledger.curve(ledger.trials()[trial.number]), ledger.ended(), section.stop):
        ledger.note(trial, STOPPED, True)  # before: whoever comes after a kill cancels it once more
        work.cancel(trial.number, attempt_of(trial))


def attempt_of(trial: FrozenTrial) -> int:
    """How many times a trial was sent."""
    return int(trial.user_attrs.get(ATTEMPT, 1))

"""The driver keeps all workers busy, and loses and repeats nothing however it ends."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from megavox.core.errors import MachineError, StudyError
from megavox.search import driver
from megavox.search.driver import ATTEMPT, ATTEMPTS, End, Sight, drive, withdraw
from megavox.search.ledger import Ledger
from megavox.search.sampler import CAUSE, MACHINE_AT_FAULT, SETTING_AT_FAULT
from megavox.search.space import Bound, Number, Setting, Space
from megavox.search.storage import open_storage
from megavox.study.search import ParameterSection, SearchSection, StopSection

SPACE = Space([Number("x", Bound(0), Bound(1)), Number("y", Bound(0), Bound(1))])
DESCRIBED = {"x": ParameterSection(low=0.0, high=1.0)}
TRIALS = 15  # 14 jobs, and one that the machine made fail, which does not count
LOOKS = 4  # after which a trial has ended


class Killed(BaseException):
    """Stands for SIGKILL: nothing may catch it."""


class InMemory:
    """Work that goes on by being looked at, and survives its driver."""

    every_s = 0.0

    def __init__(self) -> None:
        self.sent: dict[tuple[int, int], Setting] = {}
        self.looks: dict[tuple[int, int], int] = {}
        self.cancelled: set[tuple[int, int]] = set()
        self.most = 0

    def send(self, number: int, attempt: int, setting: Setting) -> None:
        assert self.sent.setdefault((number, attempt), setting) == setting, "another setting under the same number"

    def look(self, trials: Sequence[tuple[int, int]]) -> Mapping[int, Sight]:
        self.most = max(self.most, len(trials))
        return {trial[0]: self._one(trial) for trial in trials}

    def _one(self, trial: tuple[int, int]) -> Sight:
        number, attempt = trial
        setting = self.sent[trial]
        self.looks[trial] = self.looks.get(trial, 0) + 1
        score = (setting["x"] - 0.3) ** 2 + (setting["y"] - 0.6) ** 2 + number % 3
        share = min(1.0, self.looks[trial] / LOOKS)
        if trial in self.cancelled:
            return Sight([(share, score)], End.CANCELLED, None, "cancelled")
        if share < 1:
            return Sight([(share, score + 1 - share)])
        if number % 7 == 3:
            return Sight([], End.SETTING, None, "memory")
        if number % 7 == 5 and attempt < (9 if number == 5 else 3):
            return Sight([], End.MACHINE, None, "node failed")
        return Sight([(1.0, score)], End.DONE, float("nan") if number == 8 else score)

    def cancel(self, number: int, attempt: int) -> None:
        self.cancelled.add((number, attempt))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    monkeypatch.setattr(driver, "IN_A_ROW", 1000)


def ledger(path: Path) -> Ledger:
    return Ledger(open_storage(path), SPACE, optuna.samplers.RandomSampler(seed=0), "minimise", "s")


def section(**more: Any) -> SearchSection:
    return SearchSection(space=DESCRIBED, workers=3, jobs=14, **more)


def checked(found: Ledger, work: InMemory) -> None:
    """Every trial has ended as it should, and its work was sent."""
    trials = found.trials()
    assert len(trials) == TRIALS and work.most == 3
    causes = {trial.number: trial.user_attrs.get(CAUSE) for trial in trials if trial.state is TrialState.FAIL}
    assert causes == {3: SETTING_AT_FAULT, 10: SETTING_AT_FAULT, 8: SETTING_AT_FAULT, 5: MACHINE_AT_FAULT}
    assert all(trial.state is TrialState.COMPLETE for trial in trials if trial.number not in causes)
    assert trials[5].user_attrs[ATTEMPT] == trials[12].user_attrs[ATTEMPT] == ATTEMPTS
    assert {number for number, _ in work.sent} == set(range(TRIALS))
    for trial in trials:
        setting = found.setting(trial)
        assert all(sent == setting for (number, _), sent in work.sent.items() if number == trial.number)
        if trial.state is TrialState.COMPLETE:
            assert [step for step in sorted(trial.intermediate_values)] == [250, 500, 750, 1000]


def test_all_trials_end_with_what_they_came_to(tmp_path: Path) -> None:
    found, work, told = ledger(tmp_path / "journal"), InMemory(), []
    drive(found, section(), work, lambda: told.append(1))
    checked(found, work)
    assert len(told) > 14
    drive(found, section(), work)
    checked(found, work)


def test_it_leaves_and_goes_on(tmp_path: Path) -> None:
    found, work = ledger(tmp_path / "journal"), InMemory()
    for _ in range(30):
        asked = iter([False, True])
        drive(found, section(), work, leave=lambda asked=asked: next(asked))
    checked(found, work)


def test_what_somebody_cancels_is_not_tried_again_but_what_is_withdrawn_is(tmp_path: Path) -> None:
    found, work = ledger(tmp_path / "journal"), InMemory()
    for _ in range(2):
        asked = iter([False, True])
        drive(found, section(), work, leave=lambda asked=asked: next(asked))
        if not work.cancelled:
            withdraw(found, work)
    assert len(work.cancelled) == 3 and {attempt for _, attempt in work.cancelled} == {1}
    assert {sent for sent in work.sent if sent[1] == 2} == {(number, 2) for number, _ in work.cancelled}
    number = found.under_way()[0].number
    work.cancel(number, 2)
    drive(found, section(), work)
    assert found.trials()[number].user_attrs[CAUSE] == End.CANCELLED
    assert max(attempt for (sent, attempt) in work.sent if sent == number) == 2


def test_where_the_first_all_fail_it_stops_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found, work = ledger(tmp_path / "journal"), InMemory()
    monkeypatch.setattr(InMemory, "_one", lambda self, trial: Sight([], End.SETTING, None, "no such file"))
    with pytest.raises(StudyError, match=r"the first 10 trials failed; the last one: no such file\."):
        drive(found, section(), work)
    drive(found, section(), work)
    assert len(found.trials()) == 14


def test_where_the_machine_is_at_fault_three_times_in_a_row_it_waits_to_be_mended(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "IN_A_ROW", 3)
    found, work = ledger(tmp_path / "journal"), InMemory()
    with monkeypatch.context() as broken:
        broken.setattr(InMemory, "_one", lambda self, trial: Sight([], End.MACHINE, None, "disk full"))
        with pytest.raises(MachineError, match=r"last 3 trials failed by the machine's fault; the last one: disk full"):
            drive(found, section(), work)
    assert {attempt for _, attempt in work.sent} == {1, 2, 3}
    drive(found, section(), work)
    failed = [trial for trial in found.trials() if trial.user_attrs.get(CAUSE) == MACHINE_AT_FAULT]
    assert len(found.trials()) == 14 + len(failed)


def test_the_own_setting_is_tried_again_where_the_machine_lost_it(tmp_path: Path) -> None:
    found = ledger(tmp_path / "journal")
    own = {"x": 0.25, "y": 0.5}
    for cause in (MACHINE_AT_FAULT, SETTING_AT_FAULT):
        found.begin_with(own)
        trial = found.propose()
        assert found.setting(trial) == own
        found.fail(trial, cause, "told")
    found.begin_with(own)
    assert found.setting(found.propose()) != own and len(found.counted()) == 2


def test_another_search_under_the_same_name_is_refused(tmp_path: Path) -> None:
    found = ledger(tmp_path / "journal")
    with pytest.raises(StudyError, match="goal was minimise and is maximise"):
        Ledger(open_storage(tmp_path / "journal"), SPACE, found.study.sampler, "maximise", "s")
    wider = Space([SPACE.parameters[0], Number("y", Bound(0), Bound(2))])
    with pytest.raises(StudyError, match=r"y was 0 to 1 and is 0 to 2\. Bring that back, or take another --run-name"):
        Ledger(open_storage(tmp_path / "journal"), wider, found.study.sampler, "minimise", "s")
    with pytest.raises(StudyError, match="split was a and is b"):
        for split in "ab":
            Ledger(open_storage(tmp_path / "other"), SPACE, found.study.sampler, "maximise", "s", {"split": split})
    other = Space([*SPACE.parameters, Number("z", Bound(0), Bound(1))])
    with pytest.raises(StudyError, match="z was not set"):
        Ledger(open_storage(tmp_path / "journal"), other, found.study.sampler, "minimise", "s")
    assert not Ledger(open_storage(tmp_path / "journal"), other, found.study.sampler, "minimise", "t").trials()


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The driver dies before or after something is written or sent; the list holds how many such moments are left."""
    left = [10**9]

    def dying(original: Any) -> Any:
        def called(*arguments: Any, **named: Any) -> Any:
            _count(left)
            result = original(*arguments, **named)
            _count(left)
            return result
        return called

    backend = optuna.storages.journal.JournalFileBackend
    monkeypatch.setattr(backend, "append_logs", dying(backend.append_logs))
    for name in ("send", "cancel"):
        monkeypatch.setattr(InMemory, name, dying(getattr(InMemory, name)))
    yield left


def _count(left: list[int]) -> None:
    left[0] -= 1
    if left[0] == 0:
        raise Killed


@pytest.mark.parametrize("seed", range(5))
def test_killed_at_any_instant_it_loses_and_repeats_nothing(seed: int, tmp_path: Path, killed: list[int]) -> None:
    work, deaths, drawn = InMemory(), 0, random.Random(seed)
    stop = StopSection(rule="median", after=0.3) if seed % 2 else None
    for _ in range(200):
        try:
            killed[0] = drawn.randint(1, 50)
            drive(ledger(tmp_path / "journal"), section(stop=stop), work)
        except Killed:
            deaths += 1
        else:
            break
    killed[0] = 10**9
    found = ledger(tmp_path / "journal")
    cut_off = [trial for trial in found.trials() if found.setting(trial) is None]
    assert deaths > 5
    uncounted = [trial for trial in found.trials() if trial.user_attrs.get(CAUSE) == MACHINE_AT_FAULT]
    assert len(found.trials()) == 14 + len(uncounted) and all(trial.state.is_finished() for trial in found.trials())
    assert all(trial.user_attrs[CAUSE] == MACHINE_AT_FAULT for trial in cut_off)
    assert bool(work.cancelled) == bool(stop)
    assert {number for number, _ in work.cancelled} >= {
        trial.number for trial in found.trials() if trial.state is TrialState.PRUNED}
    assert {number for number, _ in work.sent} == {trial.number for trial in found.trials()} - {
        trial.number for trial in cut_off}


def test_hopeless_trials_are_ended_and_remembered(tmp_path: Path) -> None:
    found, work = ledger(tmp_path / "journal"), InMemory()
    drive(found, section(stop=StopSection(rule="median", after=0.3)), work)
    stopped = [trial for trial in found.trials() if trial.state is TrialState.PRUNED]
    assert stopped and {number for number, _ in work.cancelled} >= {trial.number for trial in stopped}
    assert all(trial.number % 3 for trial in stopped), "the good ones go on"
    assert all(trial.intermediate_values for trial in stopped)

"""Where a search stands: few words on each of its trials, quickly, while it goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from megavox.pipeline.tune import Search
from megavox.search.ledger import TOLD

WORDS = {TrialState.COMPLETE: "done", TrialState.PRUNED: "stopped early", TrialState.FAIL: "failed"}


@dataclass(frozen=True)
class UnderWay:
    """A trial that has not ended.

    Attributes:
        number: of the trial.
        state: of its job, in a word.
        share: of the training at which it was last validated.
        score: there; None before.
        setting: what it tries.
    """

    number: int
    state: str
    share: float
    score: float | None
    setting: Mapping[str, Any]


@dataclass(frozen=True)
class Standing:
    """A search at a moment.

    Attributes:
        ended: number of the trial -> how it ended, in the order of numbers.
        under_way: the others.
        best: number and value of the best; None before one is done.
        counts: how many ended in which way, but for those that the machine lost.
        lost: these, which others are sent for.
        jobs: how many there will be.
        objective: name of the score.
    """

    ended: Mapping[int, str]
    under_way: Sequence[UnderWay]
    best: tuple[int, float] | None
    counts: Mapping[str, int]
    lost: int
    jobs: int
    objective: str

    def sentence(self) -> str:
        """All of it in a line."""
        best = "none is done" if self.best is None else \
            f"best {self.objective} {self.best[1]:.4f} (trial {self.best[0]})"
        counts = ", ".join(f"{count} {word}" for word, count in self.counts.items() if count)
        lost = f", {self.lost} lost by the machine" if self.lost else ""
        return f"{sum(self.counts.values())} of {self.jobs} trials have ended ({counts or 'none yet'}{lost}); {best}"


def standing(search: Search) -> Standing:
    """Where a search stands."""
    trials = [trial for trial in search.ledger.trials() if search.ledger.setting(trial) is not None]
    over = [trial for trial in trials if trial.state in WORDS]
    counted = {trial.number for trial in search.ledger.counted()}
    done = [(trial.number, float(trial.value or 0.0)) for trial in over if trial.state is TrialState.COMPLETE]
    choose = max if search.section.goal == "maximise" else min
    return Standing(
        {trial.number: _told(trial, search.objective) for trial in over},
        [_under_way(search, trial) for trial in trials if trial.state is TrialState.RUNNING],
        choose(done, key=lambda one: one[1]) if done else None,
        {word: sum(trial.state is state and trial.number in counted for trial in over)
         for state, word in WORDS.items()},
        sum(trial.number not in counted for trial in over),
        search.section.jobs, search.objective)


def _told(trial: FrozenTrial, objective: str) -> str:
    if trial.state is TrialState.COMPLETE:
        return f"done, {objective} {trial.value:.4f}"
    told = str(trial.user_attrs.get(TOLD, "")).partition("\n")[0]
    return WORDS[trial.state] + (f": {told}" if told else "")


def _under_way(search: Search, trial: FrozenTrial) -> UnderWay:
    sight = search.trials.seen.get(trial.number)
    share, score = sight.scores[-1] if sight and sight.scores else (0.0, None)
    return UnderWay(trial.number, sight.told if sight else "sent", share, score, search.ledger.setting(trial) or {})

"""Searches of many trials at once, simulated: how good the best setting is after so many jobs, and after so many hours.

    make bench-search

M trials run at any time; whoever ends is followed by a new proposal, made from what the storage has then. Trials take
as long as their settings make them, fail by their settings' fault or the machine's, are measured with noise, and tell
scores on the way. What the machine lost is sent once more, but by methods that do not tell the two apart.
All methods are samplers of Optuna. Regret is the true value of the best-measured setting, less the smallest there is;
medians over seeds, with 95 % intervals by a bootstrap over them.
"""

from __future__ import annotations

import argparse
import heapq
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import optuna

from bars import print_machine, report
from megavox.search.sampler import CAUSE, SETTING_AT_FAULT, WHOLE, AsynchronousSampler, Knowledge, suggest
from search_problems import LOST, PROBLEMS, Outcome, Problem

JOBS, SEEDS, FIRST_SEED = 80, 40, 1000
VALIDATIONS = 10  # scores on the way
LATE_TRIALS = 200  # at which the cost of a proposal is measured
Method = Callable[[str, int], optuna.samplers.BaseSampler]


def ours(**knowledge: Any) -> Method:
    """Our sampler with all that it can know, but for what is said."""
    def made(problem: str, seed: int) -> optuna.samplers.BaseSampler:
        found = PROBLEMS[problem]
        return AsynchronousSampler(found.space, seed, knowledge=Knowledge(**{"fits": found.fits, **knowledge}))
    return made


METHODS: dict[str, Method] = {
    "random": lambda _, seed: optuna.samplers.RandomSampler(seed=seed),
    "TPE": lambda _, seed: optuna.samplers.TPESampler(seed=seed, constant_liar=True),
    "poster's": ours(running=False, previews=False, failures="worst", fits=None),
    "pending ignored": ours(running=False, previews=False),
    "ours, failures not told apart": ours(failures="worst"),
    "ours, failures are worst": ours(failures="worst"),
    "ours, no memory estimate": ours(fits=None),
    "neither, failures worst": ours(fits=None, failures="worst"),
    "ours, no previews": ours(previews=False),
    "ours, running only": ours(previews=False, fits=None),
    "ours": ours()}


NOT_TOLD_APART = ("poster's", "ours, failures not told apart")  # every one is the setting's


@dataclass(frozen=True)
class Run:
    """One search.

    Attributes:
        regret: `(JOBS,)`, after so many jobs have ended.
        hours: `(JOBS,)`, when they had.
        failed: share of jobs.
        seconds: of processor time, for a proposal.
    """

    regret: np.ndarray
    hours: np.ndarray
    failed: float
    seconds: float


@dataclass(order=True)
class Running:
    """A trial under way, in the order of when it will end."""

    end: float
    number: int
    began: float = field(compare=False)
    trial: optuna.Trial = field(compare=False)
    setting: dict[str, Any] = field(compare=False)
    outcome: Outcome = field(compare=False)
    told: int = field(default=0, compare=False)  # scores
    attempt: int = field(default=0, compare=False)

    def sent_again(self, problem: Problem, seed: int) -> Running:
        """The trial from its beginning, after the machine has lost it."""
        attempt = self.attempt + 1
        outcome = problem.run(self.setting, np.random.default_rng([seed, self.number, attempt]))
        return replace(self, began=self.end, end=self.end + outcome.hours, outcome=outcome, attempt=attempt)

    def tell_scores(self, now: float, problem: Problem, seed: int) -> None:
        """Report the scores that it has by now."""
        while self.outcome.value is not None and self.told + 1 < VALIDATIONS:
            share = (self.told + 1) / VALIDATIONS
            if now < self.began + share * (self.end - self.began):
                return
            self.told += 1
            self.trial.report(problem.preview(self.outcome.value, share, seed, self.number, 1), int(share * WHOLE))


def search(name: str, method: str, workers: int, seed: int, jobs: int = JOBS) -> Run:
    """Simulate a search of one problem by one method."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")  # of samplers that are experimental
    problem = PROBLEMS[name]
    study = optuna.create_study(sampler=METHODS[method](name, seed))
    running: list[Running] = []
    now, spent, failed, best = 0.0, 0.0, 0, (np.inf, np.nan)
    regret, hours = [], []
    for launched in [*range(jobs), *[None] * workers]:
        if launched is None or len(running) == workers:
            one = heapq.heappop(running)
            while one.outcome.cause == LOST and method not in NOT_TOLD_APART:
                one = heapq.heappushpop(running, one.sent_again(problem, seed))
            now = one.end
            if one.outcome.value is None:
                failed += 1
                one.trial.set_user_attr(CAUSE, SETTING_AT_FAULT)
                study.tell(one.trial, state=optuna.trial.TrialState.FAIL)
            else:
                one.tell_scores(now, problem, seed)
                study.tell(one.trial, one.outcome.value)
                best = min(best, (one.outcome.value, problem.true(one.setting)))
            regret.append(best[1] - problem.best)
            hours.append(now)
        if launched is None:
            continue
        for one in running:
            one.tell_scores(now, problem, seed)
        begin = time.process_time()
        trial = study.ask()
        setting = suggest(problem.space, trial)
        spent += time.process_time() - begin
        outcome = problem.run(setting, np.random.default_rng([seed, launched, 0]))
        heapq.heappush(running, Running(now + outcome.hours, launched, now, trial, setting, outcome))
    return Run(np.array(regret), np.array(hours), failed / jobs, spent / jobs)


def late_seconds(jobs: int = LATE_TRIALS) -> float:
    """Processor time of a proposal of ours when so many trials have ended and 16 run."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    problem = PROBLEMS["unet"]
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for number in range(jobs + 16):
        trial = study.ask()
        outcome = problem.run(suggest(problem.space, trial), np.random.default_rng(number))
        if number < jobs and outcome.value is not None:
            study.tell(trial, outcome.value)
        elif number < jobs:
            trial.set_user_attr(CAUSE, SETTING_AT_FAULT)
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
    study.sampler = METHODS["ours"]("unet", 0)
    times = []
    for _ in range(5):
        begin = time.process_time()
        suggest(problem.space, study.ask())
        times.append(time.process_time() - begin)
    return float(np.median(times))


def plan() -> Iterator[tuple[str, str, int]]:
    """Problem, method and number of workers of each line of the table."""
    for method in METHODS:
        for workers in ((1, 4, 16) if method in ("random", "TPE", "poster's", "ours") else (16,)):
            yield "unet", method, workers
    for problem in ("hartmann", "ackley"):
        for method in ("random", "TPE", "ours"):
            yield problem, method, 16


def interval(values: np.ndarray) -> tuple[float, float]:
    """95 % of the median, by a bootstrap over seeds."""
    drawn = np.median(np.random.default_rng(0).choice(values, (4000, len(values))), axis=1)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(low), float(high)


def main() -> int:
    """Measure, print, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--first", type=int, default=FIRST_SEED, help="seed to begin with; others while developing")
    parser.add_argument("--only", action="append", help="methods")
    parser.add_argument("--workers", type=int, help="lines with so many workers only")
    parser.add_argument("--problem", help="lines of this problem only")
    given = parser.parse_args()
    print_machine("megavox", "optuna")
    lines = [line for line in plan() if (not given.only or line[1] in given.only)
             and given.workers in (None, line[2]) and given.problem in (None, line[0])]
    found: dict[tuple[str, str, int], list[Run]] = {}
    with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        seeds = range(given.first, given.first + given.seeds)
        asked = {line: [pool.submit(search, *line, seed) for seed in seeds] for line in lines}
        print("problem   method                     M   regret after 20, 40, 80 jobs (95 %)            "
              "after 1/2 of the hours  failed  s each")
        for line, runs in asked.items():
            found[line] = [one.result() for one in runs]
            print_line(line, found[line])
    if given.only or given.workers or given.problem or given.seeds < SEEDS:
        return 0
    end = {line: float(np.median([run.regret[-1] for run in runs])) for line, runs in found.items()}
    mine = end["unet", "ours", 16]
    bars = [(f"regret-of-{name}-at-16", mine / end["unet", other, 16], target, False) for name, other, target in (
        ("tpe", "TPE", 0.75), ("random", "random", 0.6), ("pending-ignored", "pending ignored", 0.6))]
    bars.append(("regret-at-16-of-that-at-1", mine / end["unet", "ours", 1], 1.5, False))
    bars += [(f"{problem}-regret-of-tpe", end[problem, "ours", 16] / end[problem, "TPE", 16], 1.0, False)
             for problem in ("hartmann", "ackley")]
    return report([*bars, ("proposal-seconds-at-200-trials", late_seconds(), 0.5, False)])


def print_line(line: tuple[str, str, int], runs: list[Run]) -> None:
    """One line of the table."""
    problem, method, workers = line
    regret = np.array([run.regret for run in runs])
    ended = [np.searchsorted(run.hours, run.hours[-1] / 2, side="right") for run in runs]  # jobs, by half time
    half = [run.regret[max(0, count - 1)] for run, count in zip(runs, ended, strict=True)]
    low, high = interval(regret[:, -1])
    print(f"{problem:<9} {method:<25} {workers:>2}   " + "  ".join(f"{np.median(regret[:, jobs - 1]):.4f}"
          for jobs in (20, 40, 80)) + f" ({low:.4f} to {high:.4f})   {np.median(half):.4f}                "
          f"{np.mean([run.failed for run in runs]):>6.0%}  {np.mean([run.seconds for run in runs]):.3f}", flush=True)


if __name__ == "__main__":
    sys.exit(main())

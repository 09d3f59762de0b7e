"""The workspace: this class owns every file and folder name that Megavox writes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

DONE = "DONE"  # written last: a folder without it is unfinished and is made again


@dataclass(frozen=True)
class Workspace:
    """Paths under one workspace folder.

    Attributes:
        root: the folder.
    """

    root: Path

    @property
    def cohort(self) -> Path:
        """Table of the packed cases."""
        return self.root / "cohort.csv"

    @property
    def quarantine(self) -> Path:
        """Table of what was set aside, with reasons."""
        return self.root / "quarantine.csv"

    @property
    def splits(self) -> Path:
        """Which case stands in which part."""
        return self.root / "splits.json"

    @property
    def store(self) -> Path:
        """Folder of packed cases."""
        return self.root / "store"

    @property
    def plan(self) -> Path:
        """Derived settings, reasons and the measured probe step."""
        return self.root / "plan.json"

    @property
    def report(self) -> Path:
        """The report's folder."""
        return self.root / "report"

    @property
    def measures(self) -> Path:
        """Folder of measure tables."""
        return self.root / "measures"

    @property
    def scale(self) -> Path:
        """Folder of the measured scaling over ranks."""
        return self.root / "scale"

    @property
    def jobs(self) -> Path:
        """Folder of jobs on sites."""
        return self.root / "jobs"

    def search(self, name: str) -> SearchFolder:
        """The folder of one search."""
        return SearchFolder(self.root / "search" / name)

    def run(self, name: str) -> RunFolder:
        """The folder of one training."""
        return RunFolder(self.root / "runs" / name)

    def predictions(self, run: str) -> Path:
        """Folder of a run's predictions on the study's own cases."""
        return self.root / "predictions" / run


@dataclass(frozen=True)
class SearchFolder:
    """Paths under one search; its trials are runs like others."""

    root: Path

    @property
    def ledger(self) -> Path:
        """What was proposed and what came back, where no database keeps it."""
        return self.root / "ledger"

    @property
    def locks(self) -> Path:
        """Which command drives it."""
        return self.root / "locks"

    @property
    def report(self) -> Path:
        """The report's folder."""
        return self.root / "report"

    @property
    def best(self) -> Path:
        """A study with the best setting, part of the report."""
        return self.report / "best.yaml"


@dataclass(frozen=True)
class RunFolder:
    """Paths under one run: what was trained, how it went, and its states."""

    root: Path

    @property
    def study(self) -> Path:
        """The study with every value derived."""
        return self.root / "study.yaml"

    @property
    def recipe(self) -> Path:
        """Everything needed to predict without the cohort: model, preparation, classes."""
        return self.root / "run.json"

    @property
    def metrics(self) -> Path:
        """One JSON line per logged step or validation."""
        return self.root / "metrics.jsonl"

    @property
    def pace(self) -> Path:
        """What several ranks cost and gain, measured when the run was begun."""
        return self.root / "pace.json"

    @property
    def memory(self) -> Path:
        """What was told of the memory that it takes, and how it came out."""
        return self.root / "memory.json"

    @property
    def locks(self) -> Path:
        """Which command trains it."""
        return self.root / "locks"

    @property
    def checkpoints(self) -> Path:
        """Folder of checkpoints."""
        return self.root / "checkpoints"

    @property
    def best(self) -> Path:
        """Names the checkpoint with the best validation metric."""
        return self.checkpoints / "best.json"

    def step(self, step: int) -> Path:
        """The checkpoint of a step."""
        return self.checkpoints / f"step-{step:08d}"

    @property
    def hard(self) -> Path:
        """Where it detects in training cases what is not there: a file for each."""
        return self.root / "hard"

    @property
    def mined(self) -> Path:
        """Says that all of these are there, and what they were found with."""
        return self.hard / "done.json"

    @property
    def evaluation(self) -> Path:
        """Figures on the test part."""
        return self.root / "evaluation.json"

    @property
    def evaluation_cases(self) -> Path:
        """One line per case and class."""
        return self.root / "evaluation_cases.csv"

    @property
    def agreement(self) -> Path:
        """How far the faster setting of prediction agrees with the exact one."""
        return self.root / "agreement.json"

    @property
    def done(self) -> Path:
        """Marker of a finished training."""
        return self.root / DONE

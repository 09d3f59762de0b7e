"""A study, its workspace, and the name of the run: what every stage is given."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megavox.cohort.table import Entry, read_cohort
from megavox.core.errors import StudyError, WorkspaceError
from megavox.core.files import plain, read_json, text_hash
from megavox.core.workspace import RunFolder, Workspace
from megavox.inference.recipe import Recipe
from megavox.store.read import Store
from megavox.study import NAME, Study
from megavox.study.compare import differences


@dataclass(frozen=True)
class Project:
    """What a stage works on.

    Attributes:
        study: as the user wrote it (changed by `--set`).
        workspace: where everything is written.
        run_name: the run to train, evaluate and predict with.
    """

    study: Study
    workspace: Workspace
    run_name: str

    @classmethod
    def at(cls, study: Study, workspace: Path, run: str | None = None) -> Project:
        """A project in a workspace folder; the run is named after the study unless told otherwise.

        Raises:
            StudyError: a run cannot have that name.
        """
        if run is not None and not re.fullmatch(NAME, run):
            raise StudyError(f"found --run-name {run}", expected="letters, digits, - _ .")
        return cls(study, Workspace(workspace), run or study.name)

    @property
    def run(self) -> RunFolder:
        """The folder of the run."""
        return self.workspace.run(self.run_name)

    def agreement(self) -> dict[str, Any] | None:
        """How the faster setting that the study asks for was found to agree (see `pipeline.setting`): `enough`."""
        if self.study.inference.fast is None or not self.run.agreement.exists():
            return None
        return dict(read_json(self.run.agreement))

    def store(self) -> Store:
        """The packed cases.

        Raises:
            WorkspaceError: not packed, or packed for another study.
        """
        changed = differences(self.packing()["settings"], packing_settings(self.study))
        if changed:
            raise WorkspaceError(f"the store was packed with other settings: {changed}", where=self.workspace.store,
                                 fix="Run `megavox pack` again, use another --workspace, or bring these settings back")
        return Store(self.workspace.store)

    def packing(self) -> dict:
        """What `pack` wrote: settings, fingerprint, preparation, derived values."""
        return read_json(self._packed(self.workspace.store / "pack.json"))

    def entries(self) -> list[Entry]:
        """The packed cases with their parts.

        Raises:
            WorkspaceError: not packed, or the table was changed since.
        """
        found = read_cohort(self._packed(self.workspace.cohort))
        if split_hash(found) != self.packing()["split_hash"]:
            raise WorkspaceError("this table is not as it was packed: cases or their parts were changed, or it is cut "
                                 "off", where=self.workspace.cohort, fix="Run `megavox pack` again, which writes it")
        return found

    def _packed(self, path: Path) -> Path:
        if not path.exists():
            raise WorkspaceError("nothing is packed here yet", where=self.workspace.root,
                                 fix="Run `megavox pack` first")
        return path

    def split_hash(self) -> str:
        """Hash of which case of which subject stands in which part."""
        return split_hash(self.entries())

    def refuse_other_split(self, recipe: Recipe) -> None:
        """Refuse to go on with, or to evaluate, a run that learnt from other subjects than the split says now.

        Raises:
            WorkspaceError: cases came, went or changed their part since the run was begun.
        """
        if recipe.provenance["split_hash"] != self.split_hash():
            raise WorkspaceError("cases came, went or changed their part of the split since this run was begun, so "
                                 "its test cases may be among those it has learnt from", where=self.run.root,
                                 fix="Train again under another --run-name, or bring cohort and split back and pack "
                                 "again")


def split_hash(entries: Sequence[Entry]) -> str:
    """Hash of which case of which subject stands in which part."""
    rows = sorted(f"{e.part}/{e.case.subject}/{e.case.name}" for e in entries)
    return text_hash("\n".join(rows))[:16]


def training_settings(study: Study) -> dict[str, Any]:
    """Everything in the study that what is learnt depends on, as plain values."""
    return plain(study.model_dump(mode="json", exclude={
        "inference": True, "evaluation": True, "sites": True, "search": True,
        "training": {"memory": {"limit_gb", "compute", "slab_mb", "channels_last", "offload"}}}))


def study_hash(study: Study) -> str:
    """Hash of everything in the study that a training depends on, short."""
    return text_hash(json.dumps(training_settings(study), sort_keys=True))[:16]


def packing_hash(project: Project) -> str:
    """Hash of the settings with which a project's cases are packed, short."""
    return text_hash(json.dumps(project.packing()["settings"], sort_keys=True))[:16]


def packing_settings(study: Study) -> dict[str, Any]:
    """The parts of the study that packing depends on, as plain values."""
    parts = study.model_dump(mode="json", include={"cohort", "task", "images", "split", "seed"})
    for name in ("class_weights", "label_smoothing", "dice"):  # of the loss only
        parts["task"].pop(name, None)
    parts["images"].pop("quarantine")
    return plain(parts)

"""new: look at a folder and write a study file that is ready to train."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megavox.cohort.case import Catalogue
from megavox.cohort.layouts import LAYOUTS, recognise_folder
from megavox.cohort.survey import Survey, survey
from megavox.core.errors import CohortError
from megavox.memory.machine import this_machine
from megavox.memory.rules import Derived, derive
from megavox.study import Study
from megavox.study.write import write_commented

HEAD = ("Written by `megavox new`. Comments tell where a value was guessed or derived; everything else has a "
        "default, which `megavox study show` prints. Relative paths are relative to this file.")


@dataclass(frozen=True)
class Draft:
    """A study file and what it rests on.

    Attributes:
        text: the YAML.
        study: the same, validated.
        survey: what was found in the folder.
        catalogue: its cases, and what was set aside.
    """

    text: str
    study: Study
    survey: Survey
    catalogue: Catalogue

    @property
    def has_targets(self) -> bool:
        """Whether there is something to learn from: masks, classes or findings."""
        return any(case.masks or case.labels is not None or case.findings is not None for case in self.catalogue.cases)


def new(folder: Path) -> Draft:
    """Draft a study for a folder of images.

    Raises:
        CohortError: there is no such folder, no layout fits, or no case is usable.
    """
    folder = folder.resolve()
    layout, guess = recognise_folder(folder)
    kind = guess.task["kind"]
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", folder.name).strip("-.") or "study"
    data: dict[str, Any] = {
        "name": name, "seed": 0, "cohort": {**guess.cohort, "layout": layout, "folder": str(folder)},
        "task": guess.task, "images": dict(guess.images),
        "model": {"family": "resnet", "depth": 18} if kind == "classify" else {"family": "unet"}}
    data["cohort"] = {"layout": layout, "folder": str(folder),
                      **{k: _plain(v) for k, v in data["cohort"].items() if k not in ("layout", "folder")}}
    study = Study.model_validate(data)
    found = LAYOUTS[layout].catalogue(study.cohort, study.task).checked()
    if not found.cases:
        raise CohortError("the layout is known, but no case is usable"
                          + (f": {found.rejected[0].message}" if found.rejected else ""), where=folder)
    found.remarks = [*guess.remarks, *found.remarks]
    looked = survey(found, study.cohort, study.task)
    derived = derive(study, looked.fingerprint, this_machine())
    comments = dict(guess.comments)
    for one in derived:
        _put(data, one)
        comments[one.key] = one.why + "."
    order = ("name", "seed", "cohort", "task", "images", "batches", "model", "training")
    data = {key: data[key] for key in order if data.get(key)}
    return Draft(write_commented(data, comments, HEAD), Study.model_validate(data), looked, found)


def _put(data: dict[str, Any], one: Derived) -> None:
    place: dict[str, Any] = data
    parts = one.key.split(".")
    for part in parts[:-1]:
        place = place.setdefault(part, {})
    place[parts[-1]] = one.value


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value

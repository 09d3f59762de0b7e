"""tune: search the settings of a packed study, with trials as jobs of a site."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megavox.core.claims import Claims
from megavox.core.errors import MachineError, StudyError, WorkspaceError
from megavox.core.files import make_folder
from megavox.core.progress import say
from megavox.core.provenance import cores
from megavox.core.workspace import SearchFolder
from megavox.jobs.local import LocalSection
from megavox.jobs.registry import read_site
from megavox.jobs.section import Asked
from megavox.memory.machine import main_memory_gb
from megavox.pipeline.feasible import can_be_trained
from megavox.pipeline.plan import derived_plan
from megavox.pipeline.project import Project, packing_settings, training_settings
from megavox.pipeline.trials import Trials
from megavox.search.described import setting_of_study, space_of, with_setting
from megavox.search.driver import drive, withdraw
from megavox.search.ledger import Ledger
from megavox.search.methods import sampler_of
from megavox.search.proposer import Fits
from megavox.search.space import Choice, Setting, Space
from megavox.search.storage import answering, open_storage
from megavox.study import Study
from megavox.study.search import SearchSection
from megavox.tasks.registry import build_task

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Search:
    """A search, ready to be driven or looked at.

    Attributes:
        project: whose study is searched.
        section: the study's.
        objective: validation score.
        own: the study's own setting, where it lies in the space.
        fits: whether a setting can be trained, as far as that can be told.
        ledger: of its trials.
        trials: their work.
    """

    project: Project
    section: SearchSection
    objective: str
    own: Setting | None
    fits: Fits
    ledger: Ledger
    trials: Trials

    @property
    def place(self) -> Path | str:
        """Where its trials are kept: a file, or the URL of a database."""
        return self.section.storage or self.folder.ledger

    @property
    def folder(self) -> SearchFolder:
        """Where it is kept."""
        return self.project.workspace.search(self.project.run_name)


def search_of(project: Project, site: str, asked: Asked = Asked()) -> Search:
    """The search that a study describes, begun or gone on with.

    Raises:
        StudyError: what is to be searched makes no sense, or was begun otherwise.
        WorkspaceError: nothing is packed.
    """
    space = space_of(project.study)
    section = project.study.search
    assert section is not None, "or there were no space"
    _refuse_packing_keys(project.study, space)
    _refuse_other_dimensions(space, int(project.packing()["preparation"]["spatial_dims"]))
    here = isinstance(read_site(site, project.study.sites), LocalSection)
    planned = derived_plan(project).study if here else project.study  # another machine derives something else
    task = build_task(project.study.task, [])
    objective = section.objective or task.headline
    if objective not in task.scores:
        raise StudyError(f"there is no validation score {objective!r}", where="search.objective",
                         expected="one of " + ", ".join(map(repr, task.scores)))
    folder = project.workspace.search(project.run_name)
    make_folder(folder.root, "Choose another --workspace")
    trials = Trials(project, site, _share(project, section, site, asked), objective, task.headline)
    most_gb = trials.asked.memory_gb if planned.training.device == "cpu" and section.knowledge.memory else None
    fits = can_be_trained(project, trials.asked, most_gb)
    sampler = sampler_of(section, space, project.study.seed, fits)
    about = {"objective": objective, "cases": project.split_hash(), "study": training_settings(project.study)}
    if section.storage:  # where searches of other workspaces may have the same name
        about["workspace"] = str(project.workspace.root.absolute())
    storage = open_storage(section.storage or folder.ledger)
    ledger = Ledger(storage, space, sampler, section.goal, project.run_name, about)
    return Search(project, section, objective, setting_of_study(space, planned), fits, ledger, trials)


def _refuse_packing_keys(study: Study, space: Space) -> None:
    for name, value in space.example().items():
        if packing_settings(with_setting(study, {name: value})) != packing_settings(study):
            raise StudyError("this key cannot be searched", where=f"search.space.{name}", expected="a key that packed "
                             "cases do not depend on", fix="Pack, and search, once for each of its values")


def _refuse_other_dimensions(space: Space, dims: int) -> None:
    """A network can be built for a patch of any dimensions, so that a trial would find it out."""
    for one in space.parameters:
        for patch in one.choices if isinstance(one, Choice) and one.name == "batches.patch" else ():
            if isinstance(patch, list) and len(patch) != dims:
                raise StudyError(f"{patch} is one of its choices", where="search.space.batches.patch",
                                 expected=f"{dims} numbers each, as the images have {dims} dimensions")


def tune(search: Search, tell: Callable[[], None], leave: Callable[[], bool]) -> None:
    """Drive a search until all trials have ended, or until `leave` says so; trials go on then.

    Raises:
        WorkspaceError: another command drives it.
        StudyError: the first trials all failed.
        SiteError: the site takes no jobs.
    """
    with Claims(search.folder.locks) as claims:
        if not claims.take("tune"):
            raise WorkspaceError("another command drives this search", where=search.folder.root,
                                 fix="Let it go on, or take another --run-name for a search beside it")
        with answering(search.place):
            if search.own is not None and search.fits(search.own):
                search.ledger.begin_with(search.own)
            elif search.own is not None:
                say("note: the study's own setting is not tried: it needs too much memory by estimate, or its values "
                    "do not go together")
            drive(search.ledger, search.section, search.trials, tell, leave)


def end(search: Search) -> None:
    """End what is under way; the same command sends it again."""
    withdraw(search.ledger, search.trials)


def _share(project: Project, section: SearchSection, site: str, asked: Asked) -> Asked:
    """On this machine a trial gets its share of cores and memory, unless something else is said."""
    settings = read_site(site, project.study.sites)
    if not isinstance(settings, LocalSection):
        return asked
    wishes = settings.wishes("train", asked)
    all_cores = settings.cpus or cores()
    share: dict[str, Any] = {"cpus": wishes.cpus or max(1, all_cores // (section.workers * wishes.ranks))}
    if wishes.memory_gb is None:
        together = max(1, min(section.workers, all_cores // (share["cpus"] * wishes.ranks)))
        share["memory_gb"] = math.floor(100 * main_memory_gb() / together) / 100
    return Asked.model_validate({**asked.model_dump(exclude_unset=True), **share})


def serve(search: Search, port: int) -> None:
    """Serve Optuna's dashboard of a search to this machine alone, until Ctrl-C.

    Raises:
        MachineError: it is not installed, or the port is taken.
    """
    try:
        from optuna_dashboard import run_server
    except ImportError:
        raise MachineError("Optuna's dashboard is not installed", fix="pip install optuna-dashboard, or Megavox with "
                           "the extra `search`") from None
    say(f"the dashboard is http://{LOOPBACK}:{port}; Ctrl-C ends it")
    try:
        run_server(search.ledger.storage, host=LOOPBACK, port=port)
    except OSError as error:
        raise MachineError(f"the dashboard cannot be served: {error.strerror}", where=f"port {port}",
                           fix="Take another --port") from error

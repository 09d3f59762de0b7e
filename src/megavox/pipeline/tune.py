"""tune: search the settings of a packed study, with trials as jobs of a site."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megavox.cohort.survey import Fingerprint
from megavox.core.claims import Claims
from megavox.core.errors import MachineError, StudyError, WorkspaceError
from megavox.core.files import make_folder
from megavox.core.progress import say
from megavox.core.provenance import cores
from megavox.core.workspace import SearchFolder
from megavox.jobs.local import LocalSection
from megavox.jobs.registry import read_site
from megavox.jobs.section import Asked
from megavox.memory.estimate import Kept, kept, training_gb
from megavox.memory.machine import main_memory_gb, this_machine
from megavox.memory.rules import apply, derive
from megavox.pipeline.plan import derived_plan
from megavox.pipeline.project import Project
from megavox.pipeline.trials import Trials
from megavox.search.described import setting_of_study, space_of, with_setting
from megavox.search.driver import drive, withdraw
from megavox.search.ledger import Ledger
from megavox.search.methods import sampler_of
from megavox.search.space import Setting
from megavox.search.storage import answering, open_storage
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
        ledger: of its trials.
        trials: their work.
    """

    project: Project
    section: SearchSection
    objective: str
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
    planned = derived_plan(project).study
    assert section is not None, "or there were no space"
    objective = section.objective or build_task(project.study.task, []).headline
    folder = project.workspace.search(project.run_name)
    make_folder(folder.root, "Choose another --workspace")
    asked = _share(project, section, site, asked)
    trials = Trials(project, site, asked, objective)
    sampler = sampler_of(section, space, project.study.seed,
                         _fits(project, section, str(planned.training.device), trials.asked))
    ledger = Ledger(open_storage(section.storage or folder.ledger), space, sampler, section.goal, project.run_name)
    own = setting_of_study(space, planned)
    if own is not None:
        ledger.begin_with(own)
    return Search(project, section, objective, ledger, trials)


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
    share: dict[str, Any] = {}
    if wishes.cpus is None:
        share["cpus"] = max(1, (settings.cpus or cores()) // (section.workers * wishes.ranks))
    if wishes.memory_gb is None:
        share["memory_gb"] = round(main_memory_gb() / section.workers, 2)
    return Asked.model_validate({**asked.model_dump(exclude_unset=True), **share})


def _fits(project: Project, section: SearchSection, device: str, asked: Asked) -> Callable[[Setting], bool]:
    """Tells whether a setting makes a network that can be, and where that can be told, whether it has enough memory.

    What a site's GPUs have is not known here: a trial that needs more fails there, and teaches.
    """
    facts, machine = Fingerprint.from_dict(project.packing()["fingerprint"]), this_machine()
    task, channels = build_task(project.study.task, []), int(project.packing()["preparation"]["channels"])
    known = asked.memory_gb is not None and device == "cpu" and section.knowledge.memory
    each_gb = asked.memory_gb * asked.nodes / asked.ranks if known and asked.memory_gb else math.inf
    counted: dict[str, Kept] = {}

    def fits(setting: Setting) -> bool:
        try:
            study = with_setting(project.study, setting)
            study = apply(study, derive(study, facts, machine))
            key = f"{study.model.model_dump_json()} {study.batches.patch}"
            if key not in counted:
                counted[key] = kept(study.model, task, study.batches.patch, channels)  # type: ignore[arg-type]
        except StudyError:  # these values do not go together
            return False
        samples = math.ceil(int(study.batches.size) / asked.ranks / study.training.accumulate)
        return training_gb(counted[key], samples, study.training) <= each_gb

    return fits


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

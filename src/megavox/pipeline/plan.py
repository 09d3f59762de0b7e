"""plan: what `auto` becomes, why, and what a step really costs here."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

import torch

from megavox.cohort.survey import Fingerprint
from megavox.core.files import write_json
from megavox.core.progress import busy, say
from megavox.core.provenance import provenance
from megavox.memory.large_batch import large_batch
from megavox.memory.machine import this_machine
from megavox.memory.probe import Probe, probe
from megavox.memory.rules import Derived, apply, derive
from megavox.pipeline.augment_on import place_augmentation
from megavox.pipeline.fit import Fit, fit_here
from megavox.pipeline.project import Project, study_hash
from megavox.pipeline.workshop import Workshop
from megavox.study import AUTO, Study
from megavox.training.parallel import Ranks, ranks

PROBE_S = 5.0


@dataclass(frozen=True)
class Plan:
    """The study with nothing left at `auto`, and the reasons.

    Attributes:
        study: every value derived.
        derived: what was derived.
        fit: how the training is made to fit the memory; None before that was told.
        probe: what a step costs; None where it was not measured.
    """

    study: Study
    derived: list[Derived]
    fit: Fit | None = None
    probe: Probe | None = None

    def with_more(self, derived: list[Derived]) -> Plan:
        """The plan with further values derived."""
        return replace(self, study=apply(self.study, derived), derived=[*self.derived, *derived])


def plan(project: Project, most_gb: float | None = None, count: int = 1) -> Plan:
    """Derive every value, tell what memory a step takes, measure a probe step, and write plan.json.

    Args:
        project: packed.
        most_gb: memory of a rank for which to plan, here or on another machine, where no step is measured; None: what
            there is here.
        count: ranks that share a batch on that machine.

    Raises:
        StudyError: a step does not fit.
    """
    found = derived_plan(project)
    if most_gb is not None:
        elsewhere = Ranks(0, count, torch.device(str(found.study.training.device)))
        found = _fitting(project, found.with_more(scaled(found.study, elsewhere)), elsewhere, most_gb)
    else:
        with ranks(str(found.study.training.device)) as here:
            found = found.with_more(scaled(found.study, here))
            found = _fitting(project, found, here, most_gb)
            found = found.with_more(place_augmentation(project, found.study, here))
            workshop = Workshop(project, found.study)
            with busy("measuring a training step"):
                found = replace(found, probe=probe(workshop.training(here), here, PROBE_S))
    write_json(project.workspace.plan, {
        "study_hash": study_hash(project.study), "study": found.study.model_dump(mode="json"),
        "derived": [asdict(one) for one in found.derived], "memory": found.fit and asdict(found.fit),
        "probe": found.probe and asdict(found.probe),
        "provenance": provenance(study_hash(project.study), project.study.seed)})
    return found


def _fitting(project: Project, found: Plan, here: Ranks, most_gb: float | None) -> Plan:
    fit = fit_here(project, found.study, here, most_gb)
    return found if fit is None else replace(found.with_more(fit.derived(found.study)), fit=fit)


def derived_plan(project: Project) -> Plan:
    """The plan for this cohort on this machine, without a probe."""
    project.store()  # refuses a store that was packed for other settings
    facts = Fingerprint.from_dict(project.packing()["fingerprint"])
    derived = derive(project.study, facts, this_machine())
    return Plan(apply(project.study, derived), derived)


def scaled(study: Study, here: Ranks) -> list[Derived]:
    """What the recipe for large batches changes, which the first rank tells."""
    wish, groups = study.training.scale, study.training.ranks.groups(here.count)
    found = large_batch(study, groups if wish == AUTO else wish)
    if here.first:
        for one in found:
            say(f"{one.key} = {one.value}: {one.why}")
    return found

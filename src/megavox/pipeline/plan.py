"""plan: what `auto` becomes, why, and what a step really costs here."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

from megavox.cohort.survey import Fingerprint
from megavox.core.files import write_json
from megavox.core.progress import busy, say
from megavox.core.provenance import provenance
from megavox.memory.large_batch import large_batch
from megavox.memory.machine import this_machine
from megavox.memory.probe import Probe, probe
from megavox.memory.rules import Derived, apply, derive
from megavox.pipeline.augment_on import place_augmentation
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
        probe: what a step costs; None before it was measured.
    """

    study: Study
    derived: list[Derived]
    probe: Probe | None

    def with_more(self, derived: list[Derived]) -> Plan:
        """The plan with further values derived."""
        return replace(self, study=apply(self.study, derived), derived=[*self.derived, *derived])


def plan(project: Project) -> Plan:
    """Derive every value, measure a probe step, and write plan.json."""
    found = derived_plan(project)
    with ranks(str(found.study.training.device)) as here:
        found = found.with_more(scaled(found.study, here))
        found = found.with_more(place_augmentation(project, found.study, here))
        workshop = Workshop(project, found.study)
        with busy("measuring a training step"):
            measured = probe(workshop.training(here), here, PROBE_S)
    found = Plan(found.study, found.derived, measured)
    write_json(project.workspace.plan, {
        "study_hash": study_hash(project.study), "study": found.study.model_dump(mode="json"),
        "derived": [asdict(one) for one in found.derived], "probe": asdict(measured),
        "provenance": provenance(study_hash(project.study), project.study.seed)})
    return found


def derived_plan(project: Project) -> Plan:
    """The plan for this cohort on this machine, without a probe."""
    project.store()  # refuses a store that was packed for other settings
    facts = Fingerprint.from_dict(project.packing()["fingerprint"])
    derived = derive(project.study, facts, this_machine())
    return Plan(apply(project.study, derived), derived, None)


def scaled(study: Study, here: Ranks) -> list[Derived]:
    """What the recipe for large batches changes, which the first rank tells."""
    wish = study.training.scale
    found = large_batch(study, here.count if wish == AUTO else wish)
    if here.first:
        for one in found:
            say(f"{one.key} = {one.value}: {one.why}")
    return found

"""pack: images and targets -> store, cohort.csv, quarantine.csv, splits.json."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass

import numpy as np

from megavox.cohort.case import Case, Catalogue, Rejected, write_quarantine
from megavox.cohort.checks import duplicates, outliers
from megavox.cohort.drawn import one_mask_a_class
from megavox.cohort.layouts import LAYOUTS
from megavox.cohort.splits import refuse_shared_subjects, split
from megavox.cohort.survey import Fingerprint, survey
from megavox.cohort.table import Entry, write_cohort
from megavox.core.errors import CohortError, StudyError, WorkspaceError
from megavox.core.files import make_folder, plain, read_json, write_json
from megavox.core.progress import say
from megavox.core.provenance import cores, provenance
from megavox.core.signals import Stop, Stopped
from megavox.images.prepare import Preparation
from megavox.memory.rules import Derived, apply, derive_images
from megavox.pipeline.project import Project, packing_settings, split_hash, study_hash
from megavox.store.build import build_store, packed_cases, write_index
from megavox.store.layout import Record
from megavox.study import Study
from megavox.study.compare import differences


@dataclass(frozen=True)
class Packed:
    """What packing gave.

    Attributes:
        entries: the packed cases.
        rejected: what was set aside.
        remarks: what is odd but harmless.
    """

    entries: list[Entry]
    rejected: list[Rejected]
    remarks: list[str]

    def parts(self) -> dict[str, int]:
        """Cases in each part of the split."""
        return dict(Counter(entry.part for entry in self.entries))

    def reasons(self) -> dict[str, int]:
        """How often each reason of quarantine."""
        return dict(Counter(one.reason for one in self.rejected).most_common())


def pack(project: Project) -> Packed:
    """Pack the study's cohort; cases packed before with the same settings are kept unless they are damaged.

    Raises:
        CohortError: no case is left, or any was set aside and the study says `quarantine: refuse`.
        MachineError: the workspace cannot be written.
        Stopped: a signal asked to stop.
    """
    store = project.workspace.store
    with Stop("stopping") as stop:
        try:
            return _pack(project, stop.check)
        except Stopped as stopped:  # now that no worker packs any more, count
            raise Stopped(f"stopped; {packed_cases(store)} cases are packed in {store} and the same command goes on "
                          "with the others", stopped.status) from None


def _pack(project: Project, check: Callable[[], None]) -> Packed:
    study, workspace = project.study, project.workspace
    make_folder(workspace.root, "Choose another place with --workspace")
    catalogue = catalogue_of(study)
    facts = survey(catalogue, study.cohort, study.task, check=check)
    derived = list(derive_images(study, facts.fingerprint))
    preparation = preparation_of(apply(study, derived), facts.fingerprint)
    remarks = [*catalogue.remarks, *facts.fingerprint.remarks]
    _discard_other_store(project, preparation)
    records, bad = build_store(
        workspace.store, catalogue.cases, preparation, study.task, seed=study.seed, workers=cores(), check=check,
        one_mask_a_class=study.task.kind == "segment" and one_mask_a_class(study.cohort, study.task))
    cases = [case for case in catalogue.cases if case.name in records]
    found = [records[case.name] for case in cases]
    bad += duplicates(cases, [one.pixel_hash for one in found], [one.mask_hash for one in found])
    normalise = apply(study, derived).images.normalise
    odd, remark = _outliers(cases, records, normalise)
    if normalise in ("hu", "none"):
        bad += odd
    else:
        remarks += remark
    rejected = [*catalogue.rejected, *bad]
    gone = {one.case for one in bad}
    cases = [case for case in cases if case.name not in gone]
    write_quarantine(workspace.quarantine, rejected)
    if not cases or (rejected and study.images.quarantine == "refuse"):
        raise CohortError(f"{len(rejected)} cases were set aside and {len(cases)} are left", where=workspace.quarantine,
                          fix="Read the reasons in that table"
                          + ("" if not cases else "; `images.quarantine: continue` goes on without them"))
    entries = _split(study, cases, records)
    _write(project, entries, records, facts.fingerprint, preparation, derived)
    return Packed(entries, rejected, remarks)


def catalogue_of(study: Study) -> Catalogue:
    """The cases that the study's layout finds.

    Raises:
        CohortError: none, or two of one name.
    """
    found = LAYOUTS[study.cohort.layout].catalogue(study.cohort, study.task).checked()
    if not found.cases:
        first = f"; the first reason: {found.rejected[0].message}" if found.rejected else ""
        raise CohortError(f"no usable case ({len(found.rejected)} were set aside{first})", where=study.cohort.folder)
    return found


def preparation_of(study: Study, facts: Fingerprint) -> Preparation:
    """How images are prepared, from a study whose images section is derived.

    Raises:
        StudyError: spacing or size of another number of dimensions than the images.
    """
    images = study.images
    spacing = images.spacing_mm
    for name, value in (("size", images.size), ("spacing_mm", spacing)):
        if isinstance(value, list) and len(value) != facts.spatial_dims:
            raise StudyError(f"images.{name} is {value}", expected=f"{facts.spatial_dims} numbers, since the images "
                             "have so many dimensions")
    return Preparation(facts.spatial_dims, len(images.channels),
                       tuple(spacing) if isinstance(spacing, list) else None,
                       tuple(images.size) if images.size else None, images.grey)


def _discard_other_store(project: Project, preparation: Preparation) -> None:
    """Cases packed with another preparation, task or seed are of no use.

    Raises:
        WorkspaceError: they are of another cohort, and somebody may want them still.
    """
    marker = project.workspace.store / "settings.json"
    task = project.study.task.model_dump(mode="json", exclude={"class_weights", "label_smoothing"})
    wanted = plain({"preparation": preparation.to_dict(), "task": task, "seed": project.study.seed})
    before = None
    if marker.exists():
        with suppress(WorkspaceError):  # damaged: it is not known what the cases were packed with
            before = read_json(marker)
    if before == wanted:
        return
    count = packed_cases(project.workspace.store)
    if count:
        _refuse_other_cohort(project, count)
        why = differences(before, wanted) if isinstance(before, dict) else f"{marker} is damaged or gone"
        say(f"{count} cases packed before are of no use and are packed again: {why}")
    shutil.rmtree(project.workspace.store, ignore_errors=True)
    write_json(marker, wanted)


def _refuse_other_cohort(project: Project, count: int) -> None:
    packed = project.workspace.store / "pack.json"
    cohort = read_json(packed)["settings"]["cohort"] if packed.exists() else None
    now = packing_settings(project.study)["cohort"]
    if cohort is not None and (cohort["layout"], cohort["folder"]) != (now["layout"], now["folder"]):
        raise WorkspaceError(f"{count} cases of another cohort are packed here, from {cohort['folder']}",
                             where=project.workspace.root, fix="Give each study a --workspace of its own; or, if they "
                             "are of no use any more, remove that folder")


def _outliers(cases: list[Case], records: dict[str, Record], normalise: str) -> tuple[list[Rejected], list[str]]:
    """Intensities far from the cohort's: what to set aside where they are absolute, else a remark."""
    statistics = [records[case.name].intensities[0] for case in cases]
    found = outliers([one["p995"] - one["p005"] for one in statistics])
    if not found:
        return [], []
    rejected = [Rejected(cases[i].name, cases[i].subject, str(cases[i].images[0][0]), "intensity",
                         f"The range of intensities is {factor:.3g} times the cohort's median. With images.normalise: "
                         f"{normalise} intensities are absolute, so this image is of another kind or badly scaled.")
                for i, factor in found]
    factors = sorted(factor for _, factor in found)
    what = (f"1 image has a range of intensities {factors[0]:.3g} times" if len(found) == 1 else
            f"{len(found)} images have a range of intensities {factors[0]:.3g} to {factors[-1]:.3g} times")
    return rejected, [f"{what} the cohort's median, e.g. {cases[found[0][0]].name}; each image is normalised by "
                      "itself and kept"]


def _split(study: Study, cases: list[Case], records: dict[str, Record]) -> list[Entry]:
    classes = study.task.names
    if study.task.kind == "classify":
        strata = np.array([[name in (case.labels or ()) for name in classes] for case in cases], float)
    else:
        strata = np.array([[count > 0 for count in records[case.name].voxels] for case in cases], float)
    section = study.split
    parts = split([case.subject for case in cases], strata, test=section.test, validation=section.validation,
                  folds=section.folds, fold=section.fold, seed=study.seed)
    entries = []
    for case, part in zip(cases, parts, strict=True):
        record = records[case.name]
        entries.append(Entry(case, record.key, part, " x ".join(map(str, record.shape[1:])),
                             " x ".join(f"{v:.4g}" for v in record.spacing_mm), "; ".join(record.remarks)))
    return entries


def _write(project: Project, entries: list[Entry], records: dict[str, Record], facts: Fingerprint,
           preparation: Preparation, derived: list[Derived]) -> None:
    workspace, study = project.workspace, project.study
    write_cohort(workspace.cohort, entries)
    refuse_shared_subjects([entry.case.subject for entry in entries], [entry.part for entry in entries])
    write_json(workspace.splits, {
        "seed": study.seed, **{part: [entry.case.name for entry in entries if entry.part == part]
                               for part in ("train", "validation", "test")}})
    write_index(workspace.store, [records[entry.case.name] for entry in entries])
    write_json(workspace.store / "pack.json", {
        "settings": packing_settings(study), "split_hash": split_hash(entries),
        "fingerprint": facts.to_dict(),
        "preparation": preparation.to_dict(), "derived": [asdict(one) for one in derived],
        "provenance": provenance(study_hash(study), study.seed)})

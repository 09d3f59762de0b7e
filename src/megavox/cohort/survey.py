"""What a cohort looks like, from image headers and a few masks: the fingerprint that rules work from.

Voxels of images are not read. Of large cohorts an evenly spaced sample is looked at, and the
fingerprint says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from megavox.cohort.case import Case, Catalogue, Rejected
from megavox.cohort.drawn import drawn, one_mask_a_class
from megavox.cohort.layouts.samples import evenly
from megavox.core.errors import CohortError, ImageError
from megavox.core.progress import track
from megavox.images.formats import describe_image, read_image
from megavox.images.image import COLOURS, Description
from megavox.images.reorient import lps_geometry

if TYPE_CHECKING:
    from megavox.study.cohort import CohortSection
    from megavox.study.sections import TaskSection

MOST_MASKS = 50
FAR_OFF = 3.0  # an extent so many times the median, or a part of it, is remarked on


@dataclass(frozen=True)
class ClassCount:
    """How often a class occurs.

    Attributes:
        cases: cases with the class, among `of`.
        of: cases looked at (of which it is known).
        share: to segment, median part of the voxels in cases that have it; else None.
    """

    cases: int
    of: int
    share: float | None = None


@dataclass
class Fingerprint:
    """Facts of a cohort; JSON-able by `to_dict` and `from_dict`.

    Attributes:
        n_cases: cases of the catalogue.
        n_subjects: their subjects.
        n_read: cases whose headers were read and agree with `spatial_dims`.
        spatial_dims: 2 or 3, what most cases have.
        channels: channels of most cases, colours counted as 3.
        colour: whether most pictures are stored as red, green and blue.
        shapes: `(Z, Y, X)` of each case read, volumes turned to LPS; Z is 1 in 2D.
        spacings_mm: `(z, y, x)` voxel spacing of each case read, likewise; 1 where uncalibrated.
        dtypes, modalities, orientations: value -> cases; orientations as `Geometry.axis_codes`.
        modality: what most cases have, "" where the files do not say.
        calibrated: whether each case read has a voxel size in mm.
        classes: class name -> how often.
        remarks: what is odd, as sentences.
    """

    n_cases: int
    n_subjects: int
    n_read: int
    spatial_dims: int
    channels: int
    colour: bool
    shapes: list[list[int]]
    spacings_mm: list[list[float]]
    dtypes: dict[str, int]
    modality: str
    modalities: dict[str, int]
    orientations: dict[str, int]
    calibrated: list[bool]
    classes: dict[str, ClassCount]
    remarks: list[str] = field(default_factory=list)

    @property
    def mostly_calibrated(self) -> bool:
        """Whether more than half of the cases have a voxel size in mm."""
        return sum(self.calibrated) > len(self.calibrated) / 2

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Fingerprint:
        """Inverse of `to_dict`."""
        return cls(**{**value, "classes": {name: ClassCount(**count) for name, count in value["classes"].items()}})


@dataclass
class Survey:
    """A fingerprint, and the cases whose headers could not be read."""

    fingerprint: Fingerprint
    rejected: list[Rejected] = field(default_factory=list)

    def to_table(self) -> list[tuple[str, str]]:
        """Rows (what, value) for printing."""
        facts = self.fingerprint
        sample = "" if facts.n_read == facts.n_cases else f" ({facts.n_read} looked at)"
        axes = slice(0, 3) if facts.spatial_dims == 3 else slice(1, 3)
        order = "z, y, x" if facts.spatial_dims == 3 else "y, x"
        rows = [("cases", f"{facts.n_cases} of {facts.n_subjects} subjects{sample}"),
                ("dimensions", f"{facts.spatial_dims}D, {facts.channels} channel{'s' * (facts.channels != 1)}"
                               + (" (red, green, blue)" if facts.colour else "")),
                (f"size {order}", _range(np.asarray(facts.shapes)[:, axes], 0)),
                (f"spacing {order} in mm", _range(np.asarray(facts.spacings_mm)[:, axes], 3)
                 if all(facts.calibrated) else "not known for all (pixels)"),
                ("voxel type", _counts(facts.dtypes)),
                ("modality", _counts(facts.modalities))]
        if facts.spatial_dims == 3:
            rows.append(("axes x, y, z grow to", _counts(facts.orientations)))
        for name, count in facts.classes.items():
            share = "" if count.share is None else f", median {100 * count.share:.2g} % of the voxels"
            rows.append((f"class {name}", f"{count.cases} of {count.of} cases{share}"))
        if self.rejected:
            rows.append(("headers not readable", f"{len(self.rejected)} cases"))
        return rows + [("remark", remark) for remark in facts.remarks]


def _range(values: np.ndarray, digits: int) -> str:
    """`min - median - max` of each column."""
    low, middle, high = values.min(axis=0), np.median(values, axis=0), values.max(axis=0)
    if np.allclose(low, high):
        return " x ".join(f"{round(float(v), digits):g}" for v in middle)
    return "  ".join(f"{a:g}..{b:g}..{c:g}" for a, b, c in zip(
        *(np.round(v.astype(float), digits) for v in (low, middle, high)), strict=True)) + "  (least..median..most)"


def _counts(counts: dict[str, int]) -> str:
    if len(counts) == 1:
        return next(iter(counts)) or "not said"
    return ", ".join(f"{name or 'not said'} {count}" for name, count in counts.items())


def survey(catalogue: Catalogue, section: CohortSection, task: TaskSection, *, most: int = 2000,
           check: Callable[[], None] = lambda: None) -> Survey:
    """Read the headers of at most `most` cases, and up to 50 masks.

    Args:
        catalogue: the cases.
        section: the `cohort:` section; says whether there is one mask a class.
        task: the `task:` section; says which classes there are.
        most: beyond so many cases, an evenly spaced sample of that size.
        check: called before each case; what it raises ends the survey.

    Raises:
        CohortError: no case, or no header that can be read.
    """
    chosen = evenly(catalogue.cases, most)
    described: list[tuple[Case, list[Description]]] = []
    rejected: list[Rejected] = []
    for case in track(chosen, "looking", total=len(chosen)):
        check()
        try:
            described.append((case, [describe_image(_one_or_many(files)) for files in case.images]))
        except ImageError as error:
            rejected.append(Rejected.from_error(error, case.name, case.subject, str(case.images[0][0])))
    if not described:
        first = f"; the first: {rejected[0].message}" if rejected else ""
        raise CohortError(f"none of {len(chosen)} cases has a header that can be read{first}",
                          fix="Check cohort.folder in the study file")
    dims = _most([len(parts[0].shape) - 1 for _, parts in described])
    usual = [(case, parts) for case, parts in described if len(parts[0].shape) - 1 == dims]
    facts = _facts(catalogue, dims, usual)
    facts.remarks += _remarks(facts, [case for case, _ in usual], len(described) - len(usual))
    if len(chosen) < len(catalogue.cases):
        facts.remarks.insert(0, f"an evenly spaced sample of {len(chosen)} of {len(catalogue.cases)} cases")
    readable = [case for case, _ in usual]
    facts.classes = (_labelled(catalogue.cases, task.names) if task.kind == "classify"
                     else _marked(catalogue.cases, task.finding) if task.kind == "detect"
                     else _masked(readable, section, task))
    return Survey(facts, rejected)


def _one_or_many(files: Sequence[Path]) -> Path | Sequence[Path]:
    return files[0] if len(files) == 1 else files


def _most(values: Sequence[Any]) -> Any:
    return Counter(values).most_common(1)[0][0]


def _tally(values: list[str]) -> dict[str, int]:
    return dict(Counter(values).most_common())


def _facts(catalogue: Catalogue, dims: int, usual: list[tuple[Case, list[Description]]]) -> Fingerprint:
    firsts = [parts[0] for _, parts in usual]
    grids = [lps_geometry(part.geometry) if dims == 3 else part.geometry for part in firsts]
    modalities = _tally([part.modality for part in firsts])
    return Fingerprint(
        n_cases=len(catalogue.cases), n_subjects=len({case.subject for case in catalogue.cases}),
        n_read=len(usual), spatial_dims=dims,
        channels=_most([sum(part.shape[0] for part in parts) for _, parts in usual]),
        colour=_most([tuple(part.channels) == COLOURS for part in firsts]),
        shapes=[list(grid.shape) for grid in grids], spacings_mm=[list(grid.spacing_zyx) for grid in grids],
        dtypes=_tally([part.dtype for part in firsts]), modality=next(iter(modalities)), modalities=modalities,
        orientations=_tally([part.geometry.axis_codes() for part in firsts]),
        calibrated=[part.geometry.calibrated for part in firsts], classes={})


def _remarks(facts: Fingerprint, cases: list[Case], other_dims: int) -> list[str]:
    remarks = []
    if other_dims:
        remarks.append(f"{other_dims} cases are not {facts.spatial_dims}D as the others are")
    if len(facts.dtypes) > 1:
        remarks.append(f"voxel types differ: {_counts(facts.dtypes)}")
    if len(facts.modalities) > 1:
        remarks.append(f"modalities differ: {_counts(facts.modalities)}")
    if facts.spatial_dims == 3 and len(facts.orientations) > 1:
        remarks.append(f"orientations differ: {_counts(facts.orientations)}")
    spacings = np.asarray(facts.spacings_mm)
    if facts.mostly_calibrated and not all(facts.calibrated):
        missing = [case.name for case, known in zip(cases, facts.calibrated, strict=True) if not known]
        remarks.append(f"{len(missing)} images have no voxel size in mm, e.g. {missing[0]}; they are set aside where "
                       "images are resampled")
    if all(facts.calibrated) and np.any(spacings.max(axis=0) > 1.05 * spacings.min(axis=0)):
        remarks.append("voxel spacings differ by more than 5 %")
    extents = np.asarray(facts.shapes) * spacings
    ratio = extents / np.median(extents, axis=0)
    far = np.flatnonzero(((ratio > FAR_OFF) | (ratio < 1 / FAR_OFF)).any(axis=1))
    if len(far):
        remarks.append(f"{len(far)} images are more than {FAR_OFF:g} times larger or smaller than the median along "
                       f"an axis, e.g. {cases[far[0]].name} with {facts.shapes[far[0]]} voxels")
    return remarks


def _labelled(cases: list[Case], names: list[str]) -> dict[str, ClassCount]:
    known = [case for case in cases if case.labels is not None]
    return {name: ClassCount(cases=sum(name in (case.labels or ()) for case in known),
                             of=sum(name not in case.unknown for case in known)) for name in names}


def _marked(cases: list[Case], finding: str) -> dict[str, ClassCount]:
    known = [case.findings for case in cases if case.findings is not None]
    return {finding: ClassCount(cases=sum(any(one.counts for one in found) for found in known), of=len(known))}


def _masked(cases: list[Case], section: CohortSection, task: Any) -> dict[str, ClassCount]:
    """Shares of each class in an evenly spaced choice of masks; a mask that cannot be read is passed over."""
    shares: dict[str, list[float]] = {name: [] for name in task.names}
    for case in evenly([case for case in cases if case.masks], MOST_MASKS):
        try:
            masks = [read_image(path).array for path in case.masks]
        except ImageError:
            continue
        if one_mask_a_class(section, task):
            areas = dict(zip(task.names, map(drawn, masks), strict=True))
        else:
            areas = {name: np.isin(masks[0], values) for name, values in task.classes.items()}
        for name, area in areas.items():
            shares[name].append(float(area.mean()))
    return {name: ClassCount(cases=sum(s > 0 for s in found), of=len(found),
                             share=float(np.median([s for s in found if s > 0])) if any(found) else None)
            for name, found in shares.items()}

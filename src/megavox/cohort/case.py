"""What a cohort is made of: cases, and what had to be set aside, with the reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from megavox.core.errors import CohortError, ImageError
from megavox.core.files import write_csv

UNKNOWN_DIAMETER_MM = 10.0  # of a finding whose diameter is negative, as LUNA16 takes it
Files = tuple[Path, ...]  # the file of one channel, or all files of one DICOM series


@dataclass(frozen=True)
class Finding:
    """Something marked in an image.

    Attributes:
        centre_mm: where, in LPS world mm.
        diameter_mm: how large; negative where that is not known.
        counts: false for what was marked but is neither to be found nor wrong to find (LUNA16's excluded findings).
    """

    centre_mm: tuple[float, float, float]
    diameter_mm: float
    counts: bool = True


@dataclass(frozen=True)
class Case:
    """One subject at one session: what is split, predicted and measured.

    Attributes:
        name: unique in the cohort and safe as a file name.
        subject: who; splits never part one subject's cases.
        session: which visit ("" where there is one only).
        images: the files of each channel.
        masks: mask files, drawn in order (one, or one a class); empty to classify.
        labels: class names that hold for this case; None where the target is unknown.
        unknown: class names of which it is not known whether they hold (multi-label).
        findings: what is marked in the image, () where nothing is; None where the target is no findings.
    """

    name: str
    subject: str
    session: str
    images: tuple[Files, ...]
    masks: tuple[Path, ...] = ()
    labels: tuple[str, ...] | None = None
    unknown: tuple[str, ...] = ()
    findings: tuple[Finding, ...] | None = None


@dataclass(frozen=True)
class Rejected:
    """A file or case set aside: a line of quarantine.csv."""

    case: str
    subject: str
    file: str
    reason: str
    message: str

    @classmethod
    def from_error(cls, error: ImageError, case: str = "", subject: str = "", file: str = "") -> Rejected:
        """A line from a typed error."""
        return cls(case, subject, file or error.where, error.reason, str(error))


def write_quarantine(path: Path, rejected: Iterable[Rejected]) -> None:
    """Write quarantine.csv: what was set aside, with the reason."""
    write_csv(path, [item.name for item in fields(Rejected)], map(asdict, rejected))


@dataclass
class Catalogue:
    """What a layout found: cases, what was set aside, and what is odd but harmless."""

    cases: list[Case] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def checked(self) -> Catalogue:
        """Itself, after checking that names are unique.

        Raises:
            CohortError: two cases of one name.
        """
        counts = Counter(case.name for case in self.cases)
        twice = sorted(name for name, count in counts.items() if count > 1)
        if twice:
            raise CohortError(f"{len(twice)} case names stand twice, e.g. {twice[0]!r}",
                              fix="Give the files different names, or name a session column")
        return self

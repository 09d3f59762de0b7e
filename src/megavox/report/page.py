"""Write the report: one folder with `index.html` and `figures/` that opens from disk with no network.

The folder appears whole or not at all. The same content gives the same bytes. All text comes from
files and file names and is escaped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from megavox.core.files import whole_folder
from megavox.report import wording
from megavox.report.content import ReportContent
from megavox.report.figures import case_pictures, result_figures, training_figure
from megavox.report.reasons import reason_words
from megavox.report.tables import (
    case_table,
    classification_tables,
    detection_tables,
    measure_table,
    segmentation_tables,
)

INDEX = "index.html"
TABLES = {"segment": segmentation_tables, "classify": classification_tables, "detect": detection_tables}


@dataclass(frozen=True)
class _Reason:
    """Quarantined files of one reason."""

    title: str
    meaning: str
    rows: list[Mapping[str, str]]


def write_report(folder: Path, content: ReportContent) -> Path:
    """Write the report; a report that is there already is replaced.

    Args:
        folder: of the report; everything in it is replaced.
        content: what to show.

    Returns:
        Path of `index.html`.

    Raises:
        MachineError: the disk is full.
    """
    training, results, cases = training_figure(content), result_figures(content), case_pictures(content)
    html = template("report.html.j2").render(
        c=content, answer=_answer(content), training=training, results=results, pictures=cases,
        tables=TABLES[content.kind](content.evaluation) if content.evaluation else [],
        case_table=case_table(content), measure_table=measure_table(content.measures),
        reasons=_by_reason(content.quarantine), provenance=flat(content.provenance), w=wording)
    with whole_folder(folder) as temporary:
        (temporary / "figures").mkdir()
        for drawing in (training, *results, *(case.drawing for case in cases)):
            if drawing.file:
                (temporary / "figures" / drawing.file).write_bytes(drawing.data)
        (temporary / INDEX).write_text(html, encoding="utf-8")
    return folder / INDEX


def template(name: str) -> Any:
    """A page's template; whatever it is given is escaped."""
    environment = Environment(loader=PackageLoader("megavox.report"), autoescape=True, undefined=StrictUndefined,
                              trim_blocks=True, lstrip_blocks=True)
    return environment.get_template(name)


def _answer(content: ReportContent) -> str:
    """The study's result in one sentence."""
    if not content.headline or not content.evaluation:
        return "The model has not been evaluated on test cases yet."
    first = content.headline[0]
    shown = wording.shown(first.measured, first.unit)
    cases, subjects = content.evaluation.get("n_cases", 0), content.evaluation.get("n_subjects", 0)
    who = f"{wording.plural(cases, 'test case')} from {wording.plural(subjects, 'subject')}"
    if not shown.value:
        return f"{first.label} could not be determined on {who}: {shown.reason}."
    unit = f" {first.unit}" if first.unit else ""
    interval = f" (95 % interval {shown.interval})" if shown.interval else ""
    return f"On {who}, {_uncapitalised(first.label)} was {shown.value}{unit}{interval}."


def _uncapitalised(text: str) -> str:
    """The text as it goes on within a sentence; abbreviations such as AUROC keep their capitals."""
    return text[:1].lower() + text[1:] if text[1:2].islower() and not text.startswith("Dice") else text


def _by_reason(rows: Sequence[Mapping[str, str]]) -> list[_Reason]:
    """Quarantined files by reason, the most frequent first."""
    groups: dict[str, list[Mapping[str, str]]] = {}
    for row in rows:
        groups.setdefault(row["reason"], []).append(row)
    ordered = sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
    return [_Reason(*reason_words(reason), members) for reason, members in ordered]


def flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested provenance as rows of (name, text)."""
    rows: list[tuple[str, str]] = []
    for key, value in values.items():
        name = f"{prefix}{str(key).replace('_', ' ')}"
        rows += flat(value, f"{name}: ") if isinstance(value, Mapping) else [(name, wording.cell(value))]
    return rows

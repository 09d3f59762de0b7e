"""The report's tables as rows of text, ready for the page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from megavox.report.content import ReportContent
from megavox.report.wording import cell, count, heading, is_number, number, plural, shown, unit_of

MOST_ROWS = 5000  # of a table on the page; the whole of it is in its CSV file
MOST_CLASS_COLUMNS = 8
_OVERLAPS = ("dice", "iou", "hausdorff95_mm", "surface_distance_mm", "volume_error_percent")
_HEADLINE = ("accuracy", "balanced_accuracy", "auroc", "average_precision", "sensitivity", "specificity", "precision",
             "brier", "ece")
_CLASS = ("auroc", "average_precision", "sensitivity", "specificity", "precision")


@dataclass(frozen=True)
class Cell:
    """One cell: text, a small line under it, a tooltip, the value to sort by, and whether it is a number."""

    text: str
    small: str = ""
    title: str = ""
    sort: str = ""
    numeric: bool = False


@dataclass(frozen=True)
class Table:
    """A table; the first cell of a row is its heading.

    Attributes:
        title: its caption.
        columns: name of each column, and whether it holds numbers.
        rows: of cells.
        notes: sentences under it, such as why numbers are undefined.
        folded: whether it is closed until asked for.
    """

    title: str
    columns: list[tuple[str, bool]]
    rows: list[list[Cell]]
    notes: list[str] = field(default_factory=list)
    folded: bool = False


def segmentation_tables(evaluation: Mapping[str, Any]) -> list[Table]:
    """Means and medians of each class, with intervals and counts of undefined cases."""
    entries = {**evaluation["classes"], **({"mean of all classes": evaluation["all"]}
                                           if len(evaluation["classes"]) > 1 else {})}
    measures = [m for m in _OVERLAPS if any(m in entry for entry in entries.values())]
    columns = [("class", False), *((heading(m), True) for m in measures)]

    def rows(kind: str) -> list[list[Cell]]:
        return [[Cell(name), *(_average(entry.get(m), kind, unit_of(m)) for m in measures)]
                for name, entry in entries.items()]

    return [Table("Mean over test cases, with 95 % interval", columns, rows("mean"), [
        *_reasons(evaluation["classes"]),
        *_no_intervals(entry[m]["mean"] for entry in entries.values() for m in measures if m in entry)]),
            Table("Median over test cases, with 95 % interval", columns, rows("median"), folded=True)]


def classification_tables(evaluation: Mapping[str, Any]) -> list[Table]:
    """The whole test set, then each class, with intervals."""
    whole = [[Cell(heading(name)), _measured(evaluation["headline"][name], say=True)]
             for name in _HEADLINE if name in evaluation["headline"]]
    unscored = evaluation.get("undefined_classes") or {}
    rows = []
    for name, entry in evaluation["classes"].items():
        rows.append([Cell(name), *(Cell(str(entry[n]), sort=str(entry[n]), numeric=True)
                                   for n in ("n_positive", "n_negative")),
                     Cell(number(entry["prevalence"]), sort=str(entry["prevalence"]), numeric=True),
                     *(_measured(entry[m]) for m in _CLASS)])
    columns = [("class", False), ("with", True), ("without", True), ("prevalence", True),
               *((heading(m), True) for m in _CLASS)]
    undefined = [f"{name}: undefined, {why}; left out of the means." for name, why in unscored.items()]
    undefined += [f"{name}: {heading(m)} is undefined, {entry[m]['undefined']}."
                  for name, entry in evaluation["classes"].items() if name not in unscored
                  for m in _CLASS if entry[m]["value"] is None]
    undefined += _no_intervals(entry[m] for entry in evaluation["classes"].values() for m in _CLASS)
    few = len(evaluation["classes"]) == 2 and not evaluation.get("multilabel")
    whose = f"those of the class {list(evaluation['classes'])[-1]}" if few else "means over the defined classes"
    note = [f"AUROC, average precision, sensitivity, specificity and precision are {whose}."]
    return [Table("Each class against the rest, with 95 % interval", columns, rows, undefined),
            Table("All test cases, with 95 % interval", [("measure", False), ("value", True)], whole,
                  note)]


def detection_tables(evaluation: Mapping[str, Any]) -> list[Table]:
    """All findings, then each range of diameters, with intervals."""
    whole, strata = evaluation["headline"], evaluation["strata"]
    counts = [[Cell("findings"), _count(evaluation["n_findings"])],
              [Cell("false positives per case, at any score"),
               Cell(number(evaluation["false_per_case"], "per case"), numeric=True)]]
    all_ = counts + [[Cell(heading(name)), _measured(entry, say=True)] for name, entry in whole.items()]
    rows = [[Cell("findings"), *(_count(entry["n_findings"]) for entry in strata.values())]]
    rows += [[Cell(heading(name)), *(_measured(entry[name]) for entry in strata.values())] for name in whole]
    meaning = ["Partial area: under the FROC curve from 0 to 5 false positives per case, over 5. Mean sensitivity: of "
               "the seven below it, as LUNA16 has it. Sensitivity: share of the findings that are found at that number "
               "of false positives per case."]
    undefined = [f"{name}: undefined, {entry['partial_area']['undefined']}." for name, entry in strata.items()
                 if entry["partial_area"]["value"] is None]
    undefined += _no_intervals(entry[name] for entry in strata.values() for name in whole)
    return [Table("All findings, with 95 % interval", [("measure", False), ("value", True)], all_, meaning),
            Table("Findings by diameter, with 95 % interval", [("measure", False), *((name, True) for name in strata)],
                  rows, ["A false positive has no diameter: each column counts all of them.",
                         "Resamples without a finding of the diameter are left out of its intervals. Where no finding, "
                         "or every one, was missed, resampling cannot tell how it would be with others, and the "
                         "interval is too narrow.", *undefined])]


def case_table(content: ReportContent) -> Table | None:
    """Every test case, the worst first; None where there is none."""
    rows = content.case_rows[:MOST_ROWS]
    if not rows:
        return None
    notes = [] if len(rows) == len(content.case_rows) else \
        [f"The worst {plural(len(rows), 'case')} of {len(content.case_rows)}; all of them are in the run's "
         "evaluation_cases.csv."]
    cells = {"segment": _segmentation_cases, "classify": _classification_cases, "detect": _detection_cases}
    columns, lines, more = cells[content.kind](rows, content.classes)
    return Table("Every test case, the worst first", [("case", False), ("subject", False), *columns],
                 [[Cell(row["name"]), Cell(row["subject"]), *line] for row, line in zip(rows, lines, strict=True)],
                 notes + more)


_Cases = tuple[list[tuple[str, bool]], list[list[Cell]], list[str]]  # columns, cells of each row, notes


def _segmentation_cases(rows: Sequence[Mapping[str, Any]], classes: Sequence[str]) -> _Cases:
    several = len(classes) > 1
    single = classes if several and len(classes) <= MOST_CLASS_COLUMNS else []
    columns = [("mean Dice" if several else "Dice", True), *((name, True) for name in single)]
    return columns, [[_score(row["score"], "no class is in the reference" if several else _why(row)),
                      *(_dice(row["classes"].get(name)) for name in single)] for row in rows], []


def _classification_cases(rows: Sequence[Mapping[str, Any]], classes: Sequence[str]) -> _Cases:
    columns = [("reference", False), ("predicted", False), ("probability of the reference", True)]
    return columns, [[Cell(row["reference"]), Cell(row["predicted"]), _score(row["score"], "the reference is unknown")]
                     for row in rows], []


def _detection_cases(rows: Sequence[Mapping[str, Any]], classes: Sequence[str]) -> _Cases:
    columns = [("findings", True), ("found", True), ("false positives", True), ("largest missed (mm)", True)]
    return columns, [[_count(len(row["found_mm"]) + len(row["missed_mm"])), _count(len(row["found_mm"])),
                      _count(row["false"]), _largest(row["missed_mm"])] for row in rows], \
        ["At the score above which candidates are called, which was chosen on the validation cases."]


def measure_table(rows: Sequence[Mapping[str, Any]]) -> Table | None:
    """Any rows; their keys are the columns in the order they first occur. None where there are none."""
    if not rows:
        return None
    keys = list(dict.fromkeys(key for row in rows for key in row))
    numeric = {key: all(is_number(row.get(key)) for row in rows) for key in keys}
    notes = [] if len(rows) <= MOST_ROWS else [f"The first {MOST_ROWS} of {len(rows)} rows; all are in the folder "
                                               "measures."]
    return Table("Measures", [(heading(key), numeric[key]) for key in keys], [
        [_plain(row.get(key), key, numeric[key]) for key in keys] for row in rows[:MOST_ROWS]], notes)


def _plain(value: Any, key: str, numeric: bool) -> Cell:
    if numeric and isinstance(value, str):
        value = float(value)
    return Cell(cell(value, key), sort="" if value is None else str(value), numeric=numeric)


def _score(value: float | None, why: str) -> Cell:
    if value is None:
        return Cell("undefined", why, why, "", True)
    return Cell(number(value), sort=repr(float(value)), numeric=True)


def _count(n: int) -> Cell:
    return Cell(count(n), sort=str(n), numeric=True)


def _largest(diameters_mm: Sequence[float]) -> Cell:
    """The largest of what was missed; unknown ones count only where there is no other."""
    if not diameters_mm:
        return Cell(DASHED, numeric=True)
    largest = max(diameters_mm)
    return Cell(number(largest, "mm") if largest > 0 else "unknown", sort=str(largest), numeric=True)


def _dice(entry: Mapping[str, Any] | None) -> Cell:
    return _score(entry["dice"], entry["undefined"]) if entry else _score(None, "not measured")


def _why(row: Mapping[str, Any]) -> str:
    return next((entry["undefined"] for entry in row["classes"].values() if entry["undefined"]), "not measured")


def _measured(measured: Mapping[str, Any], say: bool = False) -> Cell:
    """A number with its interval; `say` writes into the cell why one of the two is missing."""
    found = shown(measured)
    return Cell(found.text, found.reason if say else "", found.reason, found.sort, True)


def _no_intervals(measured: Iterable[Mapping[str, Any]]) -> list[str]:
    """Why numbers have no interval: a sentence for each reason."""
    reasons = dict.fromkeys(str(m["undefined"]) for m in measured if m["value"] is not None and m["undefined"])
    return [reason[:1].upper() + reason[1:] + "." for reason in reasons]


def _average(entry: Mapping[str, Any] | None, kind: str, unit: str) -> Cell:
    """A cell of the segmentation tables: the reasons are counted in its tooltip."""
    if entry is None:
        return Cell(DASHED, numeric=True)
    found, missing = shown(entry[kind], unit), int(entry["n_undefined"])
    why = "; ".join(f"{reason} in {plural(n, 'case')}" for reason, n in entry["undefined_reasons"].items())
    small = f"{'undefined ' if found.value else ''}in {plural(missing, 'case')}" if missing else ""
    return Cell(found.text, small, why or found.reason, found.sort, True)


DASHED = "\u2013"  # a measure that is not for this row


def _reasons(classes: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Why measures are undefined, a sentence a class: each reason with the most cases it has in a measure."""
    notes = []
    for name, entry in classes.items():
        counts: dict[str, int] = {}
        for measure in entry.values():
            for reason, n in measure["undefined_reasons"].items():
                counts[reason] = max(counts.get(reason, 0), n)
        if counts:
            notes.append(f"{name}: " + "; ".join(f"{reason} in {plural(n, 'case')}" for reason, n in counts.items())
                         + ". These cases are not in the averages that they leave undefined.")
    return notes

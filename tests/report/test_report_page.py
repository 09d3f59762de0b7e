"""The report as a reader gets it: whole, well-formed, self-contained, honest about what is undefined."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from functools import cache
from html.parser import HTMLParser
from math import nan
from pathlib import Path

import numpy as np
import pytest
from made_up import FINDINGS, ORGANS, classify_content, detect_content, segment_content

from megavox.core.files import plain
from megavox.measures.detection import summarise_detection
from megavox.measures.froc import Marks
from megavox.measures.overlap import overlap
from megavox.measures.summary import summarise_segmentation
from megavox.report import wording
from megavox.report.content import (
    CaseView,
    Headline,
    ReportContent,
    classification_case_rows,
    detection_case_rows,
    segmentation_case_rows,
)
from megavox.report.page import write_report

VOID = {"meta", "img", "link", "br", "hr", "input"}
NASTY = "<script>alert('x')</script> & \"$y_1$\" 肝臓"


class Page(HTMLParser):
    """Reads a page and fails on a tag that is not closed in its turn."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]} at {self.getpos()}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.texts.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.texts))


def nothing(kind: str) -> ReportContent:
    return ReportContent(study_name="Empty", kind=kind, classes=["a", "b"])  # type: ignore[arg-type]


def one_case() -> ReportContent:
    """A single case whose reference is empty and whose numbers are all undefined."""
    empty, spacing = np.zeros((4, 6, 5), int), (1.0, 1.0, 1.0)
    rows = [{"subject": "s", "case": "c", **vars(one)} for one in overlap(empty, empty, ["a"], spacing)]
    evaluation = summarise_segmentation(rows, ["a"], seed=0, resamples=5)
    return ReportContent(
        study_name="One", kind="segment", classes=["a"], evaluation=evaluation,
        headline=[Headline("Mean Dice", evaluation["all"]["dice"]["mean"])], case_rows=segmentation_case_rows(rows),
        curve=[{"step": 1, "loss": None, "learning_rate": None}, {"step": 2, "validation": {"dice": None}}],
        cases=[CaseView("c", "worst", "", np.full((4, 6, 5), 7.0), spacing, empty, empty),
               CaseView("n", "best", "", np.full((4, 6), nan), spacing[1:])],
        measures=[{"case": "c", "volume_mm3": nan}, {"case": "d", "other": "x"}])


def no_finding() -> ReportContent:
    """A detection whose test cases have false positives only."""
    rows = [{"case": f"c{n}", "subject": f"s{n}", "found": [], "diameters_mm": [], "false": [0.5] * n}
            for n in range(6)]
    evaluation = summarise_detection([Marks.of(row) for row in rows], [row["subject"] for row in rows], seed=0,
                                     resamples=5)
    return ReportContent(
        study_name="None", kind="detect", classes=["nodule"], evaluation=evaluation,
        headline=[Headline("Mean sensitivity", evaluation["headline"]["mean_sensitivity"])],
        case_rows=detection_case_rows(rows, 0.0))


def nasty() -> ReportContent:
    """Names that are markup, in every place that a name can reach."""
    content = segment_content(cases=6)
    evaluation = {**content.evaluation, "classes": {NASTY if name == "cyst" else name: entry
                                                    for name, entry in content.evaluation["classes"].items()}}
    rows = [{**row, "name": NASTY, "subject": NASTY,
             "classes": {NASTY if name == "cyst" else name: entry for name, entry in row["classes"].items()}}
            for row in content.case_rows]
    return dataclasses.replace(
        content, study_name=NASTY, classes=[*ORGANS[:2], NASTY], evaluation=evaluation, case_rows=rows,
        headline=[Headline(NASTY, {"value": None, "low": None, "high": None, "n": 0, "undefined": NASTY})],
        notes=[NASTY], cohort=[(NASTY, NASTY)], measures=[{NASTY: NASTY}],
        derived=[{"key": NASTY, "value": NASTY, "why": NASTY}], provenance={NASTY: {NASTY: NASTY}},
        quarantine=[dict.fromkeys(("case", "subject", "file", "reason", "message"), NASTY)],
        cases=[dataclasses.replace(view, name=NASTY, text=NASTY, title=NASTY) for view in content.cases])


CONTENTS = {
    "segment": segment_content, "multi-label": lambda: classify_content(True),
    "two classes": lambda: classify_content(False), "detect": detect_content,
    "no segmentation yet": lambda: nothing("segment"), "no classification yet": lambda: nothing("classify"),
    "no detection yet": lambda: nothing("detect"), "no finding": no_finding, "one undefined case": one_case,
    "nasty names": nasty,
    "from JSON": lambda: dataclasses.replace(segment_content(6), evaluation=plain(segment_content(6).evaluation)),
}


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The page of each of `CONTENTS`, written once."""
    return cache(lambda name: write_report(tmp_path_factory.mktemp("reports") / "report", CONTENTS[name]()))


@pytest.mark.parametrize("name", CONTENTS)
def test_page_is_well_formed_complete_and_alone(name: str, reports: Callable[[str], Path]) -> None:
    index = reports(name)
    page = Page(index)
    assert index.name == "index.html"
    assert "http:" not in index.read_text() and "https:" not in index.read_text()
    used = set()
    for tag, attributes in page.tags:
        if tag == "img":
            assert attributes["alt"]
        for key in ("src", "href"):
            target = attributes.get(key)
            if target and not target.startswith("#"):
                assert (index.parent / target).is_file(), target
                used.add(target)
    written = {str(path.relative_to(index.parent)) for path in index.parent.rglob("*") if path.is_file()}
    assert written == used | {"index.html"}
    links = {attributes.get("href") or "" for _, attributes in page.tags}
    assert {link[1:] for link in links if link.startswith("#")} <= {attributes.get("id") for _, attributes in page.tags}
    assert "research use only" in page.text


@pytest.mark.parametrize("name", CONTENTS)
def test_figures_load_nothing_from_elsewhere(name: str, reports: Callable[[str], Path]) -> None:
    for path in (reports(name).parent / "figures").glob("*.svg"):
        links = re.findall(r'(?:href|src)="([^"]*)"|url\(([^)]*)\)', path.read_text())
        assert all(link.startswith(("#", "data:")) for pair in links for link in pair if link)


def test_same_content_gives_the_same_bytes(reports: Callable[[str], Path], tmp_path: Path) -> None:
    for name in ("segment", "multi-label", "detect"):
        folders = [reports(name).parent, write_report(tmp_path / name, CONTENTS[name]()).parent]
        files = [{p.relative_to(f): p.read_bytes() for p in f.rglob("*") if p.is_file()} for f in folders]
        assert files[0] == files[1] and len(files[0]) > 4


def test_names_are_text_and_never_markup(reports: Callable[[str], Path]) -> None:
    index = reports("nasty names")
    page = Page(index)
    assert sum(tag == "script" for tag, _ in page.tags) == 1  # our own, that sorts tables
    assert page.text.count("<script>alert('x')</script>") > 10
    for path in (index.parent / "figures").glob("*.svg"):
        assert "<script" not in path.read_text()


def test_numbers_stand_with_their_intervals(tmp_path: Path) -> None:
    content = dataclasses.replace(nothing("segment"), evaluation=segment_content(6).evaluation, headline=[
        Headline("Mean Dice", {"value": 0.9123, "low": 0.88, "high": 0.941, "n": 31, "undefined": ""}),
        Headline("Volume error", {"value": -12.0, "low": -20.0, "high": 3.0, "n": 31, "undefined": ""}, "%"),
        Headline("Rare", {"value": None, "low": None, "high": None, "n": 0, "undefined": "no positive case"})],
        classes=ORGANS)
    index = write_report(tmp_path / "r", content)
    text = Page(index).text
    assert "On 6 test cases from 3 subjects, mean Dice was 0.912 (95 % interval 0.880\u20130.941)." in text
    assert "(0.880\u20130.941)" in text and "(\u221220.0 to 3.0)" in text
    assert "undefined no positive case" in text
    assert any(attributes.get("title") == "no positive case" for _, attributes in Page(index).tags)


def test_undefined_classes_are_named_with_their_reason(reports: Callable[[str], Path]) -> None:
    undefined = classify_content(True).evaluation["undefined_classes"]
    assert FINDINGS[-1] in undefined
    text = Page(reports("multi-label")).text
    for name, reason in undefined.items():
        assert f"{name}: undefined, {reason}; left out of the means." in text
    assert "cyst: empty reference in 14 cases." in Page(reports("segment")).text


def test_a_detection_shows_all_findings_and_each_diameter(reports: Callable[[str], Path]) -> None:
    evaluation, text = detect_content().evaluation, Page(reports("detect")).text
    for entry in (evaluation["headline"], *evaluation["strata"].values()):
        for measured in (entry["partial_area"], entry["sensitivity_at_0.125"]):
            assert wording.shown(measured).text in text
    assert all(name in text for name in (*evaluation["strata"], "largest missed (mm)", "unknown"))
    text = Page(reports("no finding")).text
    assert "Mean sensitivity could not be determined on 6 test cases from 6 subjects: no finding in any case." in text
    assert "3 to 5 mm: undefined, no finding of this diameter." in text and "no FROC curve to draw" in text


def test_quarantine_speaks_plainly(reports: Callable[[str], Path]) -> None:
    text = Page(reports("segment")).text
    assert "Drawing does not lie on its image: 2 files" in text and "its outlines would be shifted" in text
    assert "A new reason: 1 file" in text and "It is odd." in text  # a reason without words of its own
    assert text.index("2 files") < text.index("1 file ")
    assert "Nothing: every file" in Page(reports("no segmentation yet")).text


def test_a_new_report_replaces_the_old_one_and_a_failed_one_leaves_it(tmp_path: Path) -> None:
    write_report(tmp_path / "r", segment_content(6))
    index = write_report(tmp_path / "r", nothing("classify"))
    assert not list((index.parent / "figures").iterdir())
    before = index.read_bytes()
    with pytest.raises(KeyError):
        write_report(tmp_path / "r", dataclasses.replace(nothing("segment"), derived=[{}], quarantine=[{"file": "x"}]))
    assert index.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["r"]


def test_worst_cases_come_first_and_undefined_ones_last() -> None:
    def row(case: str, name: str, dice: object, why: str = "") -> dict[str, object]:
        return {"case": case, "subject": "s", "name": name, "dice": dice, "volume_reference_mm3": "8.0",
                "volume_prediction_mm3": 4.0, "undefined": why}

    rows = segmentation_case_rows([
        row("good", "a", "0.9"), row("good", "b", "", "empty reference"), row("none", "a", nan, "empty reference"),
        row("none", "b", None, "empty reference"), row("bad", "a", 0.4), row("bad", "b", "0.2")])
    assert [(r["name"], r["score"]) for r in rows] == [("bad", pytest.approx(0.3)), ("good", 0.9), ("none", None)]
    assert rows[1]["classes"]["b"] == {"dice": None, "volume_reference_mm3": 8.0, "volume_prediction_mm3": 4.0,
                                       "undefined": "empty reference"}
    rows = classification_case_rows([
        {"case": "sure", "subject": "s", "probabilities": [0.9, 0.2], "target": [1, nan]},
        {"case": "wrong", "subject": "s", "probabilities": [0.9, 0.6], "target": [0, 1]},
        {"case": "unknown", "subject": "s", "probabilities": [0.9, 0.6], "target": [nan, nan]}], ["a", "b"], True)
    assert [(r["name"], r["score"]) for r in rows] == [("wrong", pytest.approx(0.35)), ("sure", 0.9), ("unknown", None)]
    assert (rows[0]["reference"], rows[0]["predicted"]) == ("b", "a, b")
    rows = classification_case_rows([{"case": "c", "subject": "s", "probabilities": [0.7, 0.3], "target": [0, 1]}],
                                    ["a", "b"], False, [0.25])
    assert (rows[0]["score"], rows[0]["reference"], rows[0]["predicted"]) == (0.3, "b", "b")


def test_findings_are_found_where_their_score_lies_above_that_of_calling() -> None:
    rows = detection_case_rows([
        {"case": "none", "subject": "s", "found": [], "diameters_mm": [], "false": [0.3]},
        {"case": "found", "subject": "s", "found": [0.9, 0.8], "diameters_mm": [4, -1], "false": [0.3, 0.1]},
        {"case": "missed", "subject": "s", "found": [None, 0.3, 0.4], "diameters_mm": [6, 9, 5], "false": []},
        {"case": "false", "subject": "s", "found": [0.5], "diameters_mm": [5], "false": [0.9, 0.9, 0.8]}],
        0.3)
    assert [(row["name"], row["score"], row["found_mm"], row["missed_mm"], row["false"]) for row in rows] == [
        ("missed", pytest.approx(1 / 3), [5.0], [6.0, 9.0], 0), ("false", 1.0, [5.0], [], 3),
        ("found", 1.0, [4.0, -1.0], [], 0), ("none", None, [], [], 0)]

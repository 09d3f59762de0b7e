"""Which figures a report has, with the words around them.

Every figure has a title, a caption that says how to read it, and a text for those who cannot see
it. Where there is nothing to draw, a sentence stands in its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from megavox.report.canvas import colour
from megavox.report.classification_charts import MOST_PANELS as MOST_CURVES
from megavox.report.classification_charts import confusion_matrix, reliability, roc_curves
from megavox.report.content import CaseView, ReportContent
from megavox.report.detection_charts import findings_by_diameter, froc_curves
from megavox.report.overlays import case_overlay, classes_drawn
from megavox.report.segmentation_charts import MOST_DOTS, MOST_PANELS, dice_distribution, volume_agreement
from megavox.report.training_charts import training_curves
from megavox.report.wording import heading, plural

METRICS = {"segment": "dice", "classify": "auroc", "detect": "partial_area"}  # validation score of each task


@dataclass(frozen=True, eq=False)
class Drawing:
    """A figure of the report.

    Attributes:
        file: name in the folder `figures/`; "" where there is no figure.
        data: content of the file.
        title, caption: above and below it.
        alt: what it shows, for those who cannot see it.
        instead: a sentence in the place of the figure, or "".
    """

    file: str
    data: bytes
    title: str
    caption: str
    alt: str
    instead: str = ""

    @classmethod
    def of(cls, file: str, drawn: bytes | str, title: str, caption: str, alt: str) -> Drawing:
        """From what a drawing function returned."""
        if isinstance(drawn, str):
            return cls("", b"", title, "", "", drawn)
        return cls(file, drawn, title, caption, alt)


@dataclass(frozen=True, eq=False)
class CasePicture:
    """A case to look at: its picture, and the classes in it with their colours."""

    view: CaseView
    drawing: Drawing
    legend: list[tuple[str, str]]  # class, colour
    wide: bool  # several slices side by side


def training_figure(content: ReportContent) -> Drawing:
    """The course of the training."""
    metric = METRICS[content.kind]
    return Drawing.of(
        "training.svg", training_curves(content.curve, metric), "Course of the training",
        "Above: the loss on training batches (what the network minimises) and the learning rate. Below: the score "
        "on the validation cases, which choose the checkpoint; the test cases play no part here.",
        f"Line chart of training loss and of validation {heading(metric)} over the steps.")


def result_figures(content: ReportContent) -> list[Drawing]:
    """The charts of the evaluation on the test cases."""
    if not content.evaluation:
        return []
    return {"segment": _segmentation, "classify": _classification, "detect": _detection}[content.kind](content)


def case_pictures(content: ReportContent) -> list[CasePicture]:
    """The cases to look at, in the order given."""
    pictures = []
    for number, view in enumerate(content.cases, start=1):
        drawn = classes_drawn(view, len(content.classes))
        drawing = Drawing.of(f"case-{number:02d}.png", case_overlay(view, len(content.classes)),
                             f"{view.title.capitalize()}: {view.name}", _how_shown(view), _case_alt(view, bool(drawn)))
        pictures.append(CasePicture(view, drawing, [(content.classes[k - 1], colour(k - 1)) for k in drawn],
                                    _volume(view) or view.reference is not None or view.prediction is not None))
    return pictures


def _segmentation(content: ReportContent) -> list[Drawing]:
    cases = plural(int(content.evaluation.get("n_cases", 0)), "test case")
    few = f" The first {MOST_PANELS} classes are shown." if len(content.classes) > MOST_PANELS else ""
    thin = f" More than {MOST_DOTS} cases are thinned evenly." if len(content.case_rows) > MOST_DOTS else ""
    return [
        Drawing.of("dice.svg", dice_distribution(content.case_rows, content.classes), "Dice of every test case",
                   "Each dot is a case. The box holds the middle half of the cases, the coloured line is the median. "
                   "n counts the cases in which Dice is defined." + thin,
                   f"Distribution of Dice for each class over {cases}."),
        Drawing.of("volumes.svg", volume_agreement(content.case_rows, content.classes), "Agreement of volumes",
                   "Each dot is a case: how far the predicted volume is off, over the size of the structure. Solid "
                   "line: mean difference; dashed lines: the limits within which 95 % of the differences are "
                   f"expected (Bland and Altman).{few}{thin}",
                   f"Bland-Altman plot of predicted and reference volumes for each class over {cases}."),
    ]


def _classification(content: ReportContent) -> list[Drawing]:
    evaluation = content.evaluation
    cases = plural(int(evaluation.get("n_cases", 0)), "test case")
    multilabel = bool(evaluation.get("multilabel"))
    left_out = list(evaluation.get("undefined_classes") or {}) if multilabel else []
    drawings = [Drawing.of(
        "roc.svg", roc_curves(evaluation), "ROC curves",
        "How many of the positive cases are found (up) at the price of how many false alarms (right). The dotted line "
        "is chance. In the legend: area under the curve with its 95 % interval.",
        f"ROC curves over {cases}, with the area under each curve in the legend.")]
    if not multilabel:
        drawings.append(Drawing.of(
            "confusion.svg", confusion_matrix(evaluation.get("confusion"), content.classes), "Confusion matrix",
            "Each row is a class as the reference has it, each column as it was predicted: number of cases, and "
            "share of the row.",
            f"Confusion matrix of {plural(len(content.classes), 'class', 'classes')} over {cases}."))
    calibration = evaluation.get("calibration") or {}
    drawings.append(Drawing.of(
        "reliability.svg", reliability(calibration, left_out), "Can the probabilities be believed?",
        "Each dot is a group of equally many cases. On the dotted line a probability of 0.8 is right eight times in "
        "ten; below it the model is too sure, above it not sure enough."
        + _left_out(calibration, left_out), f"Reliability plot over {cases}."))
    return drawings


def _detection(content: ReportContent) -> list[Drawing]:
    evaluation = content.evaluation
    over = f"{plural(evaluation['n_findings'], 'finding')} in {plural(evaluation['n_cases'], 'test case')}"
    unknown = sum(mm <= 0 for row in content.case_rows for mm in [*row["found_mm"], *row["missed_mm"]])
    left_out = f" {plural(unknown, 'finding')} of unknown diameter: not shown." if unknown else ""
    return [
        Drawing.of("froc.svg", froc_curves(evaluation), "FROC curve",
                   "How many of the findings are found (up) at the price of how many false positives in each case "
                   "(right). Dots: the seven points whose mean is LUNA16's score; shade: 95 % interval at each point; "
                   "thin lines: findings by diameter, beside the same false positives. In the legend: area under the "
                   "curve from 0 to 5 false positives per case, over 5, with its 95 % interval.",
                   f"FROC curves over {over}, with the area under each curve in the legend."),
        Drawing.of("diameters.svg", findings_by_diameter(content.case_rows), "Findings by diameter",
                   "Findings found and missed, at the score above which candidates are called, which was chosen on the "
                   f"validation cases.{left_out}",
                   f"Histogram of the diameters of {over}, found ones and missed ones."),
    ]


def _left_out(calibration: Mapping[str, Any], left_out: list[str]) -> str:
    text = f" Left out for want of cases: {', '.join(left_out)}." if left_out else ""
    many = len(calibration) - len(left_out) > MOST_CURVES
    return text + (f" The first {MOST_CURVES} labels are shown." if many else "")


def _how_shown(view: CaseView) -> str:
    """How to read a case's picture."""
    layers = []
    if view.reference is not None:
        layers.append("Outline: reference")
    if view.prediction is not None:
        layers.append("filled colour: prediction" if layers else "Filled colour: prediction")
    text = "; ".join(layers) + ". " if layers else ""
    if _volume(view):
        where = "the structure's centre of mass" if layers else "the middle of the image"
        text += f"Slices through {where}, in radiological convention (the patient's right is on your left)."
    return text.strip()


def _case_alt(view: CaseView, masks: bool) -> str:
    planes = "Axial, coronal and sagittal slice" if _volume(view) else "Image"
    return f"{planes} of case {view.name}" + (" with the outline of the reference and the prediction in colour."
                                              if masks else ".")


def _volume(view: CaseView) -> bool:
    return view.image.ndim == 3 and len(view.image) > 1

"""Made-up studies for the report's tests: everything a report can hold, evaluated by the real measures."""

from __future__ import annotations

from functools import cache

import numpy as np

from megavox.measures.detection import summarise_detection
from megavox.measures.froc import Marks
from megavox.measures.overlap import overlap
from megavox.measures.summary import summarise_classification, summarise_segmentation
from megavox.report.content import (
    CaseView,
    Headline,
    ReportContent,
    classification_case_rows,
    detection_case_rows,
    segmentation_case_rows,
)

ORGANS = ["anterior hippocampus", "posterior hippocampus", "cyst"]
FINDINGS = ["Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Effusion", "Emphysema", "Fibrosis", "Hernia",
            "Infiltration", "Mass", "Nodule", "Pleural Thickening", "Pneumonia", "Pneumothorax"]
PROVENANCE = {"study_hash": "4f2a" * 16, "seed": 7, "versions": {"python": "3.11.2", "torch": "2.13.0"},
              "machine": {"system": "Linux", "cores": 8}, "written": "2031-05-04T10:00:00+00:00"}
QUARANTINE = [
    {"case": "sub-031", "subject": "sub-031", "file": "images/sub-031.nii.gz", "reason": "truncated",
     "message": "images/sub-031.nii.gz: the file ends after 120 of 4000 bytes of voxels. Copy it again."},
    {"case": "sub-044", "subject": "sub-044", "file": "images/sub-044.nii.gz", "reason": "mask grid",
     "message": "images/sub-044.nii.gz: the mask's grid is off its image's by 3.4 mm at the worst corner. Expected: "
                "at most 0.5 mm."},
    {"case": "sub-045", "subject": "sub-045", "file": "images/sub-045.nii.gz", "reason": "mask grid",
     "message": "images/sub-045.nii.gz: the mask has 20 x 20 x 20 voxels. Expected: 30 x 30 x 30 as its image."},
    {"case": "", "subject": "", "file": "images/notes.docx", "reason": "a new reason", "message": "It is odd."},
]


def curve(metric: str, names: list[str], steps: int = 2000) -> list[dict]:
    """Lines of metrics.jsonl as a training writes them."""
    random = np.random.default_rng(1)
    lines: list[dict] = []
    for step in range(10, steps + 1, 10):
        lines.append({"step": step, "loss": float(0.2 + 1.4 * np.exp(-step / 300) + random.normal(0, 0.05)),
                      "learning_rate": 0.01 * (1 - step / (steps + 1)) ** 0.9, "samples_per_s": 40.0, "waiting": 0.02})
        if step % 200 == 0:
            whole = 0.9 * (1 - np.exp(-step / 400))
            each = {f"{metric} {name}": whole - 0.05 * k for k, name in enumerate(names)}
            lines.append({"step": step, "validation": {metric: whole, **each}, "seconds": 3.0})
    return lines


def ball(shape: tuple[int, ...], centre: tuple[float, ...], radius: float) -> np.ndarray:
    """A mask of voxels within `radius` voxels of `centre`."""
    grid = np.indices(shape).astype(float)
    return sum((axis - at) ** 2 for axis, at in zip(grid, centre, strict=True)) <= radius ** 2


def volume(number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image, reference and prediction `(24, 48, 40)` of a case: two balls; odd predictions are worse."""
    random, shape = np.random.default_rng(number), (24, 48, 40)
    image = random.normal(100, 12, shape)
    reference, prediction = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    for label, x in ((1, 13.0), (2, 26.0)):
        mask = ball(shape, (12, 22, x), 6 + number % 3)
        image[mask] += 60 * label
        reference[mask] = label
        prediction[ball(shape, (12 + number % 2 * 2, 22 + random.uniform(-1.5, 1.5), x), 5.5 + number % 3)] = label
    return image, reference, prediction


@cache
def segment_content(cases: int = 14) -> ReportContent:
    """A segmentation with three classes, of which one never occurs."""
    spacing, rows, views = (2.5, 1.0, 1.0), [], []
    for number in range(cases):
        image, reference, prediction = volume(number)
        rows += [{"subject": f"s{number // 2}", "case": f"case-{number:02d}", **vars(one)}
                 for one in overlap(prediction, reference, ORGANS, spacing)]
        if number in (0, 1, 2):
            title = ("worst", "median", "best")[number]
            views.append(CaseView(f"case-{number:02d}", title, "Dice 0.712 over all classes.", image, spacing,
                                  reference, prediction))
    evaluation = summarise_segmentation(rows, ORGANS, seed=3, resamples=60)
    return ReportContent(
        study_name="Hippocampus in two parts", kind="segment", classes=ORGANS,
        headline=[Headline("Mean Dice", evaluation["all"]["dice"]["mean"]),
                  Headline("Median Hausdorff 95", evaluation["all"]["hausdorff95_mm"]["median"], "mm"),
                  Headline("Mean volume error, posterior",
                           evaluation["classes"][ORGANS[1]]["volume_error_mm3"]["mean"], "mm³"),
                  Headline("Dice, cyst", evaluation["classes"]["cyst"]["dice"]["mean"])],
        cohort=[("Cases", "71 of 63 subjects"), ("Image size", "24 by 48 by 40 to 24 by 52 by 44 voxels"),
                ("Spacing", "2.5 by 1.0 by 1.0 mm"), ("Channels", "1 (T1)")],
        parts={"train": {"cases": 45, "subjects": 44, **dict.fromkeys(ORGANS[:2], 45), "cyst": 2},
               "validation": {"cases": 12, "subjects": 12, **dict.fromkeys(ORGANS[:2], 12), "cyst": 0},
               "test": {"cases": cases, "subjects": 7, **dict.fromkeys(ORGANS[:2], cases)}},
        derived=[{"key": "store.spacing_mm", "value": [2.5, 1.0, 1.0], "why": "the median of the training cases"},
                 {"key": "train.patch", "value": [24, 48, 40], "why": "the largest that fits 12 GB at batch size 8"},
                 {"key": "train.amp", "value": True, "why": "the device has bfloat16"}],
        curve=curve("dice", ORGANS[:2]), evaluation=evaluation, cases=views,
        case_rows=segmentation_case_rows(rows), quarantine=QUARANTINE,
        measures=[{"case": row["case"], "class": row["name"], "volume_mm3": row["volume_prediction_mm3"]}
                  for row in rows],
        notes=["Validation and test cases come from one scanner: other scanners may do worse."],
        provenance=PROVENANCE)


@cache
def classify_content(multilabel: bool, cases: int = 160) -> ReportContent:
    """A classification: 14 findings, some too rare to be scored, or two exclusive classes."""
    random = np.random.default_rng(5)
    classes = FINDINGS if multilabel else ["normal", "pneumonia"]
    if multilabel:
        rate = np.linspace(0.35, 0.0, len(classes))
        target = (random.random((cases, len(classes))) < rate).astype(float)
        probabilities = 1 / (1 + np.exp(-(random.normal(0, 1, target.shape) + 1.8 * target - 1)))
        target[random.random(target.shape) < 0.05] = np.nan
    else:
        positive = random.random(cases) < 0.4
        p = 1 / (1 + np.exp(-(random.normal(0, 1, cases) + 2 * positive - 1)))
        probabilities, target = np.stack([1 - p, p], axis=1), np.eye(2)[positive.astype(int)]
    subjects = [f"s{n // 2}" for n in range(cases)]
    rows = [{"subject": s, "case": f"img{n:04d}", "probabilities": p, "target": t}
            for n, (s, p, t) in enumerate(zip(subjects, probabilities, target, strict=True))]
    evaluation = summarise_classification(probabilities, target if multilabel else target.argmax(axis=1), subjects,
                                          classes, multilabel, seed=3, resamples=40)
    numbers = evaluation["headline"]
    image = np.clip(random.normal(120, 20, (96, 80)) + 80 * ball((96, 80), (48, 40), 25), 0, 255)
    return ReportContent(
        study_name="Findings on chest radiographs" if multilabel else "Pneumonia in children", kind="classify",
        classes=classes,
        headline=[Headline("AUROC" if not multilabel else "Mean AUROC", numbers["auroc"]),
                  Headline("Sensitivity", numbers["sensitivity"]), Headline("Specificity", numbers["specificity"]),
                  Headline("Calibration error (ECE)", numbers["ece"])],
        cohort=[("Cases", f"{cases * 5} of {cases * 4} subjects"), ("Image size", "96 by 80 pixels")],
        parts={part: {"cases": cases, "subjects": cases // 2, **dict.fromkeys(classes, 20)}
               for part in ("train", "validation", "test")},
        curve=curve("auroc", []), evaluation=evaluation,
        cases=[CaseView("img0007", title, "Reference: pneumonia. Probability given to it: 0.03.", image, (1.0, 1.0))
               for title in ("worst", "median", "best")],
        case_rows=classification_case_rows(rows, classes, multilabel), provenance=PROVENANCE)


@cache
def detect_content(cases: int = 60) -> ReportContent:
    """A detection: few large nodules, small ones that are harder to find, some of unknown diameter."""
    random, rows = np.random.default_rng(9), []
    for number in range(cases):
        diameters = np.round(np.minimum(3 + random.exponential(4.5, random.poisson(2.2)), 42.0), 1)
        scores = 1 / (1 + np.exp(-random.normal(0.15 * diameters, 1.0)))
        found = [float(score) if random.random() < 0.93 else None for score in scores]
        diameters[random.random(len(diameters)) < 0.04] = -1.0
        false = 1 / (1 + np.exp(-random.normal(-1.2, 1.2, random.poisson(14))))
        rows.append({"subject": f"s{number:03d}", "case": f"scan-{number:03d}", "found": found,
                     "diameters_mm": diameters.tolist(), "false": false.tolist()})
    evaluation = summarise_detection([Marks.of(row) for row in rows], [row["subject"] for row in rows], seed=3,
                                     resamples=200)
    views = [CaseView(f"scan-{number:03d}", title, "2 of 3 nodules found, 1 false positive.", volume(number)[0],
                      (2.5, 1.0, 1.0), *((volume(number)[k] == 1).astype(np.uint8) for k in (1, 2)))
             for number, title in enumerate(("worst", "median", "best"))]
    numbers = evaluation["headline"]
    return ReportContent(
        study_name="Lung nodules", kind="detect", classes=["nodule"],
        headline=[Headline("Mean sensitivity", numbers["mean_sensitivity"]),
                  Headline("Partial area", numbers["partial_area"]),
                  Headline("Sensitivity at 1 false positive per case", numbers["sensitivity_at_1"])],
        cohort=[("Cases", f"{cases * 6} of {cases * 6} subjects"), ("Spacing", "1.0 by 0.7 by 0.7 mm")],
        parts={part: {"cases": cases, "subjects": cases, "nodule": cases * 3 // 4}
               for part in ("train", "validation", "test")},
        curve=curve("partial_area", []), evaluation=evaluation, cases=views,
        case_rows=detection_case_rows(rows, 0.5), provenance=PROVENANCE)

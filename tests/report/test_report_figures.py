"""The figures: what they show of known data, and a sentence where there is nothing to show."""

from __future__ import annotations

import io
from math import nan
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up import ball, classify_content, curve, detect_content, segment_content
from PIL import Image

from megavox.report.canvas import COLOURS
from megavox.report.classification_charts import confusion_matrix, reliability, roc_curves
from megavox.report.content import CaseView
from megavox.report.detection_charts import findings_by_diameter, froc_curves
from megavox.report.overlays import case_overlay, classes_drawn
from megavox.report.segmentation_charts import dice_distribution, volume_agreement
from megavox.report.training_charts import training_curves
from megavox.report.wording import cell, heading, number, shown


def texts(svg: bytes | str) -> list[str]:
    """The words in a chart."""
    assert isinstance(svg, bytes)
    return ["".join(e.itertext()).strip() for e in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def pixels(picture: bytes | str) -> np.ndarray:
    """A picture as `(rows, columns, 3)`."""
    assert isinstance(picture, bytes)
    return np.asarray(Image.open(io.BytesIO(picture)).convert("RGB")).astype(int)


def case_row(name: str, dice: float | None, prediction: float | None = 8.0, reference: float | None = 10.0) -> dict:
    return {"name": name, "subject": name, "score": dice, "classes": {"a": {
        "dice": dice, "volume_prediction_mm3": prediction, "volume_reference_mm3": reference, "undefined": ""}}}


def test_training_curves_mark_the_best_validation() -> None:
    words = texts(training_curves(curve("dice", ["a", "b"]), "dice"))
    assert "best: 0.894 at step 2\u202f000" in words
    assert {"loss", "loss, smoothed", "learning rate", "Dice a", "Dice b"} <= set(words)


def test_training_curves_of_odd_runs() -> None:
    assert "no curve" in training_curves([], "dice")
    assert "no curve" in training_curves([{"step": 1, "loss": None}, {"step": 2, "loss": nan}], "dice")
    one = [{"step": 5, "loss": 0.3, "learning_rate": 0.0}]
    assert "no validation was recorded" in texts(training_curves(one, "dice"))
    flat = [{"step": n, "loss": 0.5, "learning_rate": 0.01} for n in range(5000)]
    flat += [{"step": 100, "validation": {"dice": 0.7, "dice a": None}}, {"step": 200, "validation": {"dice": nan}}]
    assert "best: 0.700 at step 100" in texts(training_curves(flat, "dice"))
    assert len(training_curves(flat, "dice")) < 200_000  # a long run is thinned


def test_dice_distribution() -> None:
    words = texts(dice_distribution([case_row(str(n), n / 10) for n in range(10)] + [case_row("x", None)], ["a", "b"]))
    assert {"n = 10", "n = 0", "undefined in every case"} <= set(words)
    assert "n = 1" in texts(dice_distribution([case_row("1", 1.0)], ["a"]))
    assert "no test case has a dice" in str(dice_distribution([case_row("1", None)], ["a"])).lower()
    many = dice_distribution([case_row(str(n), n / 3000) for n in range(3000)], ["a"])
    assert "n = 3000" in texts(many) and len(many) < 150_000


def test_volume_agreement() -> None:
    assert "a" in texts(volume_agreement([case_row("1", 0.5)], ["a"]))
    assert "a" in texts(volume_agreement([case_row(str(n), 0.5, 10.0 + n, 10.0) for n in range(9)], ["a"]))
    assert "a" in texts(volume_agreement([case_row(str(n), 0.5, 10.0, 10.0) for n in range(9)], ["a"]))
    for empty in ([], [case_row("1", None, 0.0, 0.0)], [case_row("1", None, None, nan)]):
        assert "no volumes to compare" in str(volume_agreement(empty, ["a"]))


def test_roc_curves_name_the_positive_class_or_every_label() -> None:
    two = classify_content(False).evaluation
    legend = [word for word in texts(roc_curves(two)) if ":" in word]
    assert legend == [f"pneumonia: {shown(two['classes']['pneumonia']['auroc']).text}"]
    many = classify_content(True).evaluation
    legend = [word.split(":")[0] for word in texts(roc_curves(many)) if ":" in word]
    assert sorted(legend) == sorted(set(many["classes"]) - set(many["undefined_classes"])) and len(legend) > 9
    values = [many["classes"][name]["auroc"]["value"] for name in legend]
    assert values == sorted(values, reverse=True)
    assert "no ROC curve" in str(roc_curves({"roc": {}, "classes": {}}))


def test_confusion_matrix_shows_counts_and_shares_of_rows() -> None:
    words = texts(confusion_matrix([[30, 10], [0, 0]], ["healthy", "_torn"]))
    assert {"30", "75 %", "10", "25 %", "0", "no case", "healthy"} <= set(words)
    assert "confusion" in str(confusion_matrix(None, ["a"])) and "no test case" in str(confusion_matrix([[0]], ["a"]))
    big = np.arange(400).reshape(20, 20)
    assert "399" not in texts(confusion_matrix(big.tolist(), [f"class {n}" for n in range(20)]))


def test_reliability() -> None:
    point = [{"confidence": 0.5, "frequency": 0.4, "n": 3}]
    assert "predicted probability of the chosen class" in texts(reliability({"top label": point}))
    words = texts(reliability({"a": point, "b": point, "rare": point, "none": []}, ["rare"]))
    assert {"a", "b"} <= set(words) and not {"rare", "none"} & set(words)
    assert isinstance(reliability({"rare": point, "none": []}, ["rare"]), str)


def test_froc_curves_name_all_findings_and_each_diameter() -> None:
    table = detect_content().evaluation
    words = texts(froc_curves(table))
    legend = [word for word in words if ":" in word]
    assert legend[0] == f"all {table['n_findings']} findings: {shown(table['headline']['partial_area']).text}"
    assert [word.split(",")[0] for word in legend[1:]] == list(table["strata"])
    assert [word for word in words if word in "1248" or "/" in word] == ["1/8", "1/4", "1/2", "1", "2", "4", "8"]
    nowhere = [None] * len(table["curve"]["false_rate"])
    bare = froc_curves({**table, "curve": {**table["curve"], "low": nowhere, "high": nowhere}})
    assert texts(bare) == words and b"opacity: 0.2" not in bare and b"opacity: 0.2" in froc_curves(table)
    assert "no FROC curve" in str(froc_curves({**table, "n_findings": 0}))


def test_findings_by_diameter_counts_what_was_found_and_missed() -> None:
    row = {"found_mm": [3.0, 30.0, -1.0], "missed_mm": [5.0]}
    words = texts(findings_by_diameter([row, {"found_mm": [], "missed_mm": [0.5, 200.0, -1.0]}]))
    assert {"found (n = 2)", "missed (n = 3)", "3", "15", "120"} <= set(words)
    for empty in ([], [{"found_mm": [-1.0], "missed_mm": []}]):
        assert "No finding of known diameter" in str(findings_by_diameter(empty))


def test_charts_are_readable_in_any_script() -> None:
    name = "肝臓 $x^2$"
    row = case_row("1", 0.5)
    assert name in texts(dice_distribution([{**row, "classes": {name: row["classes"]["a"]}}], [name]))


def test_overlay_is_in_radiological_convention() -> None:
    """A bright spot at the patient's left, front and head stands where a radiologist expects it."""
    left, front, head = slice(22, 26), slice(4, 8), slice(22, 26)  # of x, y and z
    image = np.zeros((30, 30, 30))
    image[:, front, left] = image[head, :, left] = image[head, front, :] = 1.0  # so the middle slices cut it
    row = pixels(case_overlay(CaseView("c", "best", "", image, (1.0, 1.0, 1.0)), 1)).mean(axis=2)
    third = row.shape[1] // 3
    for place, (plane, side) in enumerate([("axial", "right"), ("coronal", "right"), ("sagittal", "left")]):
        panel = row[40:-40, place * third + 60:(place + 1) * third - 60]  # without the letters at the edges
        y, x = np.median(np.argwhere(panel > 250), axis=0) / panel.shape
        assert y < 0.4, f"{plane}: the front, or the head, is at the top"
        assert (x > 0.6) == (side == "right") and (x < 0.4) == (side == "left"), plane


def test_overlay_has_the_aspect_of_the_patient() -> None:
    view = CaseView("c", "best", "", np.random.default_rng(0).random((10, 40, 40)), (4.0, 1.0, 1.0))
    height, width, _ = pixels(case_overlay(view, 1)).shape
    assert width / height == pytest.approx(3, rel=0.05)  # three squares of 40 mm


def has_colour(picture: np.ndarray, number: int) -> bool:
    rgb = [int(COLOURS[number][k:k + 2], 16) for k in (1, 3, 5)]
    return bool((np.abs(picture - rgb).max(axis=2) < 12).any())


@pytest.mark.parametrize("shape", [(12, 30, 30), (30, 30)])
def test_overlay_draws_the_reference_and_the_prediction(shape: tuple[int, ...]) -> None:
    spacing = (1.0,) * len(shape)
    image, mask = np.zeros(shape), ball(shape, tuple(n // 2 for n in shape), 5).astype(int)
    image[..., 0] = 1.0

    def picture(reference: np.ndarray | None, prediction: np.ndarray | None) -> np.ndarray:
        return pixels(case_overlay(CaseView("c", "best", "", image, spacing, reference, prediction), 2))

    assert has_colour(picture(mask, None), 0) and has_colour(picture(2 * mask, 0 * mask), 1)
    assert not has_colour(picture(0 * mask, 0 * mask), 0) and not has_colour(picture(255 * mask, None), 0)
    filled = picture(None, mask)
    assert not has_colour(filled, 0) and (filled[..., 2] > filled[..., 0] + 40).any()  # a tint of blue


def test_small_structures_get_a_close_up() -> None:
    image = np.random.default_rng(0).random((40, 80, 80), dtype=np.float32)
    small, large = (ball(image.shape, (20, 40, 40), radius).astype(int) for radius in (4, 19))
    heights = [pixels(case_overlay(CaseView("c", "best", "", image, (1.0,) * 3, mask), 1)).shape[0]
               for mask in (small, large)]
    assert heights[0] > 1.5 * heights[1]


def test_overlay_of_an_image_without_values_is_a_sentence() -> None:
    assert "no finite value" in str(case_overlay(CaseView("c", "best", "", np.full((4, 4), nan), (1.0, 1.0)), 1))
    assert pixels(case_overlay(CaseView("c", "best", "", np.full((4, 4), 3.0), (1.0, 1.0)), 1)).max() == 0


def test_legend_names_the_classes_that_are_there() -> None:
    view = segment_content(2).cases[0]
    assert classes_drawn(view, 3) == [1, 2] and classes_drawn(view, 1) == [1]


@settings(max_examples=200)
@given(st.floats(allow_nan=False, allow_infinity=False), st.sampled_from(["", "mm", "%", "mm³"]))
def test_a_shown_number_reads_back(value: float, unit: str) -> None:
    back = float(number(value, unit).replace("\u202f", "").replace("\u2212", "-"))
    assert back == pytest.approx(value, rel=0.006, abs=0.051)
    assert not number(value, unit).startswith("\u22120") or back != 0


def test_words() -> None:
    assert shown({"value": 0.912, "low": 0.88, "high": 0.941}).text == "0.912 (0.880\u20130.941)"
    assert shown({"value": 0.5, "low": None, "high": nan, "undefined": "no interval: x"}).text == "0.500"
    assert shown({"value": nan, "undefined": "why"}).text == "undefined"
    assert number(-0.0001) == "0.000" and number(12345.6, "mm³") == "12\u202f346" and number(None) == "undefined"
    assert heading("volume_mm3") == "volume (mm³)" and heading("volume_error_percent") == "volume error (%)"
    assert heading("hausdorff95_mm") == "Hausdorff 95 (mm)" and heading("case") == "case"
    assert cell([2.5, 1.0, 1.0]) == "2.5 \u00d7 1 \u00d7 1" and cell(True) == "yes" and cell(nan) == "undefined"
    assert cell(3e-4) == "0.0003" and cell({"a": 1}) == "a: 1" and cell([]) == "none"

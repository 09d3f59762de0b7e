"""The defined edges of overlap, the ignored region, and volumes."""

from __future__ import annotations

from math import isnan

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from megavox.core.errors import GeometryError, LabelError
from megavox.measures.overlap import ClassOverlap, overlap
from megavox.measures.volume import volumes_mm3

SPACING = (2.0, 1.0, 0.5)


def box(*cuts: tuple[int, int], shape: tuple[int, ...] = (10, 12, 14), label: int = 1) -> np.ndarray:
    labels = np.zeros(shape, np.uint8)
    labels[tuple(slice(*cut) for cut in cuts)] = label
    return labels


def one(prediction: np.ndarray, reference: np.ndarray, spacing=SPACING, ignore: int | None = None) -> ClassOverlap:
    (row,) = overlap(prediction, reference, ["organ"], spacing, ignore)
    return row


EMPTY, OBJECT = box((0, 0), (0, 0), (0, 0)), box((2, 5), (3, 7), (4, 9))


def test_empty_reference_is_undefined_and_its_false_positives_keep_their_volume():
    row = one(EMPTY, EMPTY)
    assert row.undefined == "empty reference"
    assert all(isnan(v) for v in (row.dice, row.iou, row.hausdorff95_mm, row.surface_distance_mm))
    assert row.volume_error_mm3 == 0 and isnan(row.volume_error_percent)
    row = one(OBJECT, EMPTY)
    assert row.undefined == "empty reference, false positives"
    assert isnan(row.dice) and isnan(row.iou) and isnan(row.hausdorff95_mm)
    assert row.volume_prediction_mm3 == row.volume_error_mm3 == 3 * 4 * 5


def test_missed_object_scores_zero_and_has_no_distance():
    row = one(EMPTY, OBJECT)
    assert (row.dice, row.iou, row.undefined) == (0, 0, "empty prediction")
    assert isnan(row.hausdorff95_mm) and isnan(row.surface_distance_mm)
    assert (row.volume_error_mm3, row.volume_error_percent) == (-60, -100)


label_maps = hnp.array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=6).flatmap(
    lambda shape: st.tuples(*[hnp.arrays(np.uint8, shape, elements=st.integers(0, 2))] * 2))


@settings(max_examples=100)
@given(label_maps)
def test_symmetric_bounded_and_perfect_against_itself(pair):
    a, b = pair
    spacing = (1.5, 1.0, 0.5)[-a.ndim:]
    for there, back in zip(overlap(a, b, ["x", "y"], spacing), overlap(b, a, ["x", "y"], spacing), strict=True):
        assert there.volume_error_mm3 == -back.volume_error_mm3
        if not there.undefined:
            assert (there.dice, there.iou, there.hausdorff95_mm) == (back.dice, back.iou, back.hausdorff95_mm)
            assert there.dice == pytest.approx(2 * there.iou / (1 + there.iou))
            assert 0 <= there.iou <= there.dice <= 1 and there.surface_distance_mm >= 0
    for row in overlap(a, a, ["x", "y"], spacing):
        assert row.undefined or (row.dice, row.hausdorff95_mm, row.surface_distance_mm) == (1, 0, 0)


@settings(max_examples=50)
@given(label_maps, st.integers(0, 3))
def test_padding_changes_nothing(pair, width):
    # Cropping to the objects, and the image's border, must not show in the numbers.
    a, b = pair
    spacing = (1.5, 1.0, 0.5)[-a.ndim:]
    a, b = (np.pad(labels, 1) for labels in (a, b))  # a single slice is another object: see below
    padded = overlap(np.pad(a, width), np.pad(b, width), ["x", "y"], spacing)
    for row, wide in zip(overlap(a, b, ["x", "y"], spacing), padded, strict=True):
        np.testing.assert_array_equal(list(row.to_dict().values())[1:-1], list(wide.to_dict().values())[1:-1])


def test_one_slice_is_measured_in_its_plane():
    a, b = box((3, 8), (3, 9), shape=(12, 14)), box((3, 8), (5, 11), shape=(12, 14))
    flat, thick = one(a, b, (1.0, 0.5)), one(a[None], b[None], (3.0, 1.0, 0.5))
    assert flat.hausdorff95_mm == thick.hausdorff95_mm == 1.0
    assert flat.surface_distance_mm == thick.surface_distance_mm
    assert thick.volume_reference_mm3 == 3 * flat.volume_reference_mm3
    assert one(a, b, (3.0, 1.0, 0.5)) == thick


def test_nothing_inside_the_ignored_region_counts():
    reference = OBJECT.copy()
    reference[:, :, 9:] = 255
    prediction = OBJECT.copy()
    expected = one(prediction, np.where(reference == 255, 0, reference))
    prediction[2:5, 3:7, 9:12] = 1  # inside the ignored region
    row = one(prediction, reference, ignore=255)
    assert (row.dice, row.hausdorff95_mm, row.volume_prediction_mm3) == (1, 0, expected.volume_prediction_mm3)


def test_edge_of_the_ignored_region_is_no_surface():
    # Both bars run into the ignored half: the cut ends, which they would share, must not count as contact.
    reference, prediction = box((2, 3), (5, 6), (0, 14)), box((2, 3), (5, 9), (0, 14))
    whole = one(prediction, reference)
    reference = reference.copy()
    reference[:, :, 7:] = 255
    half = one(prediction, reference, ignore=255)
    assert half.hausdorff95_mm == whole.hausdorff95_mm == 3.0
    assert half.surface_distance_mm == pytest.approx(whole.surface_distance_mm, rel=0.05)
    sealed = np.full((5, 5, 5), 255, np.uint8)
    sealed[2, 2, 2] = 1
    row = one(box((2, 3), (2, 3), (2, 3), shape=(5, 5, 5)), sealed, ignore=255)
    assert row.dice == 1 and isnan(row.hausdorff95_mm)
    assert row.undefined == "no surface outside the ignored region"


def test_wrong_grids_and_labels_are_named():
    with pytest.raises(GeometryError, match=r"\(10, 12, 14\).*\(5, 12, 14\)"):
        one(OBJECT, OBJECT[:5])
    with pytest.raises(LabelError, match=r"reference has labels \[7\].*0 to 1"):
        one(OBJECT, OBJECT * 7)
    with pytest.raises(LabelError, match=r"prediction has labels \[255\]"):
        one(np.where(OBJECT, 255, 0), OBJECT, ignore=255)
    with pytest.raises(LabelError, match="float64"):
        one(OBJECT * 0.5, OBJECT)
    assert one(OBJECT > 0, OBJECT).dice == 1


def test_volumes():
    labels = box((0, 2), (0, 3), (0, 4)) + box((5, 6), (0, 3), (0, 4), label=2)
    labels[9, 9, 9] = 255
    assert volumes_mm3(labels, SPACING, ["a", "b", "c"]) == {"a": 24.0, "b": 12.0, "c": 0.0}
    assert volumes_mm3(labels[0], (0.5, 0.5), ["a"]) == {"a": 3.0}


def test_shuffled_masks_overlap_by_chance():
    # Random masks of prevalence p and q: Dice = 2 p q / (p + q).
    rng = np.random.default_rng(0)
    reference, prediction = rng.random((60, 60, 60)) < 0.3, rng.random((60, 60, 60)) < 0.2
    assert one(prediction, reference).dice == pytest.approx(2 * 0.3 * 0.2 / 0.5, abs=0.01)

"""Phantoms: the same seed gives the same bytes, and what was promised is in them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import binary_dilation
from sklearn.metrics import roc_auc_score

from megavox.core.errors import ImageError
from megavox.core.files import file_hash, read_json
from megavox.images.formats import read_image
from megavox.phantoms import FINDINGS, organ, radiograph, write_classify_cohort, write_segment_cohort
from megavox.phantoms.organs import CLASSES


def hashes(folder: Path) -> dict[str, str]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {path.relative_to(folder).as_posix(): file_hash(path) for path in files}


@pytest.mark.parametrize("number", range(12))
def test_masks_hold_the_exact_volume_up_to_their_voxels(number: int) -> None:
    phantom = organ(3, number)
    assert phantom.image.dtype == np.int16 and phantom.image.shape == phantom.mask.shape == phantom.geometry.shape
    for name, value in CLASSES.items():
        drawn = np.count_nonzero(phantom.mask == value) * phantom.geometry.voxel_mm3
        assert drawn == pytest.approx(phantom.volumes_mm3[name], rel=0.02)
    rim = phantom.mask.copy()
    rim[1:-1, 1:-1, 1:-1] = 0
    assert not rim.any(), "the organ is cut off by the edge of the image"


def test_organs_come_on_several_grids() -> None:
    grids = {(phantom.geometry.axis_codes(), phantom.geometry.spacing) for phantom in (organ(0, n) for n in range(20))}
    assert len({codes for codes, _ in grids}) >= 3 and len({spacing for _, spacing in grids}) >= 3


def test_no_threshold_finds_the_core() -> None:
    best = []
    for number in range(6):
        phantom = organ(0, number)
        truth = phantom.mask == CLASSES["core"]
        dice = [2 * np.count_nonzero(truth & (phantom.image > t)) / (truth.sum() + np.count_nonzero(phantom.image > t))
                for t in np.percentile(phantom.image, np.linspace(80, 99.5, 40))]
        best.append(max(dice))
    assert np.median(best) < 0.85


def test_a_segment_cohort_is_the_same_for_the_same_seed(tmp_path: Path) -> None:
    truth = write_segment_cohort(tmp_path / "a", 3, seed=5)
    write_segment_cohort(tmp_path / "b", 3, seed=5)
    write_segment_cohort(tmp_path / "c", 3, seed=6)
    assert hashes(tmp_path / "a") == hashes(tmp_path / "b") != hashes(tmp_path / "c")
    assert read_json(tmp_path / "a" / "truth.json") == truth
    image = read_image(tmp_path / "a/imagesTr/organ_001.nii.gz")
    mask = read_image(tmp_path / "a/labelsTr/organ_001.nii.gz")
    assert image.geometry.distance_mm(mask.geometry) < 1e-4
    assert np.array_equal(mask.array[0], organ(5, 1).mask) and np.array_equal(image.array[0], organ(5, 1).image)


def test_dirty_cohorts_hold_what_their_names_say(tmp_path: Path) -> None:
    assert list(write_segment_cohort(tmp_path, 1, dirty=True)) == ["organ_001"]

    def both(name: str) -> tuple[Path, Path]:
        return tmp_path / f"imagesTr/broken_{name}.nii.gz", tmp_path / f"labelsTr/broken_{name}.nii.gz"

    with pytest.raises(ImageError):
        read_image(both("truncated")[0])
    image, mask = map(read_image, both("offgrid"))
    assert image.geometry.distance_mm(mask.geometry) > 1
    assert np.isnan(read_image(both("nan")[0]).array).any()
    assert 7 in read_image(both("label")[1]).array
    assert both("nomask")[0].exists() and not both("nomask")[1].exists()


def test_a_radiograph_shows_its_findings_and_nothing_else() -> None:
    plain, ill = radiograph(1, 4, 1, ()), radiograph(1, 4, 1, ("opacity",))
    assert plain.findings == () and not plain.lesion.any() and ill.lesion.sum() > 50
    brighter = ill.pixels.astype(float) - plain.pixels
    assert brighter[ill.lesion].mean() > 25
    far = ~binary_dilation(ill.lesion, iterations=20)
    assert far.any() and np.abs(brighter[far]).max() <= 1
    for finding in FINDINGS[1:]:
        assert np.abs(radiograph(1, 4, 1, (finding,)).pixels.astype(float) - plain.pixels).max() > 30


def test_no_pixel_and_no_mean_gives_an_opacity_away() -> None:
    ill = [number % 2 for number in range(240)]
    pixels = np.array([radiograph(0, n, 1, ("opacity",) * ill[n]).pixels for n in range(240)], float).reshape(240, -1)
    scores = [*pixels[:, ::23].T, pixels.mean(axis=1), pixels.max(axis=1)]
    areas = [roc_auc_score(ill, score) for score in scores]
    assert max(max(area, 1 - area) for area in areas) < 0.75


def test_a_classify_cohort_is_the_same_for_the_same_seed(tmp_path: Path) -> None:
    rows = write_classify_cohort(tmp_path / "a", 30, seed=2)
    write_classify_cohort(tmp_path / "b", 30, seed=2)
    write_classify_cohort(tmp_path / "c", 30, seed=3)
    assert hashes(tmp_path / "a") == hashes(tmp_path / "b") != hashes(tmp_path / "c")
    assert len(rows) == 30 == len(list((tmp_path / "a/images").iterdir()))
    visits = Counter(row["patient"] for row in rows)
    assert set(visits.values()) == {1, 2, 3}
    assert {row["label"] for row in rows} == {"clear", "opacity"}
    assert all(len({row["label"] for row in rows if row["patient"] == who}) == 1 for who in visits)


def test_a_multilabel_cohort_has_a_column_a_finding(tmp_path: Path) -> None:
    rows = write_classify_cohort(tmp_path, 40, classes=FINDINGS, multilabel=True)
    assert list(rows[0]) == ["image", "patient", "visit", *FINDINGS]
    for name in FINDINGS:
        assert {row[name] for row in rows} == {"0", "1"}
    assert any(sum(row[name] == "1" for name in FINDINGS) > 1 for row in rows)

"""Chest phantoms: what was promised is in them, as large and where they say, and not easily found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter, label

from megavox.core.files import file_hash, read_csv
from megavox.images import find_images, read_image
from megavox.measures.froc import froc, partial_area, scored
from megavox.phantoms import Chest, chest, write_detect_cohort
from megavox.phantoms.bodies import _SAMPLES, body, coverage
from megavox.phantoms.lumps import EXCLUDED, KINDS
from megavox.phantoms.vessels import filled, straight, tree
from megavox.tasks.candidates import candidates

COARSE = (5.0, 6.0)


def ball(middle: np.ndarray, phantom: Chest, radius: float) -> np.ndarray:
    """Voxels within `radius` mm of a place in the world."""
    z, y, x = np.indices(phantom.image.shape)
    affine = phantom.geometry.affine()
    world = np.stack([x, y, z], axis=-1) @ affine[:3, :3].T + affine[:3, 3]
    return np.linalg.norm(world - middle, axis=-1) < radius


@settings(max_examples=15)
@given(seed=st.integers(0, 999), diameter=st.floats(3, 20), thick=st.floats(0.3, 3), step=st.floats(0.8, 2.2),
       lobes=st.floats(0, 0.25))
def test_a_body_fills_its_volume_around_its_centre(seed: int, diameter: float, thick: float, step: float,
                                                   lobes: float) -> None:
    random = np.random.default_rng(seed)
    centre = random.uniform(-3, 3, 3)
    axes = tuple(np.arange(-50, 50, mm) for mm in (step, step, 1.2 * step))
    box, full = coverage(body(centre, diameter, random, (thick, 1.0, 1.0), lobes=lobes), axes)
    volume = full.sum(dtype=float) * 1.2 * step ** 3
    apart = 1.2 * step / _SAMPLES  # of samples, mm
    assert volume == pytest.approx(np.pi / 6 * diameter ** 3, rel=0.01 + (apart / (diameter / 2)) ** 2)
    weights = [full.sum(axis=other) / full.sum() for other in ((0, 1), (0, 2), (1, 2))]
    found = [axis[part] @ weight for axis, part, weight in zip(axes, reversed(box), weights, strict=True)]
    assert np.linalg.norm(found - centre) < 0.02 * diameter + 0.05 * step
    assert full.min() == 0 and full.max() <= 1


def test_a_body_at_the_edge_of_the_grid_is_cut_off() -> None:
    axes = (np.arange(0.0, 20.0), np.arange(0.0, 20.0), np.arange(0.0, 20.0))
    whole = body(np.array([0.0, 10.0, 10.0]), 10.0, np.random.default_rng(0), lobes=0.0)
    _, full = coverage(whole, axes)
    assert full.sum() == pytest.approx(np.pi / 6 * 1000 * 0.575, rel=0.02)  # a half, and half a voxel more


@pytest.mark.parametrize(("radius", "step"), [(4.0, 1.0), (2.0, 1.5), (0.7, 2.0)])
def test_a_tube_fills_its_volume(radius: float, step: float) -> None:
    axes = (np.arange(-12.0, 12.0, step),) * 2 + (np.arange(-40.0, 40.0, step),)
    way = np.array([0.3, 0.2, 1.0])
    share = filled(straight(-20 * way, 20 * way, radius, step / 2), axes)
    expected = np.pi * radius ** 2 * 40 * np.linalg.norm(way) + 4 / 3 * np.pi * radius ** 3
    assert share.sum() * step ** 3 == pytest.approx(expected, rel=0.06)


@given(count=st.integers(2, 60), seed=st.integers(0, 99))
def test_a_tree_reaches_every_end_and_thins_towards_them(count: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    ends = random.uniform(10, 60, (count, 3))
    grown = tree(np.zeros(3), ends, 0.8, 0.5)
    gaps = np.linalg.norm(grown.centres[None] - ends[:, None], axis=-1)
    assert gaps.min(axis=1).max() < 1e-6
    assert grown.radii.min() == pytest.approx(0.8)
    assert 0.8 <= grown.radii.max() <= 0.8 * count ** (1 / 2.8) + 1e-9  # Murray's law, all ends on one stem
    assert np.allclose(np.linalg.norm(grown.directions, axis=1), 1)


@pytest.mark.parametrize("number", range(4))
def test_findings_are_in_the_lungs_and_as_large_as_their_kind(number: int) -> None:
    phantom = chest(2, number, COARSE)
    inside = np.linalg.inv(phantom.geometry.affine())
    for finding in phantom.findings:
        index = inside[:3, :3] @ finding.centre_mm + inside[:3, 3]
        x, y, z = np.rint(index).astype(int)
        assert phantom.lungs[z, y, x]
        assert finding.counts == (finding.kind in KINDS) != (finding.kind in EXCLUDED)
        assert 3 <= finding.diameter_mm <= 30 if finding.counts else finding.diameter_mm <= 15
        assert finding.kind != "micronodule" or finding.diameter_mm < 3


def test_there_are_two_lungs_full_of_air() -> None:
    for number in range(2):
        phantom = chest(4, number, (3.0, 3.0))
        parts, _ = label(phantom.lungs)
        litres = np.sort(np.bincount(parts.ravel())[1:])[::-1] * phantom.geometry.voxel_mm3 / 1e6
        assert 0.6 < litres[1] <= litres[0] < 2.5 and litres[2:].sum() < 0.01
        assert -860 < phantom.image[phantom.lungs].mean() < -700
        assert phantom.image.dtype == np.int16 and phantom.image.shape == phantom.lungs.shape == phantom.geometry.shape


def test_a_nodule_without_neighbours_holds_the_volume_of_its_diameter() -> None:
    alone = 0
    for number in (3, 8, 28):
        phantom = chest(1, number, (2.5, 2.5), noise_hu=(0.0, 0.0))
        for finding in phantom.findings:
            if finding.kind == "solid" and finding.diameter_mm > 7:
                middle, reach = np.array(finding.centre_mm), 0.65 * finding.diameter_mm + 2
                near = ball(middle, phantom, reach)
                around = phantom.image[ball(middle, phantom, reach + 3) & ~near]
                core = np.median(phantom.image[ball(middle, phantom, finding.diameter_mm / 4)])
                share = (phantom.image[near] - around.mean()) / (core - around.mean())
                volume = share.sum() * phantom.geometry.voxel_mm3
                if np.percentile(around, 97) < -600:  # no vessel passes
                    assert volume == pytest.approx(np.pi / 6 * finding.diameter_mm ** 3, rel=0.1)
                    alone += 1
    assert alone == 4


def test_no_threshold_finds_the_nodules() -> None:
    cases = []
    for number in range(4):
        phantom = chest(5, number, (2.5, 2.5))
        smooth = gaussian_filter(phantom.image.astype(np.float32), 0.5)
        bright = np.where(phantom.lungs & (smooth > -500), np.clip((smooth + 900) / 1000, 0, 1), 0)
        found = candidates(bright, phantom.geometry)
        places = np.array([finding.centre_mm for finding in phantom.findings]).reshape(-1, 3)
        sizes = np.array([finding.diameter_mm for finding in phantom.findings])
        counts = np.array([finding.counts for finding in phantom.findings], bool)
        cases.append([scored(found.centres_mm, score, places, sizes, counts)
                      for score in (found.scores, found.diameters_mm, -np.abs(found.diameters_mm - 6.0))])
    assert sum(len(marks[0].found) for marks in cases) >= 5
    for marks in zip(*cases, strict=True):
        assert partial_area(froc(marks)) < 0.4


def hashes(folder: Path) -> dict[str, str]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {path.relative_to(folder).as_posix(): file_hash(path) for path in files}


@pytest.mark.parametrize("dicom", [False, True])
def test_a_detect_cohort_is_read_as_it_was_drawn(tmp_path: Path, dicom: bool) -> None:
    truth = write_detect_cohort(tmp_path / "a", 2, seed=2, dicom=dicom, spacing_mm=COARSE)
    write_detect_cohort(tmp_path / "b", 2, seed=2, dicom=dicom, spacing_mm=COARSE)
    assert hashes(tmp_path / "a") == hashes(tmp_path / "b")
    found = find_images(tmp_path / "a" / "images")
    assert not found.unusable and [image.name for image in found.images] == list(truth)
    turned = set()
    for number, image in enumerate(found.images, 1):
        read, drawn = read_image(image.paths), chest(2, number, COARSE)
        assert np.array_equal(read.array[0], drawn.image)
        assert read.geometry.distance_mm(drawn.geometry) < 1e-3
        assert drawn.findings == truth[image.name]
        turned.add(drawn.geometry.axis_codes())
    assert turned == {"LPS", "RAS"}  # or the test has lost its point


def test_the_tables_are_those_of_luna16(tmp_path: Path) -> None:
    truth = write_detect_cohort(tmp_path, 3, seed=8, spacing_mm=COARSE)
    for name, counts in (("annotations.csv", True), ("annotations_excluded.csv", False)):
        rows = read_csv(tmp_path / name)
        assert list(rows[0]) == ["seriesuid", "coordX", "coordY", "coordZ", "diameter_mm"]
        expected = [(case, *one.centre_mm, one.diameter_mm) for case, findings in truth.items()
                    for one in findings if one.counts == counts]
        assert [row["seriesuid"] for row in rows] == [row[0] for row in expected]
        numbers = [[float(row[column]) for column in list(row)[1:]] for row in rows]
        assert np.abs(np.array(numbers) - [row[1:] for row in expected]).max() < 1e-4

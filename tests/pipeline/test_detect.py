"""Findings from a table to a report: packed as balls, learnt, found again in mm, scored by the rules of LUNA16."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from megavox.cli import main
from megavox.cohort.case import Case, Finding
from megavox.core.errors import CohortError, StudyError, WorkspaceError
from megavox.core.files import read_csv, read_json, write_csv, write_json
from megavox.core.randomness import generator
from megavox.core.signals import Stop, Stopped
from megavox.images.balls import ball
from megavox.images.formats import read_image
from megavox.images.geometry import Geometry
from megavox.images.nifti import write_nifti
from megavox.pipeline.mine import mine
from megavox.pipeline.pack import pack
from megavox.pipeline.project import Project
from megavox.pipeline.train import train
from megavox.pipeline.workshop import Workshop
from megavox.store.layout import IGNORE, OUTSIDE
from megavox.store.pack import EACH_FINDING, finding_positions, marked
from megavox.study import load_study

COLUMNS = ("seriesuid", "coordX", "coordY", "coordZ", "diameter_mm")
CASES, SIDE, SPACING = 10, 24, 2.0


def write_cohort(folder: Path) -> None:
    """Cubes of tissue with a bright ball of 12 mm, and in every other one a ball that does not count."""
    rows: dict[str, list[dict[str, Any]]] = {"annotations.csv": [], "annotations_excluded.csv": []}
    for number in range(CASES):
        random, name = generator(0, "cube", number), f"cube{number:02d}"
        flipped = -1.0 if number % 3 == 0 else 1.0  # as some scanners write x and y
        geometry = Geometry((SIDE, SIDE, SIDE), (SPACING,) * 3, (30.0 * flipped, -20.0, 10.0),
                            (flipped, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0))
        hu = random.normal(0, 20, geometry.shape)
        for table, index in (("annotations.csv", random.uniform(6, 17, 3)),
                             ("annotations_excluded.csv", np.array([2.0, 2.0, 2.0]))):
            if table == "annotations_excluded.csv" and number % 2:
                continue
            centre = geometry.affine()[:3] @ [*index, 1.0]
            hu[ball(geometry, geometry.shape, centre, 12.0)] += 300
            rows[table].append(dict(zip(COLUMNS, (name, *centre.round(4), 12.0), strict=True)))
        write_nifti(folder / f"{name}.nii.gz", hu.astype(np.int16)[None], geometry)
    for table, found in rows.items():
        write_csv(folder / table, COLUMNS, found)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study, packed and trained."""
    folder = tmp_path_factory.mktemp("detect")
    write_cohort(folder / "images")
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump({
        "name": "cubes", "seed": 1, "cohort": {"layout": "luna16", "folder": "images"},
        "task": {"kind": "detect", "finding": "ball", "within": "image"},
        "images": {"channels": ["CT"], "spacing_mm": [SPACING] * 3, "normalise": "hu"},
        "split": {"test": 0.3, "validation": 0.2},
        "batches": {"patch": [16, 16, 16], "size": 4, "workers": 0, "augment": {"copies": 1}},
        "model": {"family": "unet", "filters": 4, "levels": 2}, "inference": {"mirror": False},
        "training": {"steps": 60, "validations": 2, "device": "cpu", "ema": 0.9, "optimiser": {"rate": 0.02}},
        "evaluation": {"resamples": 100}}))
    assert main(["run", str(path)]) == 0
    return path


def project_of(path: Path, *changes: str, run: str | None = None) -> Project:
    return Project.at(load_study(path, changes), path.parent / "workspace", run)


def test_findings_are_packed_as_balls_where_they_are(study: Path) -> None:
    project = project_of(study)
    store = project.store()
    for entry in project.entries():
        reader = store.reader(entry.key, entry.case.name)
        mask, geometry = reader.mask((0,) * 3, reader.record.shape[1:]), reader.record.geometry
        assert reader.record.findings == entry.case.findings
        for one in entry.case.findings or ():
            values = mask[ball(geometry, mask.shape, one.centre_mm, one.diameter_mm - 2)]
            assert len(values) > 60 and (values == (1 if one.counts else IGNORE)).all()
        assert OUTSIDE not in mask
        counted = sum(one.counts for one in entry.case.findings or ())
        assert abs((mask == 1).sum() * SPACING**3 - counted * np.pi / 6 * 12**3) < 0.2 * 12**3


def test_small_findings_are_sampled_as_often_as_large_ones_and_never_vanish() -> None:
    geometry = Geometry((30, 30, 30), (2.5, 2.5, 2.5))
    findings = tuple(Finding((x, 30.0, 30.0), diameter, counts) for x, diameter, counts in (
        (12.0, 3.0, True), (30.0, 20.0, True), (52.0, -1.0, True), (66.0, 6.0, False)))
    case = Case("a", "a", "", (), findings=findings)
    mask = marked(case, np.ones(geometry.shape, bool), geometry)
    rows = finding_positions(case, mask, geometry, generator(0, "positions"))
    assert (mask[tuple(rows[:, 1:].T)] == 1).all() and (rows[:, 0] == 1).all()
    nearest = np.abs(rows[:, 3, None] * 2.5 - [12.0, 30.0, 52.0]).argmin(axis=1)
    assert np.bincount(nearest).tolist() == [EACH_FINDING] * 3
    sizes = [int((mask[:, :, first:last] > 0).sum()) for first, last in ((0, 8), (17, 24), (24, 30))]
    assert sizes[0] >= 7 and abs(sizes[1] * 2.5**3 / (np.pi / 6 * 10**3) - 1) < 0.3, "unknown ones are of 10 mm"
    assert (mask == IGNORE).sum() >= 7
    half = np.indices(geometry.shape)[2] < 20
    outside = marked(case, half, geometry)
    assert (outside[~half] == OUTSIDE).all() and (outside[half] == mask[half]).all()
    assert finding_positions(case, outside, geometry, generator(0, "positions"))[:, 3].max() < 20
    assert len(finding_positions(replace(case, findings=()), mask, geometry, generator(0, "positions"))) == 0


def test_what_was_learnt_is_found_in_mm_and_scored(study: Path) -> None:
    project = project_of(study)
    evaluation = read_json(project.run.evaluation)
    headline = evaluation["summary"]["headline"]
    assert headline["partial_area"]["value"] > 0.9 and headline["sensitivity_at_1"]["value"] == 1.0
    assert 0 < evaluation["calibration"]["threshold"] < 1
    folder = project.workspace.predictions("cubes")
    table = read_csv(folder / "candidates.csv")
    for entry in project.entries():
        if entry.part != "test":
            continue
        true = next(one for one in entry.case.findings or () if one.counts)
        rows = [row for row in table if row["seriesuid"] == entry.case.name]
        off_mm = [np.linalg.norm(np.subtract([float(row[f"coord{axis}"]) for axis in "XYZ"], true.centre_mm))
                  for row in rows]
        nearest = int(np.argmin(off_mm))
        assert off_mm[nearest] < 2.5 and abs(float(rows[nearest]["diameter_mm"]) - 12) < 4
        labels = read_image(folder / f"{entry.case.name}.nii.gz")
        original = read_image(entry.case.images[0][0])
        assert labels.geometry.distance_mm(original.geometry) < 1e-3
        centre = tuple(np.rint(labels.geometry.index_of(true.centre_mm)[::-1]).astype(int))
        assert labels.array[0][centre] == nearest + 1, "the number of the candidate, the surest first"
    page = (project.workspace.report / "index.html").read_text()
    assert "Partial area" in page and "false positives" in page


def test_a_second_run_learns_from_false_positives_of_the_first(study: Path) -> None:
    with pytest.raises(WorkspaceError, match="false positives are not known"):
        Workshop(second := project_of(study, "batches.hard.run=cubes", run="second"), second.study).samples()
    first = project_of(study)
    with pytest.MonkeyPatch.context() as patched, pytest.raises(Stopped, match="the same command goes on"):
        patched.setattr(Stop, "asked", True)
        mine(first)
    assert len(list(first.run.hard.glob("[!w]*.json"))) == 1 and not first.run.mined.exists()
    begun = next(first.run.hard.glob("[!w]*.json")).stat()
    found = mine(first)
    assert found.cases == 5 and first.run.mined.exists()
    assert begun.st_ino in {path.stat().st_ino for path in found.path.glob("*.json")}, "what was found stays"
    project = project_of(study, "batches.hard.run=cubes", "batches.hard.share=1", "batches.foreground=0", run="second")
    for entry in Workshop(project, project.study).part("train"):
        write_json(found.path / f"{entry.key}.json", [[0, 20, 3, 3]])
    samples = Workshop(project, project.study).samples()
    centres = [samples._draw(step, position)[1] for step in range(3) for position in range(4)]
    assert all((centre == [15.5, 7.5, 7.5]).all() for centre in centres), "moved into the image"
    write_json(first.run.mined, {**read_json(first.run.mined), "store": "another"})
    with pytest.raises(WorkspaceError, match="packed with other settings"):
        Workshop(project, project.study).samples()
    with pytest.raises(StudyError, match="false positives to learn from"):
        project_of(study, "batches.hard.run=cubes", "task={kind: segment, classes: {a: 1}}",
                   "cohort={layout: decathlon, folder: images}")


def test_a_finding_outside_its_image_sets_the_case_aside(study: Path, tmp_path: Path) -> None:
    project = project_of(study)
    case = project.entries()[0].case
    images = tmp_path / "images"
    write_cohort(images)
    rows = [dict(row) for row in read_csv(images / "annotations.csv")]
    for row in rows:
        if row["seriesuid"] == case.name:
            row["coordX"] = "900"
    write_csv(images / "annotations.csv", COLUMNS, rows)
    packed = pack(Project.at(load_study(study, [f"cohort.folder={images}"]), tmp_path / "workspace"))
    assert [(one.case, one.reason) for one in packed.rejected] == [(case.name, "finding outside")]


def test_without_a_finding_nothing_is_trained(study: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    write_cohort(images)
    write_csv(images / "annotations.csv", COLUMNS, [])
    project = Project.at(load_study(study, [f"cohort.folder={images}"]), tmp_path / "workspace")
    pack(project)
    with pytest.raises(CohortError, match="in the train part, none with anything to detect"):
        train(project)


def test_the_packed_cases_of_another_cohort_are_not_discarded(study: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    write_cohort(images)
    first = Project.at(load_study(study, [f"cohort.folder={images}"]), tmp_path / "workspace")
    pack(first)
    moved = Project.at(load_study(study, ["images.spacing_mm=[3, 3, 3]"]), tmp_path / "workspace")
    with pytest.raises(WorkspaceError, match=f"of another cohort are packed here, from {images}"):
        pack(moved)
    assert len(first.store().records) == CASES
    changes = [f"cohort.folder={images}", "images.spacing_mm=[3, 3, 3]"]
    pack(Project.at(load_study(study, changes), tmp_path / "workspace"))


def test_a_ball_of_any_size_marks_voxels_and_none_outside() -> None:
    geometry = Geometry((20, 18, 16), (1.0, 1.5, 2.0), (5.0, 6.0, 7.0), (0.0, 1.0, 0.0, -1.0, 0.0, 0.0, 0.0, 0.0, 1.0))
    inside = geometry.affine()[:3] @ [9.3, 8.6, 7.2, 1.0]
    for diameter in (0.1, 3.0, 10.0):
        found = ball(geometry, geometry.shape, inside, diameter)
        volume = len(found[0]) * geometry.voxel_mm3
        assert volume >= geometry.voxel_mm3 and (diameter < 5 or abs(volume / (np.pi / 6 * diameter**3) - 1) < 0.1)
    assert len(ball(geometry, geometry.shape, geometry.affine()[:3] @ [40, 8, 7, 1.0], 4.0)[0]) == 0
    beside = geometry.affine()[:3] @ [-2.5, -2.5, -2.5, 1.0]
    assert len(ball(geometry, geometry.shape, beside, 6.0)[0]) == 0, "its box reaches in, but the ball does not"
    assert replace(Finding((0.0, 0.0, 0.0), 4.0), counts=False) != Finding((0.0, 0.0, 0.0), 4.0)

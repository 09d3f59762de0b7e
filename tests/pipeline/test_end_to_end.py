"""All stages on small cohorts of every kind; the figures are computed again from what was saved."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import zarr
from sklearn.metrics import accuracy_score, roc_auc_score

from megavox.core.errors import CohortError, StudyError, WorkspaceError
from megavox.pipeline.evaluate import evaluate
from megavox.pipeline.feed import feed
from megavox.pipeline.measure import measure
from megavox.pipeline.new import new
from megavox.pipeline.pack import pack
from megavox.pipeline.plan import plan
from megavox.pipeline.predict import predict
from megavox.pipeline.project import Project
from megavox.pipeline.report import report
from megavox.pipeline.train import train
from megavox.study import load_study
from small_studies import changed, packed_organs, picture_cohort, project_of, segment_cohort, volume_cohort


def all_stages(project: Project) -> Any:
    pack(project)
    plan(project)
    train(project)
    found = evaluate(project)
    report(project)
    return found


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open() as stream:
        return list(csv.DictReader(stream))


def voxels(path: Path) -> np.ndarray:
    return np.asarray(nibabel.load(path).dataobj)


@pytest.fixture(scope="module")
def segmented(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, Any]:
    folder = tmp_path_factory.mktemp("segment")
    project = project_of(segment_cohort(folder / "images", 12, dirty=True), folder, "organs")
    return project, all_stages(project)


def test_every_file_of_a_workspace_is_there(segmented: tuple[Project, Any]) -> None:
    root = segmented[0].workspace.root
    for name in ("cohort.csv", "quarantine.csv", "splits.json", "plan.json", "store/index.json", "report/index.html",
                 "runs/organs/study.yaml", "runs/organs/run.json", "runs/organs/metrics.jsonl", "runs/organs/DONE",
                 "runs/organs/checkpoints/best.json", "runs/organs/evaluation.json"):
        assert (root / name).is_file(), name


def test_broken_cases_are_set_aside_with_a_reason_and_the_rest_goes_on(segmented: tuple[Project, Any]) -> None:
    rows = rows_of(segmented[0].workspace.quarantine)
    assert len(rows) == 5
    assert len({row["reason"] for row in rows}) == 5, "five different defects have five different reasons"
    assert all(row["message"] and row["file"] for row in rows)
    assert len(segmented[0].entries()) == 12


def test_dice_is_that_of_the_saved_masks(segmented: tuple[Project, Any]) -> None:
    project, found = segmented
    folder = project.workspace.predictions("organs")
    labels = Path(project.study.cohort.folder) / "labelsTr"
    dices = []
    for path in sorted(folder.glob("*.nii.gz")):
        predicted, reference = voxels(path), voxels(labels / path.name)
        assert predicted.shape == reference.shape
        assert np.allclose(nibabel.load(path).affine, nibabel.load(labels / path.name).affine, atol=1e-4)
        pairs = [(predicted == k, reference == k) for k in (1, 2)]
        dices.append([2 * (one & other).sum() / (one.sum() + other.sum()) for one, other in pairs])
    assert len(dices) == 3
    assert found.summary["all"]["dice"]["mean"]["value"] == pytest.approx(np.mean(dices), abs=1e-9)


def test_measures_are_voxels_times_their_volume(segmented: tuple[Project, Any]) -> None:
    project, _ = segmented
    for row in measure(project).rows:
        image = nibabel.load(project.workspace.predictions("organs") / f"{row['case']}.nii.gz")
        size = abs(np.linalg.det(image.affine[:3, :3]))
        assert row["core volume_mm3"] == pytest.approx((voxels(Path(image.get_filename())) == 1).sum() * size, rel=1e-4)


def test_the_store_opens_with_zarr_alone_and_names_nobody(segmented: tuple[Project, Any]) -> None:
    store = segmented[0].workspace.store
    entry = segmented[0].entries()[0]
    group = zarr.open_group(str(store / entry.key), mode="r")
    scale = group.attrs["ome"]["multiscales"][0]["datasets"][0]["coordinateTransformations"][0]["scale"]
    assert scale[1:] == [2.5, 2.5, 2.5]
    text = "".join(path.read_text() for path in store.rglob("*.json"))
    assert not any(entry.case.name in text for entry in segmented[0].entries())


def test_stages_done_before_are_not_done_again(segmented: tuple[Project, Any]) -> None:
    project, found = segmented
    masks = project.workspace.predictions("organs")
    before = {path: path.stat().st_mtime_ns for path in [*masks.glob("*.nii.gz"), *project.run.checkpoints.rglob("*")]}
    shards = {path: path.stat().st_mtime_ns for path in project.workspace.store.rglob("c/**/*")}
    pack(project)
    train(project)
    assert evaluate(project).summary == found.summary
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert shards == {path: path.stat().st_mtime_ns for path in shards}


def test_a_run_refuses_another_study_and_a_store_another_cohort(segmented: tuple[Project, Any]) -> None:
    project, _ = segmented
    where = project.workspace.root.parent / "organs.yaml"
    other = Project.at(load_study(where, ["training.steps=5"]), project.workspace.root, "organs")
    with pytest.raises(WorkspaceError, match="other settings"):
        train(other)
    moved = Project.at(load_study(where, ["images.spacing_mm=[3,3,3]"]), project.workspace.root, "moved")
    with pytest.raises(WorkspaceError, match="megavox pack"):
        train(moved)


def test_refusing_quarantine_stops(tmp_path: Path) -> None:
    data = changed(segment_cohort(tmp_path / "images", 8, dirty=True), images={"quarantine": "refuse"})
    with pytest.raises(CohortError, match="set aside"):
        pack(project_of(data, tmp_path, "strict"))


def test_packing_again_after_a_change_packs_anew(tmp_path: Path) -> None:
    data = segment_cohort(tmp_path / "images", 8)
    pack(project_of(data, tmp_path, "first"))
    coarse = project_of(changed(data, images={"spacing_mm": [4.0, 4.0, 4.0]}), tmp_path, "second")
    pack(coarse)
    assert all(record.spacing_mm == (4.0, 4.0, 4.0) for record in coarse.store().records.values())


@pytest.mark.parametrize("multilabel", [False, True])
def test_pictures(tmp_path: Path, multilabel: bool) -> None:
    project = project_of(picture_cohort(tmp_path / "images", 60, multilabel), tmp_path, "pictures")
    found = all_stages(project)
    rows = found.rows
    probabilities = np.array([row["probabilities"] for row in rows])
    target = np.array([row["target"] for row in rows])
    if multilabel:
        values = [roc_auc_score(target[:, k], probabilities[:, k]) for k in range(2)
                  if 10 <= target[:, k].sum() <= len(target) - 10]
        assert found.summary["headline"]["auroc"]["value"] == (pytest.approx(np.mean(values)) if values else None)
    else:
        names = project.study.task.names
        decisions = [names.index(row["decision"][0]) for row in rows]
        assert np.allclose(probabilities.sum(axis=1), 1)
        assert found.summary["headline"]["accuracy"]["value"] == pytest.approx(
            accuracy_score(target.argmax(axis=1), decisions))
    table = rows_of(project.workspace.predictions("pictures") / "predictions.csv")
    assert len(table) == len(rows)
    with pytest.raises(StudyError, match="no volumes"):
        measure(project)


def test_volumes_by_class(tmp_path: Path) -> None:
    project = project_of(volume_cohort(tmp_path / "images"), tmp_path, "volumes")
    found = all_stages(project)
    assert found.summary["n_cases"] == len(found.rows) == 5


def test_prediction_of_a_folder_goes_on_past_broken_files(segmented: tuple[Project, Any], tmp_path: Path) -> None:
    project, _ = segmented
    source = tmp_path / "incoming"
    source.mkdir()
    images = sorted((Path(project.study.cohort.folder) / "imagesTr").glob("organ_00*.nii.gz"))[:3]
    for path in images:
        (source / path.name).write_bytes(path.read_bytes())
    (source / "broken.nii.gz").write_bytes(images[0].read_bytes()[:2000])
    outcome = predict(project, source, tmp_path / "out")
    assert [row["case"] for row in outcome.rows] == [path.name.removesuffix(".nii.gz") for path in images]
    assert [row["case"] for row in rows_of(tmp_path / "out/quarantine.csv")] in (["broken"], ["broken.nii.gz"])
    record = json.loads((tmp_path / "out" / f"{outcome.rows[0]['case']}.json").read_text())
    assert record["seconds"] and record["provenance"]["versions"]["torch"] and len(record["input_hash"]) == 64


def test_new_writes_a_study_that_loads_and_says_why(tmp_path: Path) -> None:
    segment_cohort(tmp_path / "organs", 8, dirty=True)
    draft = new(tmp_path / "organs")
    (tmp_path / "study.yaml").write_text(draft.text)
    assert load_study(tmp_path / "study.yaml").task.names == ["core", "shell"]
    assert "# " in draft.text.split("patch:")[0].splitlines()[-2]


def test_a_run_is_not_evaluated_on_a_split_it_did_not_know(tmp_path: Path) -> None:
    data = segment_cohort(tmp_path / "images", 10)
    project = project_of(data, tmp_path, "honest")
    pack(project)
    train(project)
    (tmp_path / "images/imagesTr/organ_003.nii.gz").unlink()
    pack(project)
    for stage in (train, evaluate):
        with pytest.raises(WorkspaceError, match="learnt from"):
            stage(project)


def test_a_corrected_target_is_packed_anew(tmp_path: Path) -> None:
    project = project_of(segment_cohort(tmp_path / "images", 8), tmp_path, "mended")
    pack(project)
    entry = project.entries()[0]
    before = project.store().records[entry.key].voxels
    mask = nibabel.load(entry.case.masks[0])
    nibabel.save(nibabel.Nifti1Image((np.asarray(mask.dataobj) > 0).astype(np.uint8), mask.affine), entry.case.masks[0])
    pack(project)
    after = project.store().records[entry.key].voxels
    assert after != before
    assert after[1] == 0


def test_a_changed_split_does_not_pack_anew(tmp_path: Path) -> None:
    data = segment_cohort(tmp_path / "images", 8)
    project = project_of(data, tmp_path, "first")
    pack(project)
    shards = {path: path.stat().st_mtime_ns for path in project.workspace.store.rglob("c/**/*")}
    other = project_of(changed(data, split={"test": 0.4}), tmp_path, "second")
    with pytest.raises(WorkspaceError, match="megavox pack"):
        other.store()
    pack(other)
    assert shards == {path: path.stat().st_mtime_ns for path in shards}


def test_the_data_path_is_timed_without_a_network(tmp_path: Path) -> None:
    data, folder = packed_organs(tmp_path)
    found = feed(project_of(data, folder, "feed"), seconds=0.2)
    assert [one.workers for one in found][:2] == [0, 1] and all(one.samples_per_s > 1 for one in found)

"""Predicting folders: geometry, series, restarts at any point, and what is half-written."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import psutil
import pytest

from megavox.core.errors import CheckpointError, CohortError, MachineError, WorkspaceError
from megavox.core.files import file_hash, read_csv, read_json, write_json
from megavox.core.workspace import DONE
from megavox.images.geometry import Geometry
from megavox.images.nifti import write_nifti
from megavox.inference.agreement import Agreement
from megavox.phantoms import organ
from megavox.pipeline.evaluate import evaluate
from megavox.pipeline.measure import measure
from megavox.pipeline.predict import predict
from megavox.pipeline.project import Project
from megavox.pipeline.report import content_of
from megavox.pipeline.train import train
from megavox.study.prediction import FastSection
from megavox.training.best import AVERAGED, best_checkpoint
from small_studies import environment, packed_organs, project_of

TURNED = (0.9363, -0.2896, 0.1987, 0.3130, 0.9447, -0.0978, -0.1593, 0.1538, 0.9752)

@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    data, folder = packed_organs(tmp_path_factory.mktemp("predict"))
    found = project_of(data, folder, "predicting")
    train(found)
    return found


@pytest.fixture(scope="module")
def incoming(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("incoming")
    for number in range(3):
        phantom = organ(9, number)
        write_nifti(folder / f"visit{number}.nii.gz", phantom.image[None], phantom.geometry)
    tilted = Geometry((20, 24, 18), (2.0, 1.7, 2.4), (-30.0, 12.5, 80.0), TURNED)
    write_nifti(folder / "sub" / "visit0.nii.gz", np.random.default_rng(0).integers(0, 900, (1, 18, 24, 20), "int16"),
                tilted)
    return folder


def hashes(folder: Path) -> dict[str, str]:
    return {path.name: file_hash(path) for path in sorted(folder.glob("*.nii.gz"))}


def test_masks_lie_where_their_images_lie(project: Project, incoming: Path, tmp_path: Path) -> None:
    outcome = predict(project, incoming, tmp_path)
    assert not outcome.rejected
    assert len({row["case"] for row in outcome.rows}) == 4, "two files of one name are two cases"
    for row in outcome.rows:
        image = nibabel.load(row["files"][0])
        mask = nibabel.load(tmp_path / f"{row['case']}.nii.gz")
        assert mask.shape == image.shape
        assert np.allclose(mask.affine, image.affine, atol=1e-4)
        assert set(np.unique(np.asarray(mask.dataobj))) <= {0, 1, 2}


def test_finished_cases_are_kept_and_half_written_ones_are_made_again(project: Project, incoming: Path,
                                                                      tmp_path: Path) -> None:
    rows = predict(project, incoming, tmp_path).rows
    clean = hashes(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.nii.gz")}
    predict(project, incoming, tmp_path)
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.nii.gz")}
    (tmp_path / f"{rows[0]['case']}.json").unlink()
    (tmp_path / f"{rows[1]['case']}.nii.gz").unlink()
    (tmp_path / f"{rows[2]['case']}.nii.gz").write_bytes(b"")
    predict(project, incoming, tmp_path)
    assert hashes(tmp_path) == clean


def test_images_are_never_overwritten(project: Project, incoming: Path) -> None:
    before = hashes(incoming)
    for output in (incoming, incoming.parent):
        with pytest.raises(WorkspaceError, match="overwrite"):
            predict(project, incoming, output)
    assert hashes(incoming) == before


def test_masks_below_the_input_are_no_images(project: Project, incoming: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "visit1.nii.gz").write_bytes((incoming / "visit1.nii.gz").read_bytes())
    for _ in range(2):
        assert [row["case"] for row in predict(project, copy, copy / "masks").rows] == ["visit1"]


def test_a_folder_without_images_is_an_error(project: Project, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing here")
    with pytest.raises(CohortError, match="no image"):
        predict(project, tmp_path, tmp_path / "out")


def when_read(folder: Path, name: str, do: str) -> dict[str, str]:
    """Environment in which workers `do` something before they open a file of this name."""
    (folder / "path").mkdir()
    (folder / "path" / "sitecustomize.py").write_text(
        "import multiprocessing, os, signal, sys, time\n"
        "def hook(event, arguments):\n"
        f"    if event == 'open' and str(arguments[0]).endswith({name!r}) and multiprocessing.parent_process():\n"
        f"        {do}\n"
        "sys.addaudithook(hook)\n")
    variables = environment()
    return {**variables, "PYTHONPATH": f"{folder / 'path'}{os.pathsep}{variables.get('PYTHONPATH', '')}"}


def command(project: Project, incoming: Path, out: Path) -> list[str]:
    study = project.workspace.root.parent / "predicting.yaml"
    return [sys.executable, "-m", "megavox", "predict", str(study), "--workspace", str(project.workspace.root),
            "--run-name", "predicting", "--input", str(incoming), "--output", str(out), "--workers", "2"]


def test_a_case_that_kills_its_worker_is_set_aside_and_the_command_ends_well(project: Project, incoming: Path,
                                                                             tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = subprocess.run(command(project, incoming, out), capture_output=True, text=True, check=False, timeout=120,
                          env=when_read(tmp_path, "/visit1.nii.gz", "os.kill(os.getpid(), signal.SIGKILL)"))
    assert done.returncode == 0, done.stderr
    assert "3 cases predicted" in done.stdout and "1 could not be, see" in done.stdout
    assert ": 2 workers of 1 thread on" in done.stderr
    row, = read_csv(out / "quarantine.csv")
    assert (row["case"], row["reason"]) == ("visit1", "killed its worker") and "SIGKILL" in row["message"]
    assert len(read_csv(out / "predictions.csv")) == 3 and not list(out.glob(".unfinished*"))
    assert len(predict(project, incoming, out).rows) == 4, "the next command tries it again"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
def test_a_signal_ends_a_prediction_and_the_same_command_goes_on(project: Project, incoming: Path, tmp_path: Path,
                                                                 number: signal.Signals, status: int) -> None:
    out, slow = tmp_path / "out", tmp_path / "slow"
    process = subprocess.Popen(
        command(project, incoming, out), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
        env=when_read(tmp_path, "/visit2.nii.gz", f"open({str(slow)!r}, 'w').close(); time.sleep(60)"))
    end = time.monotonic() + 60
    while not (slow.exists() and len(list(out.glob("[!.]*.json"))) == 3):
        assert process.poll() is None and time.monotonic() < end, process.communicate()
        time.sleep(0.02)
    below = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, number)
    text, told = process.communicate(timeout=40)  # it does not wait for the image that takes a minute to read
    assert process.returncode == status and text == ""
    assert f"stopped; 3 of 4 cases are predicted in {out} and the same command goes on" in told
    assert "Traceback" not in told and not list(out.glob(".unfinished*")) and not (out / "predictions.csv").exists()
    _, left = psutil.wait_procs(below, timeout=5)
    assert not left
    kept = hashes(out)
    predict(project, incoming, out)
    assert len(kept) == 3 and kept.items() < hashes(out).items()


def test_what_cannot_be_predicted_any_more_leaves_no_old_mask(project: Project, incoming: Path,
                                                              tmp_path: Path) -> None:
    folder, output = tmp_path / "images", tmp_path / "out"
    shutil.copytree(incoming, folder)
    predict(project, folder, output)
    assert (output / "visit1.nii.gz").exists() and len(read_csv(output / "predictions.csv")) == 4
    (folder / "visit1.nii.gz").write_bytes((folder / "visit1.nii.gz").read_bytes()[:2000])
    (folder / "visit2.nii.gz").unlink()
    predict(project, folder, output)
    listed = read_csv(output / "predictions.csv")
    assert not (output / "visit1.nii.gz").exists() and not (output / "visit1.json").exists()
    assert len(listed) == 2 and (output / "visit2.nii.gz").exists()  # of an earlier input: left, but not listed
    assert len(measure(project, output).rows) == 2
    for path in folder.rglob("*.nii.gz"):
        path.write_bytes(b"no image")
    with pytest.raises(CohortError, match=r"no image that can be used|none of \d cases"):
        predict(project, folder, output)


def test_a_run_whose_recipe_is_damaged_or_gone_is_told(project: Project, incoming: Path, tmp_path: Path) -> None:
    half = replace(project, run_name="damaged")
    shutil.copytree(project.run.root, half.run.root)
    for text in ("{", "{}", "[]", '{"study": 3}'):
        half.run.recipe.write_text(text)
        for use in (train, evaluate):
            with pytest.raises(WorkspaceError, match=r"damaged.*remove"):
                use(half)
    half.run.recipe.unlink()
    with pytest.raises(WorkspaceError, match=r"is gone.*remove the run's folder"):
        train(half)


def test_originals_are_never_in_the_way(project: Project, tmp_path: Path) -> None:
    masks = next(entry.case.masks[0] for entry in project.entries()).parent
    before = hashes(masks)
    with pytest.raises(WorkspaceError, match="among the images"):
        predict(project, None, masks)
    assert hashes(masks) == before


def test_other_settings_than_the_runs_are_told(project: Project, incoming: Path, tmp_path: Path,
                                               capsys: pytest.CaptureFixture[str]) -> None:
    batches = project.study.batches.model_copy(update={"foreground": 0.9})
    predict(replace(project, study=project.study.model_copy(update={"batches": batches})), incoming, tmp_path / "out")
    assert "batches.foreground was 0.5 and is 0.9" in capsys.readouterr().err


def test_an_output_that_cannot_be_a_folder_is_told(project: Project, incoming: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for output in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(MachineError, match="Choose another --output"):
            predict(project, incoming, output)


def test_a_report_of_cases_that_went_is_refused(project: Project, tmp_path: Path) -> None:
    half = replace(project, run_name="gone")
    shutil.copytree(project.run.root, half.run.root)
    evaluate(half)
    table = project.workspace.cohort
    before = table.read_text()
    try:
        table.write_text("".join(line for line in before.splitlines(keepends=True) if ",test," not in line))
        for use in (content_of, evaluate, train):
            with pytest.raises(WorkspaceError, match="not as it was packed"):
                use(half)
    finally:
        table.write_text(before)


def test_a_run_of_another_split_is_refused_by_all_that_read_the_split(project: Project) -> None:
    other = replace(project, run_name="other-split")
    shutil.copytree(project.run.root, other.run.root)
    evaluate(other)
    recipe = read_json(other.run.recipe)
    recipe["provenance"]["split_hash"] = "0" * 16
    write_json(other.run.recipe, recipe)
    for use in (content_of, evaluate, train):
        with pytest.raises(WorkspaceError, match="changed their part of the split"):
            use(other)


def test_a_training_that_has_not_ended_is_told(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    half = replace(project, run_name="half")
    shutil.copytree(project.run.root, half.run.root)
    half.run.done.unlink()
    evaluate(half)
    assert "training of half has not ended" in capsys.readouterr().err
    assert any("had not ended" in note for note in content_of(half).notes)
    half.run.done.touch()
    evaluate(half)
    assert "has not ended" not in capsys.readouterr().err and not content_of(half).notes


def with_fast(project: Project, **fast: object) -> Project:
    section = project.study.inference.model_copy(update={"fast": FastSection(**fast)})
    return replace(project, study=project.study.model_copy(update={"inference": section}))


def test_other_weights_are_never_predicted_with_as_the_old_ones(project: Project, incoming: Path,
                                                                 tmp_path: Path) -> None:
    """They are kept as OpenVINO has them, which does not read the file."""
    other = replace(project, run_name="other-weights")
    shutil.copytree(project.run.root, other.run.root)
    predict(other, incoming, tmp_path / "before")
    path = best_checkpoint(other.run) / AVERAGED
    weights = bytearray(path.read_bytes())
    weights[-400:] = bytes(400)
    path.write_bytes(weights)
    with pytest.raises(CheckpointError, match="damaged"):
        predict(other, incoming, tmp_path / "after")
    done = path.with_name(DONE)
    lines = [line for line in done.read_text().splitlines(keepends=True) if AVERAGED not in line]
    done.write_text("".join([*lines, f"{file_hash(path)}  {AVERAGED}\n"]))  # as if it had been trained to that
    predict(other, incoming, tmp_path / "after")
    assert hashes(tmp_path / "after") != hashes(tmp_path / "before")


AGREES = Agreement(argmax=1.0, dice={"core": 1.0}, cases=3, exact_s=2.0, fast_s=1.0)


def test_a_faster_setting_that_agrees_is_used_and_the_report_says_so(
        project: Project, incoming: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch) -> None:
    fast = with_fast(project, overlap=0.4)
    monkeypatch.setattr("megavox.pipeline.setting.agreement", lambda *_: AGREES)
    predict(fast, incoming, tmp_path / "fast")
    assert "inference.fast is used: on" in capsys.readouterr().err
    assert {read_json(path)["setting"]["overlap"] for path in (tmp_path / "fast").glob("*.json")} == {0.4}
    state = project.run.agreement.stat().st_mtime_ns
    evaluate(fast)
    assert project.run.agreement.stat().st_mtime_ns == state  # measured once
    assert any("faster, inexact setting" in note for note in content_of(fast).notes)


@pytest.mark.parametrize("asked", [{}, {"overlap": 0.5}, {"precision": "float32"}])
def test_a_faster_setting_that_is_the_exact_one_is_not_measured(project: Project, incoming: Path, tmp_path: Path,
                                                                capsys: pytest.CaptureFixture[str],
                                                                asked: dict[str, object]) -> None:
    predict(with_fast(project, **asked), incoming, tmp_path)
    assert "inference.fast is not used: on this machine it is what" in capsys.readouterr().err


def test_only_a_faster_setting_that_agrees_and_is_faster_is_used() -> None:
    assert AGREES.enough
    for change in ({"argmax": 0.99}, {"dice": {}}, {"dice": {"core": 0.99}}, {"fast_s": 2.0}):
        assert not replace(AGREES, **change).enough


def test_a_faster_setting_that_does_not_agree_is_not_used(project: Project, incoming: Path, tmp_path: Path,
                                                          capsys: pytest.CaptureFixture[str]) -> None:
    fast = with_fast(project, mirror=True, overlap=0.0)
    predict(fast, incoming, tmp_path / "fast")
    assert "inference.fast is not used: on" in capsys.readouterr().err
    predict(project, incoming, tmp_path / "exact")
    assert hashes(tmp_path / "fast") == hashes(tmp_path / "exact")
    evaluate(fast)
    assert not content_of(fast).notes


def test_a_setting_that_agrees_reaches_the_workers_and_replaces_what_the_exact_one_made(
        project: Project, incoming: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch) -> None:
    fast = with_fast(project, overlap=0.3)
    monkeypatch.setattr("megavox.pipeline.setting.agreement", lambda *_: AGREES)
    project.run.agreement.parent.mkdir(exist_ok=True)
    project.run.agreement.write_text("{ damaged")
    predict(project, incoming, tmp_path)
    predict(fast, incoming, tmp_path)
    assert "inference.fast is used: on" in capsys.readouterr().err
    records = [read_json(path) for path in sorted(tmp_path.glob("*.json"))]
    assert {record["setting"]["overlap"] for record in records} == {0.3}
    about = read_json(project.run.agreement)
    write_json(project.run.agreement, {**about, "enough": False, "agreement": {**about["agreement"], "argmax": 0.5}})
    predict(fast, incoming, tmp_path)  # as if it had been measured otherwise
    records = [read_json(path) for path in sorted(tmp_path.glob("*.json"))]
    assert {record["setting"]["overlap"] for record in records} == {0.5}
    project.run.agreement.unlink()


def test_masks_outlive_images_that_are_away_for_a_while(project: Project, tmp_path: Path) -> None:
    predict(project, None, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.nii.gz")}
    images = next(entry.case.images[0][0] for entry in project.entries()).parent
    away = images.rename(images.with_name("away"))
    try:
        with pytest.raises(CohortError, match="could be predicted"):
            predict(project, None, tmp_path)
    finally:
        away.rename(images)
    predict(project, None, tmp_path)
    assert before and before == {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.nii.gz")}

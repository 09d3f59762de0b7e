"""Cohort runs: what is kept without being read, what is made again, and how many workers there are."""

from __future__ import annotations

import mmap
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from megavox.cohort.case import Case
from megavox.core.claims import Claims
from megavox.core.errors import ImageError, MachineError, WorkspaceError
from megavox.core.files import read_csv, read_json, write_json
from megavox.inference.case import failure_of
from megavox.inference.cohort import CLAIMS, _Book, cases_in, predict_cases, read_outcome
from megavox.inference.predictor import Predictor
from megavox.inference.recipe import Network
from megavox.inference.records import ASIDE
from megavox.inference.sizing import IDLE, SHARE, Size, allowed, planned, told
from megavox.memory.available import available_bytes, private_bytes
from small_network import damage, masks, small_cases, small_network

COUNT = 5


@pytest.fixture
def cohort(tmp_path: Path) -> tuple[Network, list[Case], Path]:
    """A network, cases, and a folder in which they are predicted."""
    network, cases = small_network(tmp_path / "network"), small_cases(tmp_path / "images", COUNT)
    outcome = predict_cases(network, cases, tmp_path / "out", workers=1)
    assert [row["case"] for row in outcome.rows] == [case.name for case in cases]
    return network, cases, tmp_path / "out"


@pytest.fixture
def no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on no worker may start."""
    def refused(*_: object, **__: object) -> None:
        raise AssertionError("a worker was started")

    monkeypatch.setattr("megavox.inference.cohort.Runner", refused)


def test_any_number_of_workers_gives_the_same_masks_and_table(cohort: tuple[Network, list[Case], Path],
                                                              tmp_path: Path, capsys: pytest.CaptureFixture[str]
                                                              ) -> None:
    network, cases, out = cohort
    for workers in (3, None):
        predict_cases(network, cases, tmp_path / f"{workers}", workers=workers)
        assert masks(tmp_path / f"{workers}") == masks(out) and len(masks(out)) == COUNT
        assert (tmp_path / f"{workers}/predictions.csv").read_text() == (out / "predictions.csv").read_text()
    told = capsys.readouterr().err
    assert told.count("one worker needs 0.") == 2 and ": 3 workers of 1 thread on" in told


def test_what_is_done_is_kept_without_being_read(cohort: tuple[Network, list[Case], Path], no_worker: None) -> None:
    network, cases, out = cohort
    table = (out / "predictions.csv").read_text()
    for case in cases:
        damage(case.images[0][0])
    assert len(predict_cases(network, cases, out).rows) == COUNT
    assert (out / "predictions.csv").read_text() == table


def test_where_times_differ_the_content_decides(cohort: tuple[Network, list[Case], Path],
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    network, cases, out = cohort
    before = {path: path.stat().st_ino for path in out.glob("case*.nii.gz")}
    for path in [*before, *(case.images[0][0] for case in cases)]:
        os.utime(path)
    cases[1].images[0][0].write_bytes(cases[2].images[0][0].read_bytes())
    predict_cases(network, cases, out)
    after = {path: path.stat().st_ino for path in before}
    assert [path.name for path in before if before[path] != after[path]] == ["case01.nii.gz"]
    assert masks(out)["case01.nii.gz"] == masks(out)["case02.nii.gz"]
    monkeypatch.setattr("megavox.inference.cohort.Runner", None)
    assert len(predict_cases(network, cases, out).rows) == COUNT, "the new times are noted"


def test_empty_and_cut_masks_and_records_are_made_again(cohort: tuple[Network, list[Case], Path]) -> None:
    network, cases, out = cohort
    clean = masks(out)
    (out / "case00.nii.gz").write_bytes(b"")
    (out / "case01.nii.gz").write_bytes((out / "case01.nii.gz").read_bytes()[:-9])
    (out / "case02.json").write_bytes(b"")
    (out / "case03.json").write_bytes((out / "case03.json").read_bytes()[:200])
    (out / "case04.nii.gz").unlink()
    assert len(predict_cases(network, cases, out).rows) == COUNT
    assert masks(out) == clean
    for case in cases:
        assert read_json(out / f"{case.name}.json")["output_hash"] == clean[f"{case.name}.nii.gz"]


def test_other_weights_predict_anew(cohort: tuple[Network, list[Case], Path]) -> None:
    network, cases, out = cohort
    before = {path: path.stat().st_ino for path in out.glob("case*.nii.gz")}
    rows = predict_cases(replace(network, weights="w2"), cases, out).rows
    assert all(row["weights"] == "w2" for row in rows)
    assert not set(before.items()) & {(path, path.stat().st_ino) for path in before}


def test_a_broken_image_is_not_read_again_until_it_changes(cohort: tuple[Network, list[Case], Path],
                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    network, cases, out = cohort
    path = cases[3].images[0][0]
    sound = path.read_bytes()
    path.write_bytes(sound[:300])
    outcome = predict_cases(network, cases, out)
    assert [one.case for one in outcome.rejected] == ["case03"] and len(outcome.rows) == COUNT - 1
    assert not (out / "case03.nii.gz").exists() and not (out / "case03.json").exists()
    assert read_json(out / ASIDE / "case03.json")["message"] == read_csv(out / "quarantine.csv")[0]["message"]
    with monkeypatch.context() as patch:
        patch.setattr("megavox.inference.cohort.Runner", None)
        again = predict_cases(network, cases, out)
        assert again.rejected == outcome.rejected
    path.write_bytes(sound)
    assert len(predict_cases(network, cases, out).rows) == COUNT
    assert not list((out / ASIDE).iterdir()) and not read_csv(out / "quarantine.csv")


def test_damaged_weights_are_told_by_the_worker(cohort: tuple[Network, list[Case], Path], tmp_path: Path) -> None:
    network, cases, _ = cohort
    damage(next(network.checkpoint.glob("*.safetensors")))
    with pytest.raises(Exception, match="damaged"):
        predict_cases(network, cases, tmp_path / "none")


def test_a_folder_that_cannot_be_written_ends_the_command_and_blames_no_case(
        cohort: tuple[Network, list[Case], Path], tmp_path: Path) -> None:
    network, cases, _ = cohort
    if os.geteuid() == 0:
        pytest.skip("root may write anywhere")
    (tmp_path / "locked").mkdir(mode=0o555)
    with pytest.raises(MachineError, match="not allowed"):
        predict_cases(network, cases, tmp_path / "locked")


def test_cases_of_one_name_stay_apart(tmp_path: Path) -> None:
    image = small_cases(tmp_path / "one", 1)[0].images[0][0].read_bytes()
    for place in ("a/b_c/x.nii.gz", "a_b/c/x.nii.gz", "out/x.nii.gz"):
        (tmp_path / "in" / place).parent.mkdir(parents=True)
        (tmp_path / "in" / place).write_bytes(image)
    cases, _ = cases_in(tmp_path / "in", 1, tmp_path / "in" / "out")
    assert len({case.name for case in cases}) == len(cases) == 2


def test_one_file_is_a_case(cohort: tuple[Network, list[Case], Path], tmp_path: Path) -> None:
    _, cases, _ = cohort
    [found], rejected = cases_in(cases[2].images[0][0], 1, tmp_path / "elsewhere")
    assert (found.name, found.images) == (cases[2].name, cases[2].images) and not rejected


def test_masks_are_no_cases(cohort: tuple[Network, list[Case], Path], tmp_path: Path,
                            capsys: pytest.CaptureFixture[str]) -> None:
    _, cases, out = cohort
    root = tmp_path / "root"
    shutil.copytree(cases[0].images[0][0].parent, root / "imagesTr")
    shutil.copytree(root / "imagesTr", root / "labelsTr")
    shutil.copytree(out, root / "earlier")
    found, _ = cases_in(root, 1, tmp_path / "new")
    assert {case.name for case in found} == {case.name for case in cases}
    assert f"note: {2 * COUNT} files are left out" in capsys.readouterr().err
    assert len(cases_in(root / "labelsTr", 1, tmp_path / "new")[0]) == COUNT, "asked for by name"


def test_predictions_of_other_images_of_the_same_name_stay(cohort: tuple[Network, list[Case], Path],
                                                           tmp_path: Path) -> None:
    network, _, out = cohort
    before = masks(out), (out / "predictions.csv").read_text()
    others = small_cases(tmp_path / "other", 1)
    damage(others[0].images[0][0])
    with pytest.raises(WorkspaceError, match=r"name case00 the prediction of another image, .*case00\.nii\.gz"):
        predict_cases(network, others, out)
    assert (masks(out), (out / "predictions.csv").read_text()) == before
    predict_cases(network, small_cases(tmp_path / "copied", COUNT), out)  # the same images in another place
    assert masks(out) == before[0]


def test_predictions_of_another_task_stay(cohort: tuple[Network, list[Case], Path]) -> None:
    network, cases, out = cohort
    record = read_json(out / f"{cases[1].name}.json")
    write_json(out / f"{cases[1].name}.json", {**record, "probabilities": [0.5], "weights": "of a classifier"})
    with pytest.raises(WorkspaceError, match="prediction of another task"):
        predict_cases(network, cases, out)


def test_channels_of_a_case_are_not_joined_with_a_file_of_its_name(tmp_path: Path) -> None:
    image = small_cases(tmp_path / "one", 1)[0].images[0][0].read_bytes()
    (tmp_path / "in").mkdir()
    for name in ("x", "x_0000", "x_0001"):
        (tmp_path / "in" / f"{name}.nii.gz").write_bytes(image)
    cases, _ = cases_in(tmp_path / "in", 2)
    assert sorted(len(case.images) for case in cases) == [1, 2]
    assert len({case.name for case in cases}) == 2


def test_a_network_that_cannot_be_converted_is_told_once(tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="the extra megavox[cpu] is not installed")
    network = small_network(tmp_path / "network", inference={"mirror": False})
    Predictor(network.recipe, network.checkpoint, torch.device("cpu"))
    [kept] = network.checkpoint.glob("openvino-*")
    (kept / "network.xml").write_text("not a network")
    code = (f"from pathlib import Path; root = Path({str(tmp_path)!r})\n"
            "from megavox.inference.cohort import predict_cases\n"
            "from small_network import small_cases, small_network\n"
            "network = small_network(root / 'network', inference={'mirror': False})\n"
            "predict_cases(network, small_cases(root / 'in', 6), root / 'out', workers=3)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300,
                          env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])})
    assert len(masks(tmp_path / "out")) == 6
    assert done.stderr.count("OpenVINO does not compute this network") == 1


def test_claims_of_other_commands_are_not_asked_for_all_the_time(tmp_path: Path,
                                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    network, cases, asked = small_network(tmp_path / "network"), small_cases(tmp_path / "images", 4), []
    with Claims(tmp_path / "claims") as theirs, Claims(tmp_path / "claims") as ours:
        for case in cases[1:]:
            assert theirs.take(case.name)
        take = ours.take
        monkeypatch.setattr(ours, "take", lambda name: asked.append(name) or take(name))
        book = _Book(network, cases, tmp_path, ours)
        book.look(in_order=True)
        assert book.next_case() == cases[0]
        for _ in range(20):
            assert book.next_case() is None
        assert len(asked) <= 7, "each when it is its turn, and once more"
        theirs.release(cases[2].name)
        assert book.next_case() is None, "there is something to wait for"
        book.enter(cases[0], failure_of(ImageError("broken", where="x"), cases[0]))
        assert book.next_case() == cases[2], "there is nothing else to do"


def test_a_case_that_others_ended_meanwhile_counts_though_they_still_look_at_it(
        cohort: tuple[Network, list[Case], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of three commands one may claim a case for a moment, only to find it done, just as another asks for it."""
    network, cases, out = cohort
    table = (out / "predictions.csv").read_text()
    record, away = out / f"{cases[1].name}.json", out.parent / "kept.json"

    class Meanwhile:
        """In the place of workers: another command ends the case, which a third has claimed."""

        def __init__(self, network: Network, folder: Path, next_case: Callable[[], Case | None], *_: object) -> None:
            self._next_case = next_case

        def run(self, check: object) -> Iterator[object]:
            with Claims(out / CLAIMS) as third:
                assert third.take(cases[1].name)
                assert self._next_case() is None
                away.rename(record)
            return iter(())

    record.rename(away)
    monkeypatch.setattr("megavox.inference.cohort.Runner", Meanwhile)
    assert predict_cases(network, cases, out).elsewhere == 0
    assert (out / "predictions.csv").read_text() == table


def test_the_tables_tell_what_a_prediction_gave(cohort: tuple[Network, list[Case], Path]) -> None:
    network, cases, out = cohort
    damage(cases[0].images[0][0])
    os.utime(cases[0].images[0][0])
    given = predict_cases(network, cases, out, workers=1)
    told, names = read_outcome(out), [case.name for case in cases[1:]]
    assert [row["case"] for row in told.rows] == [row["case"] for row in given.rows] == names
    assert told.rejected == given.rejected and len(told.rejected) == 1 and told.elsewhere == 0
    (out / "predictions.csv").unlink()
    with pytest.raises(WorkspaceError, match=r"predictions\.csv"):
        read_outcome(out)


@given(cores=st.integers(1, 300), cases=st.integers(1, 10_000), need=st.integers(1, 10**11),
       available=st.integers(0, 10**13))
def test_workers_fit_into_cores_and_memory_and_few_cores_lie_idle(cores: int, cases: int, need: int,
                                                                  available: int) -> None:
    plan = planned(cores, cases)
    size = allowed(plan, cores, need, available)
    assert size.workers * size.threads <= max(cores, 1)
    assert size.workers == 1 or size.workers * need <= SHARE * available
    assert size.workers <= cases
    if cases >= cores:
        assert size.workers * size.threads >= (1 - IDLE) * cores


def test_memory_for_few_workers_gives_them_more_threads(cohort: tuple[Network, list[Case], Path], tmp_path: Path,
                                                        monkeypatch: pytest.MonkeyPatch,
                                                        capsys: pytest.CaptureFixture[str]) -> None:
    network, cases, out = cohort
    monkeypatch.setattr("megavox.inference.runner.cores", lambda: 4)
    monkeypatch.setattr("megavox.inference.runner.available_bytes", lambda: 0)
    assert len(predict_cases(network, cases, tmp_path / "few").rows) == COUNT
    assert "1 worker of 4 threads on 4 cores" in capsys.readouterr().err and masks(tmp_path / "few") == masks(out)


def test_sizes() -> None:
    gb = 10**9
    assert planned(24, 50_000) == Size(24, 1) and planned(24, 1) == Size(1, 24) and planned(4, 9, asked=9) == Size(9, 1)
    assert allowed(Size(24, 1), 24, 4 * gb, 64 * gb) == Size(12, 2), "memory holds 14, of which 10 cores would idle"
    assert allowed(Size(24, 1), 24, 100 * gb, 64 * gb) == Size(1, 24)
    assert told(Size(8, 3), int(1.2e9), 24) == "one worker needs 1.2 GB: 8 workers of 3 threads on 24 cores"


def test_memory_of_this_process_is_measured() -> None:
    before, size = private_bytes(), 64 << 20
    with mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as held:  # the heap may have as many to spare
        held.write(os.urandom(1 << 20) * 64)
        most, now = private_bytes()
    assert now >= before[1] + size // 2 and most >= now and 0 < available_bytes() < 1 << 50

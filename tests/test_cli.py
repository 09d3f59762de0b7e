"""The command line: exit statuses, messages without tracebacks, a quick start."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from megavox import cli
from megavox.images.geometry import Geometry
from megavox.images.nifti import write_nifti
from small_studies import environment, segment_cohort, write_study


def command(*words: str | Path, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "megavox", *map(str, words)], capture_output=True, text=True,
                          env=environment(), cwd=folder, check=False, timeout=300)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    return write_study(folder / "study.yaml", segment_cohort(folder / "images", 8, dirty=True))


def test_run_does_everything_and_ends_with_the_report_and_the_headline(study: Path) -> None:
    done = command("run", study)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    page = next(Path(line.strip()) for line in lines if line.endswith("index.html"))
    assert page.is_file()
    assert any(line.strip().startswith("Mean Dice: ") for line in lines[lines.index("report:"):])
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("words", "told"), [
    (["pack", "absent.yaml"], "no such study file"),
    (["pack", "STUDY", "--set", "trainin.steps=3"], "Did you mean training?"),
    (["pack", "STUDY", "--set", "training.steps=-1"], "greater than or equal to 1"),
    (["evaluate", "STUDY", "--workspace", "nowhere"], "Run `megavox"),
    (["pack", "STUDY", "--workspace", "/dev/null/here"], "Choose another place"),
    (["train", "STUDY", "--workspace", "nowhere"], "Run `megavox pack` first"),
    (["plan", "STUDY", "--memory", "eleven"], "a number with its unit, such as 11GB or 800MB"),
    (["plan", "STUDY", "--memory", "0GB"], "a number with its unit"),
    (["plan", "STUDY", "--memory", "11"], "a number with its unit"),
    (["plan", "STUDY", "--ranks", "0"], "--ranks"),
    (["predict", "STUDY", "--input", "nowhere"], "no such folder"),
    (["new", "nowhere"], "nowhere"),
    (["pack"], "Missing argument"),
    (["unheard-of"], "No such command")])
def test_a_users_mistake_is_a_message_and_status_2(study: Path, tmp_path: Path, words: list[str], told: str) -> None:
    done = command(*[str(study) if word == "STUDY" else word for word in words], folder=tmp_path)
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr + done.stdout


def test_plan_tells_every_way_for_some_memory_and_ranks(study: Path) -> None:
    assert command("pack", study).returncode == 0
    done = command("plan", study, "--memory", "900 MB", "--ranks", "2", "--set", "batches.size=4")
    assert done.returncode == 0, done.stderr
    lines = [line.strip() for line in done.stdout.splitlines()]
    assert "memory of a step, in GB, of 0.9 GB:" in lines
    rows = [line for line in lines if line.startswith(("plain", "streamed", "recomputed"))]
    assert {row.split()[0] for row in rows} == {"plain", "streamed", "recomputed"}
    assert [row for row in rows if row.endswith("taken")] == rows[:1]
    assert any(line.startswith("at its peak (") and "GB" not in line for line in lines)
    small = command("plan", study, "--memory", "10MiB")
    assert small.returncode == 2 and "a training step fits 0.0105 GB in no way" in small.stderr


def test_our_own_fault_is_status_1_and_a_traceback_file(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("megavox.pipeline.pack.pack", fails)
    assert cli.main(["pack", str(study)]) == 1
    assert "our fault" in capsys.readouterr().err
    assert "ZeroDivisionError" in next(tmp_path.glob("megavox-error-*.txt")).read_text()


def test_study_show_and_schema(study: Path) -> None:
    assert "mask_tolerance_mm: 0.1" in command("study", "show", study).stdout
    assert '"additionalProperties": false' in command("study", "schema").stdout


def test_new_writes_to_standard_output_and_tells_on_standard_error(study: Path) -> None:
    done = command("new", study.parent / "images")
    assert done.returncode == 0
    assert done.stdout.startswith("# ")
    assert "layout: decathlon" in done.stdout
    assert "8 of 8 subjects" not in done.stdout
    assert "subjects" in done.stderr


def test_new_tells_whole_names_of_what_would_be_set_aside_and_how_many_more(
        tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(15):
        for place in ("imagesTr", "labelsTr")[:1 if number > 2 else 2]:
            name = f"scan-{'of-a-long-name-' * 5}{number:02d}-[end]"
            write_nifti(tmp_path / place / f"{name}.nii.gz", np.ones((1, 3, 4, 5), np.uint8), Geometry((5, 4, 3)))
    assert cli.main(["new", str(tmp_path)]) == 0
    told = capsys.readouterr().err
    table = told[told.index("12 would be set aside"):]
    assert "and 2 more" in table and "\N{HORIZONTAL ELLIPSIS}" not in table
    assert "".join(table.split()).count("[end]") == 10


def test_doctor_looks_at_the_machine() -> None:
    done = command("doctor")
    assert done.returncode in (0, 2)
    for name in ("cores", "memory", "device", "shared memory", "open files", "disk", "torch"):
        assert name in done.stdout


def test_doctor_measures_once_and_shows_it_from_then_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                        capsys: pytest.CaptureFixture[str]) -> None:
    def told(*words: str) -> str:
        cli.main(["doctor", *words])
        return next(line for line in capsys.readouterr().out.splitlines() if "throughput" in line)

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("megavox.memory.doctor.CALIBRATION_S", 0.0)  # one step of each layer
    assert "--calibrate" in told()
    measured = told("--calibrate")
    assert "GFLOP/s" in measured and "GB/s" in measured and str(tmp_path) in measured
    assert told() == measured


def test_doctor_measures_this_machine_only(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--calibrate", "--site", "cluster"]) == 2
    assert "Give one of them" in capsys.readouterr().err


@pytest.mark.parametrize("start", ["import megavox", "from megavox.cli import main; main(['--help'])"])
def test_starting_imports_nothing_heavy(start: str) -> None:
    heavy = ("torch", "monai", "zarr", "scipy")
    code = f"import sys; {start}; print('LOADED', *[m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1].strip() == "LOADED"

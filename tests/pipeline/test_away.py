"""Stages as jobs on this machine: sent, followed, found again, ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from megavox.core.errors import MegavoxError, SiteError, StudyError
from megavox.core.files import read_json
from megavox.jobs.job import JobFolder, State, Status
from megavox.jobs.registry import read_site
from megavox.jobs.section import asked
from megavox.pipeline.away import cancel, dispatch, follow, jobs
from megavox.pipeline.project import Project
from megavox.pipeline.scale import limit
from small_studies import environment, packed_organs, project_of

LONG_S = 120


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("away")


@pytest.fixture
def project(base: Path, tmp_path: Path) -> Iterator[Project]:
    """Packed, with a site `here` of two cores; jobs that a failed test leaves behind are ended."""
    data, folder = packed_organs(base)
    site = folder / f"{tmp_path.name}-site.yaml"
    site.write_text(yaml.safe_dump({"kind": "local", "cpus": 2, "place": str(tmp_path / "slots")}))
    project = project_of({**data, "sites": {"here": site.name}}, folder, tmp_path.name)
    yield project
    for known in jobs(project):
        if not all(part.state.ended for part in known.parts):
            cancel(known.job)
            until(lambda job=known.job: job.judged() is not None)


def command(project: Project, *words: str) -> list[str]:
    study = project.workspace.root.parent / f"{project.run_name}.yaml"
    return [sys.executable, "-m", "megavox", *words[:2 if words[0] == "jobs" else 1], str(study), "--workspace",
            str(project.workspace.root), *words[2 if words[0] == "jobs" else 1:]]


def run(project: Project, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(project, *words), capture_output=True, text=True, check=False, timeout=LONG_S,
                          env=environment())


def until(true: object) -> None:
    begin = time.monotonic()
    while not true():  # type: ignore[operator]
        assert time.monotonic() - begin < LONG_S
        time.sleep(0.1)


def test_a_training_goes_to_a_site_and_tells_what_it_tells_here(project: Project) -> None:
    done = run(project, "train", "--site", "here", "--run-name", project.run_name)
    assert done.returncode == 0, done.stderr
    assert "train:\n  4 steps" in done.stdout and f"train-{project.run_name}.1: done" in done.stderr
    assert project.run.done.exists()
    listed = run(project, "jobs", "list")
    assert any(line.split()[:3] == [f"train-{project.run_name}.1", "here", "done"]
               for line in listed.stdout.splitlines())
    assert run(project, "jobs", "log", f"train-{project.run_name}.1").stdout == done.stdout
    again = run(project, "train", "--site", "here", "--run-name", project.run_name)
    assert again.returncode == 0 and (project.workspace.jobs / f"train-{project.run_name}.2").is_dir()


def test_a_command_killed_at_any_time_finds_its_job_again_and_it_runs_once(project: Project, tmp_path: Path) -> None:
    words = ("train", "--site", "here", "--run-name", project.run_name, "--set", "training.steps=60")
    folder = project.workspace.jobs / f"train-{project.run_name}.1"
    for wait_s in (0.5, 1.5, 3.0):
        caller = subprocess.Popen(command(project, *words), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                  env=environment())
        time.sleep(wait_s)
        caller.kill()
        caller.wait()
    done = run(project, *words)
    assert done.returncode == 0, done.stderr
    assert "60 steps" in done.stdout
    assert [path.name for path in project.workspace.jobs.glob(f"train-{project.run_name}.*")] == [folder.name]
    (project.workspace.jobs / f"train-{project.run_name}.bak").mkdir()
    assert read_json(folder / "begun.json")["attempt"] == 1
    told = [line for line in project.run.metrics.read_text().splitlines() if '"loss"' in line]
    assert len(told) == 60


def heeding() -> None:
    """What is started in the background does not hear Ctrl-C, nor do its children."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_ctrl_c_leaves_the_job_alone_and_cancel_ends_it(project: Project) -> None:
    words = ("train", "--site", "here", "--run-name", project.run_name, "--set", "training.steps=100000")
    name = f"train-{project.run_name}.1"
    caller = subprocess.Popen(command(project, *words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              env=environment(), preexec_fn=heeding)
    until(lambda: (project.workspace.jobs / name / "begun.json").exists())
    time.sleep(1)
    caller.send_signal(signal.SIGINT)
    _, told = caller.communicate(timeout=LONG_S)
    assert caller.returncode == 130 and f"{name} goes on" in told
    assert jobs_of(project)[name].state is State.RUNNING
    assert run(project, "jobs", "cancel", name).returncode == 0
    until(lambda: jobs_of(project)[name].state.ended)
    assert jobs_of(project)[name].state is State.CANCELLED
    attached = run(project, "jobs", "attach", name)
    assert attached.returncode == 2 and "cancelled" in attached.stderr
    pid = read_json(project.workspace.jobs / name / "native.json")["pid"]
    until(lambda: not psutil.pid_exists(pid))


def jobs_of(project: Project) -> dict[str, Status]:
    return {known.job.name: known.parts[0] for known in jobs(project)}


def test_a_training_on_two_ranks_that_fails_says_why(project: Project) -> None:
    bad = run(project, "train", "--site", "here", "--run-name", "bad", "--ask", "ranks=2", "--set",
              "training.optimiser.rate=1.0e+30")
    assert bad.returncode == 2
    assert "failed" in bad.stderr and "the loss became" in bad.stderr and "Traceback" not in bad.stderr
    assert "rank 0 of 2 on" in bad.stderr or "rank 1 of 2 on" in bad.stderr


@pytest.mark.parametrize(("words", "told"), [
    (("train", "--ask", "ranks=2", "--set", "batches.size=3"), "cannot be dealt to 2 ranks"),
    (("train", "--workspace", "elsewhere"), "nothing is packed here yet"),
    (("train", "--run-name", "a/b"), "expected: letters"),
    (("predict", "--run-name", "never"), "never"),
    (("predict", "--ask", "ranks=2"), "predictions have no ranks"),
    (("train", "--ask", "cpus=50"), "at most 2 cores"),
    (("train", "--ask", "memory_gb=90000"), "90000 GB")])
def test_what_is_known_to_fail_is_refused_before_it_waits(project: Project, words: tuple[str, ...], told: str) -> None:
    before = {path.name for path in project.workspace.jobs.glob("*.*")}
    elsewhere = str(project.workspace.root.parent / "elsewhere")
    words = tuple(elsewhere if word == "elsewhere" else word for word in words)
    refused = run(project, words[0], "--site", "here", *words[1:])
    assert refused.returncode == 2 and told.lower() in refused.stderr.lower(), refused.stderr
    assert {path.name for path in project.workspace.jobs.glob("*.*")} == before, "nothing is left of it"


def test_to_ask_needs_a_site(project: Project) -> None:
    for stage in ("train", "predict"):
        refused = run(project, stage, "--ask", "cpus=1")
        assert refused.returncode == 2 and "no --site is given" in refused.stderr


def test_a_prediction_as_an_array_shares_the_cases(project: Project, tmp_path: Path) -> None:
    assert run(project, "train", "--run-name", project.run_name).returncode == 0
    out = tmp_path / "out"
    words = ("predict", "--site", "here", "--run-name", project.run_name, "--ask", "elements=2", "--output", str(out),
             "--input", str(project.study.cohort.folder / "imagesTr"))
    done = run(project, *words)
    assert done.returncode == 0, done.stderr
    assert len(list(out.glob("*.nii.gz"))) == len(project.entries())
    assert f"{len(project.entries())} cases predicted" in done.stdout, "no element knows all of them"
    assert len(list(project.workspace.jobs.glob(f"predict-{project.run_name}-*.1/verdict-*.json"))) == 2


def test_how_a_job_ended_is_told_once_however_late(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    def sent() -> JobFolder:
        return dispatch(project, "fails", "here", "train", asked(()), ["no.such.module"])

    job = sent()
    until(lambda: job.judged() is not None)
    assert sent().path == job.path, "nobody was told yet"
    with pytest.raises(SiteError, match="failed: the command ended with status 1"):
        follow(job, print)
    assert "No module named" in capsys.readouterr().out
    other = sent()
    assert other.path != job.path
    with pytest.raises(SiteError):
        follow(other, print)


def test_doctor_looks_at_a_site(project: Project) -> None:
    study = project.workspace.root.parent / f"{project.run_name}.yaml"
    done = subprocess.run([sys.executable, "-m", "megavox", "doctor", "--site", "here", "--data", str(study),
                           "--workspace", str(project.workspace.root)], capture_output=True, text=True, check=False,
                          timeout=LONG_S, env=environment())
    assert "ok    cores" in done.stdout, done.stderr
    assert "ok    torch" in done.stdout


@pytest.mark.parametrize(("text", "told"), [
    ("kind: pbs\n", "found kind 'pbs'. Expected: kind: local or slurm"), ("cpus: 2\n", "the key kind is missing"),
    ("kind: slurm\npartitions: x\n", "unknown key partitions"),
    ("kind: slurm\njobs: {time_limit: 8}\n", "needs its unit"), ("kind: [\n", "not YAML")])
def test_a_wrong_site_file_is_told_with_its_line(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "site.yaml"
    path.write_text(text)
    with pytest.raises(StudyError) as found:
        read_site("there", {"there": path})
    assert told in str(found.value) and "site.yaml" in str(found.value)


def test_what_a_job_asks_for_stands_over_the_stage_over_the_site(tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    path.write_text("kind: slurm\njobs: {partition: a, time_limit: 2h, cpus: 4}\ntrain: {ranks: 4, partition: b}\n")
    wanted = read_site("there", {"there": path}).asked("train", asked(["ranks=2", "memory_gb=8"]))
    request = wanted.request(["x"], tmp_path)
    assert (request.ranks, request.partition, request.time_limit_s, request.cpus, request.memory_gb) == \
        (2, "b", 7200.0, 4, 8.0)


@pytest.mark.parametrize(("changes", "told"), [(["ranks"], "is not key=value"), (["rank=2"], "Did you mean ranks?"),
                                               (["ranks=0"], "greater than or equal to 1")])
def test_a_wrong_ask_is_told(changes: list[str], told: str) -> None:
    with pytest.raises(MegavoxError, match=told):
        asked(changes)


@pytest.mark.parametrize(("text", "changes", "told"), [
    ("jobs: {ranks: 3, nodes: 2}", [], "evenly"), ("train: {ranks: 4, nodes: 2}", ["ranks=1"], "evenly"),
    ("jobs: {elements: 4}", [], "elements for predict only")])
def test_what_makes_no_sense_together_is_told(tmp_path: Path, text: str, changes: list[str], told: str) -> None:
    path = tmp_path / "site.yaml"
    path.write_text(f"kind: slurm\n{text}\n")
    with pytest.raises(StudyError, match=told):
        read_site("there", {"there": path}).asked("train", asked(changes))


def test_a_refused_job_leaves_nothing_and_can_be_corrected(project: Project) -> None:
    refused = run(project, "train", "--site", "here", "--run-name", project.run_name, "--ask", "gpus=64")
    assert refused.returncode == 2 and "64 GPUs" in refused.stderr
    good = run(project, "train", "--site", "here", "--run-name", project.run_name)
    assert good.returncode == 0, good.stderr
    assert "sent to here before" not in good.stderr


def test_a_job_under_way_with_other_settings_is_not_taken_for_this_one(project: Project) -> None:
    words = ("train", "--site", "here", "--run-name", project.run_name)
    caller = subprocess.Popen(command(project, *words, "--set", "training.steps=100000"), env=environment(),
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    name = f"train-{project.run_name}.1"
    until(lambda: (project.workspace.jobs / name / "begun.json").exists())
    caller.kill()
    caller.wait()
    other = run(project, *words, "--set", "training.steps=5")
    assert other.returncode == 2
    assert f"{name}: this job is under way with other settings: training.steps was 100000 and is 5" in other.stderr
    asked_more = run(project, *words, "--set", "training.steps=100000", "--ask", "cpus=1")
    assert asked_more.returncode == 2 and "asked.cpus was None and is 1" in asked_more.stderr
    assert run(project, "jobs", "cancel", name).stderr.endswith("is being cancelled\n")
    until(lambda: JobFolder(project.workspace.jobs / name).judged() is not None)
    assert run(project, "jobs", "cancel", name).stderr.endswith("had ended before\n")


def test_an_end_that_nobody_was_told_is_told_before_a_job_with_other_settings(project: Project) -> None:
    job = dispatch(project, "look", "here", "train", asked([]), ["timeit", "-n1", "-r1", "pass"])
    until(lambda: job.judged() is not None)
    assert dispatch(project, "look", "here", "train", asked([]), ["timeit", "-n1", "-r1", "pass"]).name == "look.1"
    other = dispatch(project, "look", "here", "train", asked([]), ["timeit", "-n1", "-r1", "1 + 1"])
    assert other.name == "look.2" and job.told.exists()
    until(lambda: other.judged() is not None)


def test_jobs_keep_to_their_cores(project: Project) -> None:
    code = "import os; print('cores', len(os.sched_getaffinity(0)), os.environ['OMP_NUM_THREADS'])"
    for cpus in (1, 2):
        job = dispatch(project, f"cores{cpus}", "here", "train", asked([f"cpus={cpus}"]),
                       ["timeit", "-n1", "-r1", code])
        until(lambda job=job: job.judged() is not None)
        have = min(cpus, len(os.sched_getaffinity(0)))
        assert f"cores {have} {cpus}" in job.log().read_text()


def test_a_site_that_the_study_does_not_name_is_told() -> None:
    with pytest.raises(StudyError, match="names no site 'there'"):
        read_site("there", {})


def test_scale_measures_strong_and_weak(project: Project) -> None:
    done = run(project, "scale", "--ranks", "1", "--seconds", "0.5", "--site", "here")
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines() if line.split()[:1] in (["strong"], ["weak"])]
    assert [(row[0], row[1], row[2]) for row in rows] == [("strong", "1", "2"), ("weak", "1", "2")]
    assert len(list(project.workspace.scale.glob("scale-here-1-2-*.json"))) == 1, "one job for both"
    assert (project.workspace.scale / "scaling.svg").read_text().startswith("<?xml")


def test_scale_tells_what_it_has_when_a_job_fails(project: Project) -> None:
    done = run(project, "scale", "--ranks", "1,2", "--seconds", "0", "--site", "here", "--ask", "nodes=2")
    assert done.returncode == 0, done.stderr
    assert "strong       1" in done.stdout and "strong       2" not in done.stdout
    assert "2 ranks with a batch of 2 were not measured: " in done.stdout


def test_what_limits_scaling_is_said(project: Project) -> None:
    def found(ranks: int, step_s: float, **about: object) -> dict[str, Any]:
        pace = {"ranks": ranks, "batch": 8, "step_s": step_s, "efficiency": 0.68, "uneven": 0.12, "waiting": 0.3,
                "pairs": 5}
        return {"pace": {**pace, **about}, "device": "cuda", "cores": 16, "threads": 4,
                "links": {"0-1": "SYS", "2-3": "NV2"}}

    told = limit({1: found(1, 1.0), 4: found(4, 0.5)})
    assert told.startswith("4 ranks are 2.00 times as fast as 1 (50%)")
    assert "30% of a step is waiting for data" in told and "20% of a step is communication" in told
    assert "12% of a step is waiting for the slowest rank" in told
    assert "the GPUs 0-1 have no direct link" in told
    quick = {"efficiency": 1.0, "uneven": 0.0, "waiting": 0.0}
    alone = {**found(1, 1.0, **quick), "links": {}}
    assert limit({1: alone, 2: {**found(2, 0.5, **quick), "links": {}}}).endswith("(100%); nothing noticeable")
    crowded = {**found(8, 0.9, **quick), "links": {}, "device": "cpu", "cores": 2}
    assert "8 ranks share 2 cores" in limit({1: alone, 8: crowded})
    shared = {**found(4, 0.9, **quick), "links": {}, "device": "cpu", "threads": 1}
    assert "4 ranks compute on no more cores (4) than 1 did" in limit({1: alone, 4: shared})

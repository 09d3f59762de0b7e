"""A batch system that lies, forgets or does not answer: nothing runs twice, nothing is taken for lost too early."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from ast import literal_eval
from pathlib import Path

import psutil
import pytest

from fake_slurm import fault, install
from megavox.core.errors import SiteError
from megavox.core.files import read_json
from megavox.core.provenance import cores
from megavox.jobs.job import JobFolder, Request, State, Status
from megavox.jobs.local import Local, LocalSection
from megavox.jobs.rank import keep_to_share
from megavox.jobs.site import Site
from megavox.jobs.slurm import Slurm, SlurmSection
from megavox.jobs.supervisor import NICE

AUTOGROUP = Path("/proc/self/autogroup")  # of the session that asks


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "slurm"
    for name, value in install(folder).items():
        monkeypatch.setenv(name, value)
    return folder


def made(folder: Path, line: str, name: str = "job") -> JobFolder:
    return JobFolder.create(folder / "jobs" / name, Request(("bash", "-c", line), str(folder)))


def ended(site: Site, job: JobFolder, within_s: float = 60.0) -> Status:
    begin = time.monotonic()
    while not (found := site.poll([job])[job.path][0]).state.ended:
        assert time.monotonic() - begin < within_s, found
        time.sleep(0.1)
    return found


def number_in(path: Path) -> int:
    """What a job writes there, once it has."""
    begin = time.monotonic()
    while not (path.exists() and path.read_text().strip()):
        assert time.monotonic() - begin < 60
        time.sleep(0.1)
    return int(path.read_text())


def assert_gone(pid: int) -> None:
    begin = time.monotonic()
    while psutil.pid_exists(pid):
        assert time.monotonic() - begin < 20, "it lives on"
        time.sleep(0.1)


@pytest.mark.parametrize("restarted", [False, True])
def test_a_job_whose_answer_was_lost_is_found_and_runs_once(queue: Path, tmp_path: Path, restarted: bool) -> None:
    job = made(tmp_path, "echo ran >> ran; sleep 1")
    fault(queue, "lost-answer")
    Slurm(SlurmSection()).submit(job)
    if restarted:  # as if the caller had been killed before it wrote the number down
        job.native.unlink()
    fault(queue)
    site = Slurm(SlurmSection())
    site.submit(job)
    assert ended(site, job).state is State.DONE
    assert (tmp_path / "ran").read_text() == "ran\n" and len(list((queue / "jobs").iterdir())) == 1


def test_a_refusal_is_told_in_slurms_words_and_can_be_tried_again(queue: Path, tmp_path: Path) -> None:
    job, site = made(tmp_path, "true"), Slurm(SlurmSection())
    fault(queue, "refused")
    with pytest.raises(SiteError, match=r"sbatch says: .*Invalid account"):
        site.submit(job)
    assert site.poll([job])[job.path][0].state is State.UNKNOWN
    fault(queue)
    site.submit(job)
    assert ended(site, job).state is State.DONE


def test_where_nobody_answers_nothing_is_judged(queue: Path, tmp_path: Path) -> None:
    job, site = made(tmp_path, "sleep 3"), Slurm(SlurmSection())
    site.submit(job)
    fault(queue, "away")
    assert site.poll([job])[job.path][0] == Status(State.UNKNOWN, "Slurm cannot be asked now")
    assert ended(site, job).state is State.DONE, "its verdict is in its folder"
    with pytest.raises(SiteError, match="Unable to contact"):
        site.submit(made(tmp_path, "true", "other"))


@pytest.mark.parametrize(("faults", "state"), [
    ((), State.FAILED), (("forgetful",), State.FAILED), (("forgetful", "no-accounting"), State.LOST),
    (("forgetful", "late"), State.LOST)])
def test_a_job_killed_whole_is_judged_by_what_slurm_knows(queue: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                          faults: tuple[str, ...], state: State) -> None:
    monkeypatch.setattr("megavox.jobs.slurm.LOST_AFTER_S", 1.0)
    job, site = made(tmp_path, "sleep 60"), Slurm(SlurmSection())
    site.submit(job)
    begin = time.monotonic()
    while not job.begun().exists():
        assert time.monotonic() - begin < 60
        time.sleep(0.1)
    fault(queue, *faults)
    [entry] = (queue / "jobs").iterdir()
    os.kill(int(read_json(entry)["pid"]), signal.SIGKILL)
    begin = time.monotonic()
    assert ended(site, job).state is state
    assert state is not State.LOST or time.monotonic() - begin >= 1, "accounting may be late"


@pytest.mark.parametrize("faults", [(), ("forgetful",), ("forgetful", "no-accounting")])
def test_a_job_cancelled_in_slurm_itself_is_cancelled(queue: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                      faults: tuple[str, ...]) -> None:
    monkeypatch.setattr("megavox.jobs.slurm.LOST_AFTER_S", 1.0)
    job, site = made(tmp_path, "echo $$ > pid; sleep 60"), Slurm(SlurmSection())
    site.submit(job)
    number_in(tmp_path / "pid")
    fault(queue, *faults)
    [entry] = (queue / "jobs").iterdir()
    subprocess.run(["scancel", entry.name], check=True, timeout=60)
    assert ended(site, job).state is State.CANCELLED
    assert len(list((queue / "jobs").iterdir())) == 1, "it is not started again"


def test_a_clock_that_jumps_makes_nothing_lost(queue: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job, site = made(tmp_path, "sleep 2"), Slurm(SlurmSection())
    site.submit(job)
    fault(queue, "forgetful", "late")
    monkeypatch.setattr(time, "time", lambda: 1e9)
    assert ended(site, job).state is State.DONE


def test_a_job_that_is_started_again_is_one_job(queue: Path, tmp_path: Path) -> None:
    job, site = made(tmp_path, "echo attempt >> ran; [ $(wc -l < ran) = 2 ] || exit 75"), Slurm(SlurmSection())
    site.submit(job)
    assert ended(site, job).state is State.DONE
    assert (tmp_path / "ran").read_text() == "attempt\n" * 2 and len(list((queue / "jobs").iterdir())) == 1
    assert read_json(job.verdict())["attempt"] == 2


def test_a_supervisor_that_is_killed_takes_its_job_along_and_frees_its_place(tmp_path: Path) -> None:
    site = Local(LocalSection(place=tmp_path / "slots", cpus=1))
    job = made(tmp_path, "echo $$ > pid; sleep 300")
    site.submit(job)
    pid = number_in(tmp_path / "pid")
    os.kill(read_json(job.native)["pid"], signal.SIGKILL)
    assert ended(site, job).state is State.LOST
    assert_gone(pid)
    following = made(tmp_path, "true", "following")
    site.submit(following)
    assert ended(site, following).state is State.DONE


def test_jobs_share_the_cores_and_a_large_one_gets_its_turn(tmp_path: Path) -> None:
    site = Local(LocalSection(place=tmp_path / "slots", cpus=2))
    line = "date +%s.%N >> began; sleep 1; date +%s.%N >> ended"
    folders = [tmp_path / f"f{n}" for n in range(3)]
    jobs = []
    for number, folder in enumerate(folders):
        folder.mkdir()
        jobs.append(JobFolder.create(folder / "job", Request(("bash", "-c", line), str(folder),
                                                             cpus=2 if number == 1 else 1)))
        site.submit(jobs[-1])
    assert [ended(site, job).state for job in jobs] == [State.DONE] * 3
    spans = [(float((f / "began").read_text()), float((f / "ended").read_text())) for f in folders]
    for other in (spans[0], spans[2]):
        assert other[1] <= spans[1][0] or spans[1][1] <= other[0], "two cores of two are taken"


def test_elements_of_an_array_share_the_cores_too(tmp_path: Path) -> None:
    site = Local(LocalSection(place=tmp_path / "slots", cpus=2))
    line = "echo + >> log; sleep 0.7; echo - >> log"
    job = JobFolder.create(tmp_path / "job", Request(("bash", "-c", line), str(tmp_path), elements=5))
    site.submit(job)
    ended(site, job)
    while not all(part.state is State.DONE for part in site.poll([job])[job.path]):
        time.sleep(0.1)
    most = running = 0
    for sign in (tmp_path / "log").read_text().split():
        running += 1 if sign == "+" else -1
        most = max(most, running)
    assert most == 2


@pytest.mark.skipif(cores() < 2, reason="two ranks have one core")
@pytest.mark.parametrize(("ranks", "gpus", "each"), [(2, 0, 1), (3, 0, 2), (2, 2, 2)])
def test_ranks_have_cores_of_their_own_where_there_are_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                              ranks: int, gpus: int, each: int) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    site = Local(LocalSection(place=tmp_path / "slots", cpus=2, gpus=gpus))
    code = "import os, sys; sys.stdout.write(f'{sorted(os.sched_getaffinity(0))}\\n')"
    job = JobFolder.create(tmp_path / "job", Request((sys.executable, "-c", code), str(tmp_path), ranks=ranks))
    site.submit(job)
    assert ended(site, job).state is State.DONE
    theirs = [literal_eval(line) for line in job.log().read_text().splitlines() if line.startswith("[")]
    assert [len(one) for one in theirs] == [each] * ranks
    assert len({core for one in theirs for core in one}) == 2


@pytest.mark.parametrize(("ranks", "known", "shares"), [
    (2, True, [[0, 4, 1, 5], [2, 6, 3, 7]]), (3, True, [[0, 4], [1, 5, 2], [6, 3, 7]]),
    (2, False, [[0, 1, 2, 3], [4, 5, 6, 7]])])
def test_threads_of_a_core_go_to_one_rank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ranks: int, known: bool,
                                          shares: list[list[int]]) -> None:
    """Four cores with two threads each, numbered as Linux does: 0 and 4 are one core."""
    for core in range(8 if known else 0):
        folder = tmp_path / f"cpu{core}" / "topology"
        folder.mkdir(parents=True)
        (folder / "physical_package_id").write_text(f"{core % 4 // 2}\n")
        (folder / "core_id").write_text(f"{core % 2}\n")
    given: list[list[int]] = []
    monkeypatch.setattr("megavox.jobs.rank.TOPOLOGY", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(os, "sched_setaffinity", lambda _, mine: given.append(mine))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(ranks))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.delenv("SLURM_CPUS_ON_NODE", raising=False)
    for number in range(ranks):
        monkeypatch.setenv("LOCAL_RANK", str(number))
        keep_to_share()
    assert given == shares
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", "4")  # of the eight that the cluster does not keep the job to
    keep_to_share()
    assert given == shares


def test_what_a_command_started_ends_with_it(tmp_path: Path) -> None:
    site = Local(LocalSection(place=tmp_path / "slots", cpus=1))
    job = made(tmp_path, "sleep 300 & echo $! > pid; sleep 300; true")
    site.submit(job)
    pid = number_in(tmp_path / "pid")
    site.cancel(job)
    assert ended(site, job).state is State.CANCELLED
    assert_gone(pid)


def test_a_job_that_has_ended_or_was_cancelled_does_not_run_when_it_is_started_again(queue: Path,
                                                                                     tmp_path: Path) -> None:
    job, site = made(tmp_path, "echo ran >> ran"), Slurm(SlurmSection())
    site.submit(job)
    assert ended(site, job).state is State.DONE
    script = next(job.path.glob("script-*.sh"))
    subprocess.run(["bash", script], check=True, timeout=60)
    assert (tmp_path / "ran").read_text() == "ran\n"
    other = made(tmp_path, "echo ran >> ran", "other")
    site.cancel(other)
    site.submit(other)
    assert ended(site, other).state is State.CANCELLED and (tmp_path / "ran").read_text() == "ran\n"


def test_more_than_this_machine_has_is_refused(tmp_path: Path) -> None:
    site = Local(LocalSection(place=tmp_path / "slots", cpus=2))
    job = JobFolder.create(tmp_path / "job", Request(("true",), str(tmp_path), gpus=3))
    with pytest.raises(SiteError, match="asks for 1 nodes with 3 GPUs"):
        site.submit(job)


def test_a_job_that_takes_more_memory_than_it_asked_for_is_ended(tmp_path: Path) -> None:
    site = Local(LocalSection(cpus=1, place=tmp_path / "slots"))
    hungry = "import time; taken = bytearray(400_000_000); print('taken', flush=True); time.sleep(2)"
    for memory_gb, state in ((0.2, State.MEMORY), (0.8, State.DONE)):
        request = Request((sys.executable, "-c", hungry), str(tmp_path), memory_gb=memory_gb)
        job = JobFolder.create(tmp_path / f"job-{memory_gb}", request)
        site.submit(job)
        found = ended(site, job)
        assert found.state is state, found
        assert (found.state is State.DONE) == ("0.2 GB asked for" not in found.told)


@pytest.mark.skipif(not AUTOGROUP.exists() or not AUTOGROUP.read_text(), reason="there are no autogroups here")
@pytest.mark.parametrize("ranks", [1, 2])
def test_jobs_give_way_though_each_is_a_session_of_its_own(tmp_path: Path, ranks: int) -> None:
    site = Local(LocalSection(cpus=2, place=tmp_path / "slots"))
    request = Request(("bash", "-c", "echo $(nice) $(cat /proc/self/autogroup) >> $RANK.said"), str(tmp_path),
                      ranks=ranks, environment={} if ranks > 1 else {"RANK": "0"})
    job = JobFolder.create(tmp_path / "job", request)
    site.submit(job)
    assert ended(site, job).state is State.DONE
    for rank in range(ranks):
        ours, _, *group = (tmp_path / f"{rank}.said").read_text().split()
        assert ours == str(os.nice(0) + NICE) and group == ["nice", ours]

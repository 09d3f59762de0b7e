"""Slurm as it is when things go wrong: nodes shared, limits reached, the controller gone, the caller killed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from megavox.core.errors import SiteError
from megavox.core.files import read_json, write_json
from megavox.jobs.job import JobFolder, Request, State, Status
from megavox.jobs.site import wait
from megavox.jobs.slurm import Slurm, SlurmSection
from slurm_here import the_cluster

pytestmark = pytest.mark.xdist_group("slurm")  # one cluster, in one process
LONG_S = 240.0


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Slurm:
    for name, value in the_cluster().variables.items():
        monkeypatch.setenv(name, value)
    return Slurm(SlurmSection(array_limit=64))


def made(folder: Path, name: str, line: str, **asked: object) -> JobFolder:
    return JobFolder.create(folder / "jobs" / name, Request(("bash", "-c", line), str(folder), **asked))  # type: ignore[arg-type]


def sent(site: Slurm, folder: Path, name: str, line: str, **asked: object) -> JobFolder:
    job = made(folder, name, line, **asked)
    site.submit(job)
    return job


def final(site: Slurm, *jobs: JobFolder) -> list[list[Status]]:
    begin, found = time.monotonic(), {}
    left = list(jobs)
    while left:
        for job, parts in wait(_Once(site, begin), left, every_s=0.5):  # type: ignore[arg-type]
            found[job.path] = parts
            left.remove(job)
            break
    return [found[job.path] for job in jobs]


class _Once:
    def __init__(self, site: Slurm, begin: float) -> None:
        self._site, self._begin = site, begin

    def poll(self, jobs: list[JobFolder]) -> object:
        found = self._site.poll(jobs)
        assert time.monotonic() - self._begin < LONG_S, f"not ended: {found}"
        return found


def until(site: Slurm, job: JobFolder, state: State) -> None:
    begin = time.monotonic()
    while (found := site.poll([job])[job.path][0]).state is not state:
        assert time.monotonic() - begin < LONG_S and not found.state.ended, found
        time.sleep(0.2)


def number_of(job: JobFolder) -> str:
    return str(read_json(job.native)[0]["id"])


def test_an_array_of_two_hundred_is_split_and_every_element_judged(site: Slurm, tmp_path: Path) -> None:
    job = sent(site, tmp_path, "many", "exit $((MEGAVOX_ELEMENT % 50 == 7))", elements=200)
    assert [one["count"] for one in read_json(job.native)] == [64, 64, 64, 8]
    [parts] = final(site, job)
    assert [number for number, part in enumerate(parts) if part.state is State.FAILED] == [7, 57, 107, 157]
    assert sum(part.state is State.DONE for part in parts) == 196


def test_eight_jobs_at_once(site: Slurm, tmp_path: Path) -> None:
    jobs = [sent(site, tmp_path, f"job{n}", f"sleep 1; exit {n % 2}") for n in range(8)]
    assert [parts[0].exit for parts in final(site, *jobs)] == [n % 2 for n in range(8)]


def test_two_nodes_train_together(site: Slurm, tmp_path: Path) -> None:
    code = ("import os, torch, torch.distributed as dist; dist.init_process_group('gloo')\n"
            "t = torch.ones(1) * (dist.get_rank() + 1); dist.all_reduce(t)\n"
            "print('sum', t.item(), os.environ['SLURM_NODEID'], flush=True)\n"
            "dist.destroy_process_group()")
    (tmp_path / "sum.py").write_text(code)
    job = sent(site, tmp_path, "nodes", f"exec {sys.executable} sum.py", ranks=2, nodes=2)
    [[status]] = final(site, job)
    assert status.state is State.DONE, status
    assert {"sum 3.0 0", "sum 3.0 1"} <= set(job.log().read_text().splitlines())


def test_a_job_is_told_before_its_time_limit_and_goes_on_afterwards(site: Slurm, tmp_path: Path) -> None:
    """Slurm counts time in minutes and tells up to a minute early."""
    line = ("[ -e stopped ] && echo went on && exit 0; trap 'touch stopped; exit 75' USR1\n"
            "for i in $(seq 1200); do sleep 0.1; done; exit 1")
    job = sent(site, tmp_path, "limit", line, time_limit_s=120.0, grace_s=50.0)
    the_cluster().release(number_of(job))
    [[status]] = final(site, job)
    assert status.state is State.DONE, status
    assert job.log().read_text() == "went on\n"
    assert read_json(job.verdict())["attempt"] == 2


def test_a_job_that_does_not_stop_in_time_is_told_so(site: Slurm, tmp_path: Path) -> None:
    job = sent(site, tmp_path, "deaf", "sleep 300", time_limit_s=60.0, grace_s=55.0)
    [[status]] = final(site, job)
    assert status.state is State.TIME_LIMIT and "time limit" in status.told


def test_a_job_whose_place_is_taken_goes_on_afterwards(site: Slurm, tmp_path: Path) -> None:
    line = ("[ -e stopped ] && exit 0; trap 'touch stopped; exit 75' TERM\n"
            "for i in $(seq 1200); do sleep 0.1; done; exit 1")
    low = sent(site, tmp_path, "low", line, partition="low", cpus=4)
    until(site, low, State.RUNNING)
    time.sleep(2)  # the trap stands
    high = [sent(site, tmp_path, f"high{n}", "sleep 3", cpus=4, partition="main") for n in range(2)]
    the_cluster().release(number_of(low))
    [[status], *others] = final(site, low, *high)
    assert status.state is State.DONE, status
    assert read_json(low.verdict())["attempt"] == 2
    assert all(parts[0].state is State.DONE for parts in others)


def test_a_job_killed_whole_and_one_cancelled_by_hand_are_told_apart(site: Slurm, tmp_path: Path) -> None:
    killed = sent(site, tmp_path, "killed", "kill -KILL $PPID; sleep 1")
    cancelled = sent(site, tmp_path, "cancelled", "sleep 300")
    until(site, cancelled, State.RUNNING)
    subprocess.run(["scancel", number_of(cancelled)], check=True, timeout=60)
    [[one], [other]] = final(site, killed, cancelled)
    assert one.state is State.FAILED and other.state is State.CANCELLED


@pytest.fixture
def forgetful() -> Iterator[None]:
    the_cluster().remember_jobs(2)
    yield
    the_cluster().remember_jobs(300)


def forgotten(*jobs: JobFolder) -> None:
    """Wait until the queue does not know them any more."""
    begin, numbers = time.monotonic(), {number_of(job) for job in jobs}
    while numbers & set(subprocess.run(["squeue", "-h", "-t", "all", "-o", "%F"], capture_output=True, text=True,
                                       check=True, timeout=60).stdout.split()):
        assert time.monotonic() - begin < LONG_S
        time.sleep(1)


@pytest.mark.usefixtures("forgetful")
def test_accounting_knows_what_the_queue_forgot(site: Slurm, tmp_path: Path) -> None:
    """Jobs that never began and so left no verdict, and one whose number was lost with the caller."""
    held = Slurm(SlurmSection(array_limit=2, options=["--hold"]))
    one = sent(held, tmp_path, "one", "true")
    array = sent(held, tmp_path, "array", "true", elements=3)
    lost = sent(site, tmp_path, "lost", "echo ran >> ran")
    assert final(site, lost)[0][0].state is State.DONE
    for number in (number_of(one), *(str(part["id"]) for part in read_json(array.native))):
        subprocess.run(["scancel", number], check=True, timeout=60)
    forgotten(one, array, lost)
    assert [part.state for parts in final(site, one, array) for part in parts] == [State.CANCELLED] * 4
    natives = read_json(lost.native)
    lost.native.unlink()
    site.submit(lost)
    assert read_json(lost.native) == natives
    assert (tmp_path / "ran").read_text() == "ran\n"


def test_a_refusal_is_passed_on_whole_and_is_no_job(site: Slurm, tmp_path: Path) -> None:
    """Slurm keeps a record of what it refused, with the comment by which jobs are found again."""
    job = made(tmp_path, "large", "true", memory_gb=100.0)
    with pytest.raises(SiteError, match=r"Memory specification can not be satisfied; .*not available"):
        site.submit(job)
    assert not job.sent
    again = made(tmp_path, "again", "true")
    write_json(again.intent, {"token": "refused-before", "at": time.time()})  # as if the caller had died then
    refused = subprocess.run(["sbatch", "--comment=refused-before-0", "--mem=100G", "--wrap=true"], check=False,
                             capture_output=True, timeout=60)
    assert refused.returncode != 0
    site.submit(again)
    assert final(site, again)[0][0].state is State.DONE


def test_why_a_job_waits_is_told(site: Slurm, tmp_path: Path) -> None:
    job = sent(site, tmp_path, "wide", "true", cpus=64)
    begin = time.monotonic()
    while "PartitionConfig" not in (found := site.poll([job])[job.path][0]).told:
        assert time.monotonic() - begin < LONG_S and found.state is State.WAITING, found
        time.sleep(0.5)
    assert f"Slurm's job {number_of(job)}" in found.told
    site.cancel(job)


def test_a_job_that_takes_more_memory_than_it_asked_for_is_told_so(site: Slurm, tmp_path: Path) -> None:
    hungry = f"{sys.executable} -c 'import time; print(42, flush=True); taken = bytearray(400_000_000); time.sleep(5)'"
    small, large = (sent(site, tmp_path, f"job-{gb}", hungry, memory_gb=gb) for gb in (0.2, 0.8))
    [[killed]], [[lived]] = (final(site, job) for job in (small, large))
    assert killed.state is State.MEMORY and killed.told.endswith("42"), killed
    assert killed.told.count("Exceeded job memory limit") == 1, "though Slurm says so twice"
    assert f"> {190 << 20})" in killed.told, "of 0.2 GB"
    assert lived.state is State.DONE, lived


def test_what_slurm_itself_writes_of_an_end_is_passed_on(site: Slurm, tmp_path: Path) -> None:
    """Where it kills a job whole, for memory say, the job can leave no word."""
    wrote = "slurmstepd: error: Exceeded job memory limit"
    for elements, name in ((0, "$SLURM_JOB_ID"), (1, "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID")):
        line = f"echo so far; echo '{wrote}' >> jobs/grown{elements}/site-{name}.txt; kill -KILL $PPID; sleep 1"
        job = sent(site, tmp_path, f"grown{elements}", line, elements=elements)
        [[status]] = final(site, job)
        assert status.state is State.MEMORY
        assert f"the site wrote:\n{wrote}" in status.told and status.told.endswith(":\nso far")


def test_a_controller_that_is_away_is_no_verdict(site: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("megavox.jobs.slurm.TIMEOUT_S", 3.0)
    going, ending = (sent(site, tmp_path, name, f"sleep {s}") for name, s in (("going", 20), ("ending", 4)))
    until(site, going, State.RUNNING)
    begin = time.monotonic()
    while not ending.begun().exists():
        assert time.monotonic() - begin < LONG_S
        time.sleep(0.1)
    the_cluster().stop_controller()
    try:
        found = site.poll([going, ending])
        assert found[going.path][0].state is State.UNKNOWN
        begin = time.monotonic()
        while site.poll([ending])[ending.path][0].state is not State.DONE:  # its verdict is in its folder
            assert time.monotonic() - begin < LONG_S
            time.sleep(0.5)
    finally:
        the_cluster().start_controller()
    assert [parts[0].state for parts in final(site, going, ending)] == [State.DONE, State.DONE]


def test_a_caller_killed_at_any_time_and_started_again_runs_everything_once(site: Slurm, tmp_path: Path) -> None:
    """Twenty times; each submits what is missing, waits for all, and is killed at a random moment."""
    script = tmp_path / "caller.py"
    script.write_text(f"""
import sys
from pathlib import Path
from megavox.jobs.job import JobFolder, Request
from megavox.jobs.site import wait
from megavox.jobs.slurm import Slurm, SlurmSection
site, root, jobs = Slurm(SlurmSection()), Path({str(tmp_path)!r}), []
for number in range(6):
    path = root / "jobs" / f"job{{number}}"
    job = JobFolder(path) if path.exists() else JobFolder.create(
        path, Request(("bash", "-c", f"echo {{number}} >> ran; sleep 1"), str(root)))
    site.submit(job)
    jobs.append(job)
print(*sorted(job.name + " " + parts[0].state for job, parts in wait(site, jobs, 0.2)), sep="\\n")
""")
    drawn = random.Random(0)
    for _ in range(20):
        caller = subprocess.Popen([sys.executable, script], stdout=subprocess.DEVNULL, env={**os.environ})
        time.sleep(drawn.uniform(0.2, 1.6))
        caller.send_signal(signal.SIGKILL)
        caller.wait()
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True, timeout=LONG_S)
    assert done.stdout.splitlines() == [f"job{n} done" for n in range(6)]
    assert sorted((tmp_path / "ran").read_text().split()) == [str(n) for n in range(6)]

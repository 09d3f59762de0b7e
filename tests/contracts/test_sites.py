"""What every site promises: jobs run once, end with the right word, and are found again by whoever asks."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fake_slurm import fault, install
from megavox.core.errors import WorkspaceError
from megavox.core.files import read_json
from megavox.core.signals import PEER_DIED
from megavox.jobs.job import JobFolder, Request, State, Status
from megavox.jobs.local import Local, LocalSection
from megavox.jobs.site import Site, wait
from megavox.jobs.slurm import Slurm, SlurmSection
from slurm_here import the_cluster

LONG_S = 90.0  # more than any of these jobs takes
Sent = Callable[..., JobFolder]


@pytest.fixture(params=["local", "queue", pytest.param("slurm", marks=pytest.mark.xdist_group("slurm"))])
def site(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """This machine; a batch queue that is none and loses an answer or has no accounting; a real Slurm."""
    if request.param == "local":
        return Local(LocalSection(place=tmp_path / "slots", cpus=2))
    variables = install(tmp_path / "queue") if request.param == "queue" else the_cluster().variables
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    if request.param == "queue":
        fault(tmp_path / "queue", "lost-answer", "no-accounting")
    return Slurm(SlurmSection(array_limit=50))


def is_real(site: Site) -> bool:
    return isinstance(site, Slurm) and "FAKE_SLURM" not in os.environ


@pytest.fixture
def send(site: Site, tmp_path: Path) -> Iterator[Sent]:
    """Makes a job of a line of shell and submits it; what is left is cancelled."""
    made: list[JobFolder] = []

    def sent(name: str, *line: str, **asked: object) -> JobFolder:
        command = ("bash", "-c", *line) if len(line) == 1 else line
        made.append(JobFolder.create(tmp_path / "jobs" / name, Request(command, str(tmp_path), **asked)))  # type: ignore[arg-type]
        site.submit(made[-1])
        return made[-1]

    yield sent
    for job in made:
        if not all(part.state.ended for part in site.poll([job])[job.path]):
            site.cancel(job)
            final(site, job)


def final(site: Site, *jobs: JobFolder) -> list[list[Status]]:
    """How jobs ended, in their order."""
    begin, found = time.monotonic(), {}
    for job, parts in wait(_patient(site, begin), jobs, every_s=0.2):
        found[job.path] = parts
    return [found[job.path] for job in jobs]


def _patient(site: Site, begin: float) -> Site:
    class Patient:
        every_s = site.every_s

        def poll(self, jobs: list[JobFolder]) -> object:
            assert time.monotonic() - begin < LONG_S, f"not ended: {site.poll(jobs)}"
            return site.poll(jobs)

    return Patient()  # type: ignore[return-value]


def until(site: Site, job: JobFolder, state: State) -> None:
    begin = time.monotonic()
    while (found := site.poll([job])[job.path][0]).state is not state:
        assert time.monotonic() - begin < LONG_S and not found.state.ended, found
        time.sleep(0.1)


def test_ends_are_told_apart(site: Site, send: Sent) -> None:
    jobs = [send("good", "echo $GREETING; pwd", environment={"GREETING": "good morning"}),
            send("bad", "echo out of luck >&2; exit 3"), send("killed", "kill -KILL $$"),
            send("missing", "/no/such/program", "argument")]
    [good], [bad], [killed], [missing] = final(site, *jobs)
    assert (good.state, good.exit) == (State.DONE, 0)
    assert jobs[0].log().read_text().splitlines() == ["good morning", jobs[0].request().folder]
    assert (bad.state, bad.exit) == (State.FAILED, 3)
    assert "ended with status 3" in bad.told and "out of luck" in bad.told and str(jobs[1].log()) in bad.told
    assert (killed.state, killed.exit) == (State.FAILED, -9) and "SIGKILL" in killed.told
    assert missing.state is State.FAILED and "cannot be started" in missing.told


def test_every_element_of_an_array_has_its_number_and_its_verdict(site: Site, send: Sent) -> None:
    job = send("array", "echo element $MEGAVOX_ELEMENT; [ $MEGAVOX_ELEMENT != 2 ]", elements=5)
    [parts] = final(site, job)
    assert [part.state for part in parts] == [State.DONE, State.DONE, State.FAILED, State.DONE, State.DONE]
    assert [job.log(number).read_text() for number in range(5)] == [f"element {number}\n" for number in range(5)]


def test_a_job_that_is_cancelled_is_told_so_whether_it_ran_or_waited(site: Site, send: Sent) -> None:
    running = send("running", "sleep 300", cpus=2)
    until(site, running, State.RUNNING)
    site.cancel(running)
    array = send("array", "sleep 300", elements=12, cpus=2)
    site.cancel(array)
    assert {part.state for parts in final(site, running, array) for part in parts} == {State.CANCELLED}


def test_a_job_that_wants_to_go_on_is_started_again(site: Site, send: Sent) -> None:
    """As a training does that stopped in time: it leaves with 75."""
    job = send("again", "echo attempt >> attempts; [ $(wc -l < attempts) -ge 2 ] || exit 75")
    if is_real(site):
        the_cluster().release(read_json(job.native)[0]["id"])
    [[status]] = final(site, job)
    assert status.state is State.DONE
    assert (Path(job.request().folder) / "attempts").read_text() == "attempt\n" * 2


def test_submitting_twice_runs_once_and_names_are_taken_once(site: Site, send: Sent, tmp_path: Path) -> None:
    job = send("once", "echo ran >> ran; sleep 1")
    site.submit(job)
    final(site, job)
    site.submit(job)
    final(site, job)
    assert (tmp_path / "ran").read_text() == "ran\n"
    with pytest.raises(WorkspaceError, match="job of that name already"):
        JobFolder.create(job.path, job.request())


def test_ranks_know_each_other_and_the_first_that_fails_is_named(site: Site, send: Sent) -> None:
    good = send("ranks", "echo $RANK $WORLD_SIZE", ranks=2)
    bad = send("rank-dies", "[ $RANK = 0 ] && exec sleep 300; echo so far; sleep 1; kill -KILL $$", ranks=2)
    [ended], [failed] = final(site, good, bad)
    assert ended.state is State.DONE
    assert {"0 2", "1 2"} <= set(good.log().read_text().splitlines())
    assert failed.state is State.FAILED and "rank 1 of 2 on " in failed.told and "SIGKILL" in failed.told
    assert failed.told.endswith(":\nso far")


def test_a_rank_that_leaves_no_word_is_named(site: Site, send: Sent) -> None:
    job = send("vanishes", f"[ $RANK = 1 ] && sleep 1 && exec kill -KILL $PPID; sleep 2; exit {PEER_DIED}", ranks=2)
    [[failed]] = final(site, job)
    assert failed.state is State.FAILED and "rank 1 of 2 on " in failed.told and "without a word" in failed.told


def test_all_ranks_are_told_to_stop_in_time(site: Site, send: Sent) -> None:
    if isinstance(site, Slurm):
        pytest.skip("Slurm's shortest time limit is a minute; tests/faults has it")
    job = send("ranks-stop", "trap 'echo rank $RANK stops; exit 0' USR1; for i in $(seq 400); do sleep 0.1; done; "
               "exit 1", ranks=2, time_limit_s=40.0, grace_s=20.0)
    [[status]] = final(site, job)
    assert status.state is State.DONE, status
    assert {"rank 0 stops", "rank 1 stops"} <= set(job.log().read_text().splitlines())


def test_whoever_asks_finds_a_job_again(site: Site, send: Sent) -> None:
    job = send("found", "sleep 2")
    code = ("import sys; from pathlib import Path; from megavox.jobs.job import JobFolder\n"
            "from megavox.jobs.local import Local, LocalSection; from megavox.jobs.slurm import Slurm, SlurmSection\n"
            "from megavox.jobs.site import wait\n"
            "site = Local(LocalSection(place=sys.argv[2])) if sys.argv[2] else Slurm(SlurmSection())\n"
            "print(*(parts[0].state for _, parts in wait(site, [JobFolder(Path(sys.argv[1]))], 0.2)))")
    place = "" if isinstance(site, Slurm) else str(job.path.parents[1] / "slots")
    done = subprocess.run([sys.executable, "-c", code, str(job.path), place], capture_output=True, text=True,
                          check=True, timeout=LONG_S)
    assert done.stdout == "done\n"


"""A cluster with Slurm as a site, driven by Slurm's own commands.

The truth about a job is in its folder; Slurm is asked only about jobs that left no verdict there, by one `squeue`
for all of them and one `sacct` for those that the queue does not know any more. A controller that cannot be reached
is no verdict. Each `sbatch` carries a comment that nothing else has, written down before: where the answer was lost,
the job is found by it.
"""

from __future__ import annotations

import math
import re
import shlex
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from megavox.core.claims import Claims
from megavox.core.errors import SiteError
from megavox.core.files import read_json, write_json, write_text
from megavox.jobs.inside import AGAIN, HEAD, LAUNCH
from megavox.jobs.job import JobFolder, State, Status
from megavox.jobs.section import SiteSection
from megavox.jobs.site import ask_for_cancel, ended
from megavox.study.section import Positive

TIMEOUT_S = 60.0  # for a command of Slurm to answer
LOST_AFTER_S = 120.0  # accounting may be that late
CLOCKS_DIFFER_S = 3600.0  # at most, between this machine and Slurm's
_ANSWER_LOST = re.compile("tim(ed|e) ?out|did not answer|unable to contact|zero bytes|connection|socket|communication",
                          re.IGNORECASE)  # and so, perhaps, a job was taken
_OVER_MEMORY = re.compile("memory limit|oom.kill|out of memory", re.IGNORECASE)
_NOWHERE = ("", "(null)", "None assigned")  # nodes of a job that never had one
_WAITS = {"PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD"}
_RUNS = {"RUNNING", "COMPLETING", "CONFIGURING", "STAGE_OUT", "SIGNALING", "SUSPENDED", "STOPPED", "RESIZING"}
_ENDS = {"COMPLETED": State.LOST,  # without a verdict: it was not our wrapper that ended
         "FAILED": State.FAILED, "CANCELLED": State.CANCELLED, "TIMEOUT": State.TIME_LIMIT,
         "DEADLINE": State.TIME_LIMIT, "OUT_OF_MEMORY": State.MEMORY, "PREEMPTED": State.PREEMPTED,
         "NODE_FAIL": State.NODE_FAILED, "BOOT_FAIL": State.NODE_FAILED, "REVOKED": State.CANCELLED}
_REQUEUE = (  # a job that is told to end and runs no more was cancelled, or Slurm starts it again itself
    "bash -c 'scontrol show job $SLURM_JOB_ID | grep -q JobState=RUNNING || exit 75; scontrol requeue $SLURM_JOB_ID'")

Key = tuple[str, int | None]  # Slurm's number of a job or array, and the element


class SlurmSection(SiteSection):
    """A cluster with Slurm; its partition and account are among what `jobs` asks for."""

    kind: Literal["slurm"] = "slurm"
    setup: list[str] = Field(default_factory=list, description="lines of shell before the job, such as "
                             "`module load cuda`")
    options: list[str] = Field(default_factory=list, description="more options of sbatch, such as `--qos=long`")
    array_limit: Positive = Field(1000, description="most elements of one array; larger ones are split")


class Slurm:
    """Jobs in Slurm's queue.

    Args:
        section: what the site's jobs have in common.
    """

    every_s = 10.0  # each time its controller is asked

    def __init__(self, section: SlurmSection) -> None:
        self._section = section
        self._missing: dict[Key, float] = {}  # since when nothing knows a job

    def submit(self, job: JobFolder) -> None:
        """See `Site.submit`."""
        with Claims(job.lock) as claims, claims.waiting_for("submit"):
            if not job.native.exists() and not job.cancel.exists():
                self._submit(job)

    def _submit(self, job: JobFolder) -> None:
        chunks = _chunks(job.request().elements, self._section.array_limit)
        if job.intent.exists():
            numbers = self._by_comment(job)
        else:
            numbers = {}
            write_json(job.intent, {"token": uuid.uuid4().hex, "at": time.time()})
        token = read_json(job.intent)["token"]
        for number, (first, count) in enumerate(chunks):
            comment = f"{token}-{number}"
            if comment not in numbers:
                numbers[comment] = self._sbatch(job, comment, first, count)
        write_json(job.native, [{"id": numbers[f"{token}-{number}"], "first": first, "count": count}
                                for number, (first, count) in enumerate(chunks)])

    def poll(self, jobs: Sequence[JobFolder]) -> Mapping[Path, list[Status]]:
        """See `Site.poll`."""
        found = {job.path: [job.judged(part) for part in job.request().parts] for job in jobs}
        keys = {job.path: _keys(job) for job in jobs if None in found[job.path]}
        open_ = {path: [place for place, status in enumerate(found[path]) if status is None] for path in keys}
        states = self._states({key for path, places in open_.items() for key in map(keys[path].__getitem__, places)
                               if key is not None})
        for job in jobs:
            for place in open_.get(job.path, ()):
                found[job.path][place] = self._unjudged(job, place, keys[job.path][place], states)
        return found  # type: ignore[return-value]

    def cancel(self, job: JobFolder) -> None:
        """See `Site.cancel`."""
        ask_for_cancel(job)
        with Claims(job.lock) as claims, claims.waiting_for("submit"):
            numbers = [one["id"] for one in _natives(job)]
            if not numbers and job.intent.exists():  # somebody was cut off while handing it over
                numbers = list(self._by_comment(job).values())
        if not (numbers and self._cancelled(numbers)):
            for part in job.request().parts:
                if job.judged_anew(part) is None:
                    job.judge(ended(job, State.LOST, part), part)

    def _cancelled(self, numbers: Sequence[str]) -> bool:
        """Cancel jobs; False where the queue does not know them any more."""
        try:
            self._call("scancel", *numbers)
        except SiteError as error:
            if "invalid job id" not in str(error).lower():
                raise
            return False
        return True

    # ------------------------------------------------------------------ asking

    def _unjudged(self, job: JobFolder, place: int, key: Key | None, states: dict[Key, str] | None) -> Status:
        """The status of a part without a verdict; `states` is None where Slurm cannot be asked."""
        part = place if job.request().elements else None
        if states is None or key is None:
            return Status(State.UNKNOWN, "Slurm cannot be asked now" if key else "it was not handed over yet")
        word = states.get(key)
        word, _, reason = (word or "").partition("|")
        if word in _WAITS or word in _RUNS:
            self._missing.pop(key, None)
            told = f"Slurm's job {key[0]}" + (f": {reason}" if reason not in ("", "None") else "")
            return Status(State.WAITING, told) if word in _WAITS else Status(State.RUNNING)
        judged = job.judged_anew(part)  # it may have ended since it was looked at first
        if judged is not None:
            return judged
        if not word or _ENDS.get(word) is State.LOST:  # accounting may be late
            since = self._missing.setdefault(key, time.monotonic())
            if time.monotonic() - since < LOST_AFTER_S:
                return Status(State.UNKNOWN, "Slurm does not know it any more")
        said = _said(job, key)
        state = _ENDS.get(word, State.LOST)
        return ended(job, State.MEMORY if state is State.FAILED and _OVER_MEMORY.search(said) else state, part, said)

    def _states(self, wanted: set[Key]) -> dict[Key, str] | None:
        """Slurm's word for jobs and elements, `STATE` or `STATE|why it waits`; None: it cannot be asked."""
        if not wanted:
            return {}
        try:
            lines = self._call("squeue", "--me", "-h", "-r", "-t", "all", "-o", "%F|%K|%T|%r").splitlines()
            states = {(number, _element(index)): word
                      for number, index, word in (line.split("|", 2) for line in lines)}
            unknown = wanted - states.keys()
            return self._accounted(unknown) | states if unknown else states
        except SiteError:
            return None

    def _accounted(self, wanted: set[Key]) -> dict[Key, str]:
        """What accounting knows of jobs that have left the queue; nothing, where there is no accounting."""
        numbers = ",".join(sorted({number for number, _ in wanted}))
        try:
            text = self._call("sacct", "-n", "-X", "-P", "-j", numbers, "-o", "JobID,State")
        except SiteError as error:
            if "accounting storage is disabled" in str(error).lower():
                return {}
            raise
        found: dict[Key, str] = {}
        never_began: dict[str, str] = {}
        for name, word in (line.split("|") for line in text.splitlines()):
            number, _, index = name.partition("_")
            if index.startswith("["):  # one line, `12_[3,5-9]`, for all elements that never began
                never_began[number] = word.split()[0]
            else:
                found[number, _element(index)] = word.split()[0]
        return {key: never_began[key[0]] for key in wanted if key[0] in never_began} | found

    def _by_comment(self, job: JobFolder) -> dict[str, str]:
        """Numbers of the parts of a job in the queue, or in accounting, by their comments.

        Accounting keeps the line of `sbatch` with the comment, and the comment itself only at some sites. A job that
        was refused is known too: as one that failed on no node.
        """
        intent = read_json(job.intent)
        since = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(intent["at"] - CLOCKS_DIFFER_S))
        lines = self._call("squeue", "--me", "-h", "-t", "all", "-o", "%F|%T|%N|%k").splitlines()
        with suppress(SiteError):  # no accounting: the queue alone, which keeps jobs for some minutes
            fields = "JobID,State,NodeList,SubmitLine"
            lines += self._call("sacct", "-n", "-X", "-P", "-S", since, "-o", fields).splitlines()
        numbers = {}
        for number, state, nodes, line in (line.split("|", 3) for line in lines):
            found = re.search(f"{intent['token']}-[0-9]+", line)
            if found and not (state == "FAILED" and nodes in _NOWHERE):
                numbers[found[0]] = number.partition("_")[0]
        return numbers

    # ------------------------------------------------------------------ submitting

    def _sbatch(self, job: JobFolder, comment: str, first: int, count: int) -> str:
        """Hand over a job, or a part of an array; returns Slurm's number."""
        script = job.path / f"script-{first}.sh"
        write_text(script, self._script(job, first, count))
        try:
            answer = self._call("sbatch", "--parsable", f"--comment={comment}", str(script))
        except SiteError as refusal:
            found = self._by_comment(job)  # it may have been taken, and the answer lost
            if comment in found:
                return found[comment]
            if not found and not _ANSWER_LOST.search(str(refusal)):
                job.intent.unlink()  # nothing of it was taken, nor will be
            raise
        return answer.strip().split(";")[0]

    def _script(self, job: JobFolder, first: int, count: int) -> str:
        request, section = job.request(), self._section
        each = request.ranks // request.nodes
        cpus = request.cpus * each if request.cpus else each if each > 1 else None
        options: dict[str, object] = {
            "job-name": job.name, "nodes": request.nodes, "chdir": request.folder,
            "ntasks-per-node": 1, "cpus-per-task": cpus,
            "output": str(job.path / "site-").replace("%", "%%") + ("%A_%a.txt" if count else "%A.txt"),
            "open-mode": "append",
            "partition": request.partition, "account": request.account,
            "gpus-per-node": request.gpus or None, "array": f"0-{count - 1}" if count else None,
            "mem": f"{max(1, int(1e9 * request.memory_gb) >> 20)}M" if request.memory_gb else None,
            "time": math.ceil(request.time_limit_s / 60) if request.time_limit_s else None}
        if request.time_limit_s:
            options["signal"] = f"B:USR1@{int(min(request.grace_s, request.time_limit_s / 2))}"
        lines = [f"#SBATCH --{name}={shlex.quote(str(value))}" for name, value in options.items() if value is not None]
        lines += [f"#SBATCH {option}" for option in ("--requeue", *section.options)]
        variables = {LAUNCH: f"srun --nodes={request.nodes} --ntasks={request.nodes} --ntasks-per-node=1 "
                     + (f"--cpus-per-task={cpus} " if cpus else "") + "--kill-on-bad-exit=1"}
        exports = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
        inside = [sys.executable, "-m", "megavox.jobs.inside", str(job.path)]
        element = f" $(({first} + SLURM_ARRAY_TASK_ID))" if count else ""
        return "\n".join((
            "#!/bin/bash", *lines, *section.setup, *exports,
            f"export {AGAIN}={shlex.quote(_REQUEUE)}",
            f'export {HEAD}=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)',
            f"exec {shlex.join(inside)}{element}", ""))

    def _call(self, *command: str) -> str:
        """The output of one of Slurm's commands.

        Raises:
            SiteError: it is not there, refuses, or does not answer.
        """
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
        except FileNotFoundError:
            raise SiteError(f"there is no command {command[0]} here", expected="a machine that can submit to Slurm",
                            fix="Run this on the cluster's login node") from None
        except subprocess.TimeoutExpired:
            raise SiteError(f"{command[0]} did not answer within {TIMEOUT_S:.0f} s", fix="Try again later") from None
        if done.returncode:
            said = [line for line in (done.stderr.strip() or done.stdout.strip()).splitlines() if line[:3] != "Try"]
            told = "; ".join(line.removeprefix(f"{command[0]}: error: ") for line in said) or str(done.returncode)
            raise SiteError(f"{command[0]} says: {told}", fix="Slurm cannot be reached now: try again later"
                            if _ANSWER_LOST.search(told) else "Correct the request or the site's file")
        return done.stdout


def _chunks(elements: int, most: int) -> list[tuple[int, int]]:
    """First element and count of each part of an array; a single (0, 0) for what is no array."""
    return [(first, min(most, elements - first)) for first in range(0, elements, most)] or [(0, 0)]


def _natives(job: JobFolder) -> list[dict[str, Any]]:
    return list(read_json(job.native)) if job.native.exists() else []


def _keys(job: JobFolder) -> list[Key | None]:
    """What Slurm calls each part of a job; None: it was not handed over."""
    natives = _natives(job)
    if not job.request().elements:
        return [(natives[0]["id"], None) if natives else None]
    return [(one["id"], number) for one in natives for number in range(one["count"])] or \
        [None] * job.request().elements


def _said(job: JobFolder, key: Key) -> str:
    """What Slurm itself wrote of a job, or of an element: what stands outside the job's own log."""
    number, element = key
    path = job.path / (f"site-{number}.txt" if element is None else f"site-{number}_{element}.txt")
    return path.read_text(errors="replace") if path.exists() else ""


def _element(index: str) -> int | None:
    return int(index) if index.isdigit() else None

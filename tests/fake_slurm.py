"""A Slurm that is none, to make its faults: commands of the same names that keep a queue in a folder.

Each job is a process. `FAULTS` in the queue's folder names what goes wrong:
    lost-answer     sbatch takes the job and then fails
    refused         sbatch fails
    away            nothing can be asked
    forgetful       the queue forgets a job as soon as it has ended
    no-accounting   sacct says that there is none
    late            accounting is empty
"""

# ruff: noqa: T201 (commands print)

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

COMMANDS = ("sbatch", "squeue", "sacct", "scancel", "scontrol")


def install(folder: Path) -> dict[str, str]:
    """Write the commands into a folder; returns the variables with which they are found before others."""
    for name in COMMANDS:
        path = folder / "bin" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\nexec {sys.executable} -S {__file__} {name} \"$@\"\n")
        path.chmod(0o755)
    (folder / "jobs").mkdir()
    return {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "FAKE_SLURM": str(folder)}


def fault(folder: Path, *names: str) -> None:
    """From now on these go wrong, and no others."""
    (folder / "FAULTS").write_text(" ".join(names))


def main(command: str, arguments: list[str]) -> int:
    folder = Path(os.environ["FAKE_SLURM"])
    faults = (folder / "FAULTS").read_text().split() if (folder / "FAULTS").exists() else []
    if "away" in faults:
        print("slurm_load_jobs error: Unable to contact slurm controller", file=sys.stderr)
        return 1
    return {"sbatch": sbatch, "squeue": squeue, "sacct": sacct, "scancel": scancel, "scontrol": scontrol}[command](
        folder, faults, arguments)


def sbatch(folder: Path, faults: list[str], arguments: list[str]) -> int:
    if "refused" in faults:
        print("sbatch: error: Batch job submission failed: Invalid account", file=sys.stderr)
        return 1
    comment, script = arguments[-2].removeprefix("--comment="), Path(arguments[-1])
    options = dict(line.removeprefix("#SBATCH --").partition("=")[::2] for line in script.read_text().splitlines()
                   if line.startswith("#SBATCH"))
    number = str(1 + len({path.name.partition("_")[0] for path in (folder / "jobs").iterdir()}))
    last = options.get("array", "").partition("-")[2]
    for index in range(int(last) + 1) if last else [None]:
        start(folder, number if index is None else f"{number}_{index}",
              {"script": str(script), "comment": comment, "chdir": options["chdir"]})
    if "lost-answer" in faults:
        print("sbatch: error: Socket timed out on send/recv operation", file=sys.stderr)
        return 1
    print(number)
    return 0


def start(folder: Path, name: str, about: dict[str, str], after_s: float = 0.0) -> None:
    """Start a job, or an element NUMBER_INDEX, for the first time or once more."""
    index = name.partition("_")[2]
    process = subprocess.Popen(["bash", "-c", f"sleep {after_s}; exec bash {about['script']}"], cwd=about["chdir"],
                               start_new_session=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL,
                               env={**os.environ, "SLURM_JOB_ID": name, "SLURM_JOB_NODELIST": "localhost",
                                    **({"SLURM_ARRAY_TASK_ID": index} if index else {})})
    (folder / "jobs" / name).write_text(json.dumps({**about, "pid": process.pid}))


def scontrol(folder: Path, _faults: list[str], arguments: list[str]) -> int:
    if arguments[0] == "requeue":
        start(folder, arguments[1], json.loads((folder / "jobs" / arguments[1]).read_text()), after_s=1.0)
    elif arguments[1] == "job":
        about = json.loads((folder / "jobs" / arguments[2]).read_text())
        print(f"JobState={about.get('ended', 'RUNNING')}")
    else:
        print(arguments[-1])
    return 0


def jobs(folder: Path) -> dict[str, tuple[str, str]]:
    """State and comment of each job, and of each element of an array."""
    found = {}
    for path in (folder / "jobs").iterdir():
        about = json.loads(path.read_text())
        try:
            alive = Path(f"/proc/{about['pid']}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
        except OSError:
            alive = False
        found[path.name] = ("RUNNING" if alive else about.get("ended", "FAILED"), about["comment"])
    return found


def squeue(folder: Path, faults: list[str], arguments: list[str]) -> int:
    for name, (state, comment) in jobs(folder).items():
        number, _, index = name.partition("_")
        if state == "RUNNING" or "forgetful" not in faults:
            print(f"{number}|{state}|here|{comment}" if arguments[-1].endswith("%k") else
                  f"{number}|{index or 'N/A'}|{state}|None")
    return 0


def sacct(folder: Path, faults: list[str], arguments: list[str]) -> int:
    if "no-accounting" in faults:
        print("Slurm accounting storage is disabled", file=sys.stderr)
        return 1
    for name, (state, comment) in {} if "late" in faults else jobs(folder).items():
        print(f"{name}|{state}" + f"|here|sbatch --comment={comment} script" * arguments[-1].endswith("SubmitLine"))
    return 0


def scancel(folder: Path, _faults: list[str], arguments: list[str]) -> int:
    those = [path for path in (folder / "jobs").iterdir() if path.name.partition("_")[0] in arguments]
    for path in those:
        about = json.loads(path.read_text())
        path.write_text(json.dumps({**about, "ended": "CANCELLED by 0"}))
    for signal_ in (signal.SIGTERM, signal.SIGKILL):
        for path in those:
            try:
                os.kill(json.loads(path.read_text())["pid"], signal_)
            except ProcessLookupError:
                continue
        time.sleep(2.0 if signal_ is signal.SIGTERM else 0)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))

"""Cohort runs under attack, for `run_apart`: each runs in processes forked from one that has imported all.

A run is a process with workers of its own, in a group of its own, which can be killed as a whole.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import megavox.inference.case
import megavox.inference.runner
import megavox.inference.worker
from megavox.cohort.case import Case
from megavox.core.files import TEMPORARY, read_csv, read_json, write_json
from megavox.core.provenance import versions
from megavox.images.image import Image
from megavox.inference.cohort import predict_cases
from megavox.inference.predictor import Predictor
from megavox.inference.records import ASIDE, QUARANTINE, TABLE
from small_network import masks, small_cases, small_network

KILLS = 100
read_channels = megavox.inference.case.read_channels


def begin(root: Path, count: int) -> tuple[Any, list[Case]]:
    """A network and cases; workers are forked from the run that starts them, which is quick."""
    megavox.inference.runner.worker_context = lambda preload=(): multiprocessing.get_context("fork")
    os.fsync = lambda handle: None  # a kill loses nothing that was written
    versions()  # asks git once, for all
    return small_network(root / "network"), small_cases(root / "images", count)


def start(work: Callable[[], Any]) -> int:
    """Run `work` in a process group of its own; returns its process."""
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        status = 1
        try:
            work()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return child


def ended(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def unfinished(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob(TEMPORARY + "*")]


def killed_anywhere(root: Path) -> None:
    """Runs killed whole at random moments and started again until all is done, over and over."""
    network, cases = begin(root, 5)
    (root / "images" / "case02.nii.gz").write_bytes(b"no image")
    clean, out = root / "clean", root / "out"
    for folder in (root / "first", clean):  # the first run prepares what is kept for all others
        clock = time.monotonic()
        assert ended(start(lambda to=folder: predict_cases(network, cases, to, workers=2))) == 0
        lasts = time.monotonic() - clock
    expected, table = masks(clean), (clean / TABLE).read_text()
    assert len(expected) == 4
    chance, kills, rounds = random.Random(5), 0, 0
    while kills < KILLS:
        child = start(lambda: predict_cases(network, cases, out, workers=2))
        time.sleep(chance.uniform(0, 0.8 * lasts))
        try:
            os.killpg(child, signal.SIGKILL)
        except ProcessLookupError:  # it is not in its group yet
            os.kill(child, signal.SIGKILL)
        status = ended(child)
        kills += status == -signal.SIGKILL
        assert masks(out).items() <= expected.items(), "a mask is whole or absent"
        if status == 0 or kills == KILLS:
            assert ended(start(lambda: predict_cases(network, cases, out, workers=2))) == 0
            assert masks(out) == expected and (out / TABLE).read_text() == table
            assert [row["case"] for row in read_csv(out / QUARANTINE)] == ["case02"]
            assert not unfinished(out)
            shutil.rmtree(out)
            rounds += 1
    write_json(root / "outcome.json", {"kills": kills, "rounds": rounds})


def workers_killed(root: Path) -> None:
    """A run whose workers are killed one after another."""
    _kill_while_cases_end(root, random.Random(1).choice)


def newest_killed(root: Path) -> None:
    """A run in which one worker does the cases, and others are killed before they can work."""
    prepare = megavox.inference.worker.begin_in_loader

    def slowly(*given: Any) -> None:
        try:
            (root / "first").touch(exist_ok=False)
        except FileExistsError:
            time.sleep(3)
        prepare(*given)

    megavox.inference.worker.begin_in_loader = slowly
    _kill_while_cases_end(root, lambda workers: max(workers, key=lambda one: one.pid or 0))


def _kill_while_cases_end(root: Path, choose: Callable[[list[Any]], Any]) -> None:
    network, cases = begin(root, 16)
    out, clean = root / "out", root / "clean"

    def killer(log: Path) -> None:
        seen = 0
        while True:
            time.sleep(0.01)
            done = len(list(out.glob("*.json")))
            if done > seen + 1 and (workers := multiprocessing.active_children()):
                seen = done
                choose(workers).kill()
                with log.open("a") as stream:
                    stream.write("x")

    def run() -> None:
        threading.Thread(target=killer, args=(root / "kills",), daemon=True).start()
        predict_cases(network, cases, out, workers=3)

    assert ended(start(run)) == 0
    table = len(read_csv(out / TABLE)) + len(read_csv(out / QUARANTINE))
    assert ended(start(lambda: predict_cases(network, cases, out, workers=2))) == 0
    assert ended(start(lambda: predict_cases(network, cases, clean, workers=1))) == 0
    write_json(root / "outcome.json", {
        "kills": len((root / "kills").read_text()), "listed": table, "equal": masks(out) == masks(clean),
        "masks": len(masks(out))})


def deadly(root: Path) -> None:
    """Cases that kill their worker, end it, or fail in ways that nobody expects; and how often each was read."""
    network, cases = begin(root, 12)
    (root / "broken.nii.gz").write_bytes(b"no image")
    cases[4] = replace(cases[4], images=((root / "broken.nii.gz",),))

    def read(case: Case, grey: bool) -> Image:
        (root / "reads").mkdir(exist_ok=True)
        with (root / "reads" / case.name).open("a") as stream:
            stream.write("x")
        times = (root / "reads" / case.name).stat().st_size
        if case.name == "case01":
            os.kill(os.getpid(), signal.SIGKILL)
        if case.name == "case03":
            os._exit(3)
        if case.name == "case06":
            raise ValueError("a bug")
        if case.name == "case08" and times == 1:
            raise MemoryError
        if case.name == "case09" and times == 1:
            os.kill(os.getpid(), signal.SIGSEGV)
        return read_channels(case, grey)

    megavox.inference.case.read_channels = read
    out = root / "out"
    statuses = []
    reads = []
    for workers in (3, 1):
        statuses.append(ended(start(lambda n=workers: predict_cases(network, cases, out, workers=n))))
        reads.append({path.name: path.stat().st_size for path in (root / "reads").iterdir()})
        shutil.rmtree(root / "reads")
    write_json(root / "outcome.json", {
        "statuses": statuses, "reads": reads, "done": [row["case"] for row in read_csv(out / TABLE)],
        "quarantine": read_csv(out / QUARANTINE), "trace": (out / ASIDE / "case06.txt").read_text(),
        "unfinished": unfinished(out)})


def two_commands(root: Path) -> None:
    """Two commands on one folder at once, twice; and a case that one cannot have, since another claims it."""
    network, cases = begin(root, 24)

    def read(case: Case, grey: bool) -> Image:
        with (root / "reads").open("a") as stream:
            stream.write(f"{case.name}\n")
        return read_channels(case, grey)

    megavox.inference.case.read_channels = read
    out = root / "out"

    def run() -> None:
        outcome = predict_cases(network, cases, out, workers=2)
        write_json(root / f"command{os.getpid()}.json", {"elsewhere": outcome.elsewhere, "rows": len(outcome.rows)})

    children = [start(run), start(run)]
    statuses = [ended(child) for child in children]
    reads = Counter((root / "reads").read_text().split())
    write_json(root / "outcome.json", {
        "statuses": statuses, "reads": dict(reads), "table": [row["case"] for row in read_csv(out / TABLE)],
        "commands": [read_json(path) for path in root.glob("command*.json")]})


def overlapped(root: Path) -> None:
    """Reading, computing and writing that each wait a quarter of a second a case, in one worker."""
    network, cases = begin(root, 8)

    def slow(kind: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def waiting(*arguments: Any) -> Any:
            begin = time.monotonic()
            time.sleep(0.25)
            found = work(*arguments)
            with (root / kind).open("a") as stream:
                stream.write(f"{begin} {time.monotonic()}\n")
            return found

        return waiting

    megavox.inference.case.read_channels = slow("reading", read_channels)
    megavox.inference.worker.write_case = slow("writing", megavox.inference.worker.write_case)
    Predictor.predict = slow("computing", Predictor.predict)  # type: ignore[method-assign]
    assert ended(start(lambda: predict_cases(network, cases, root / "out", workers=1))) == 0
    write_json(root / "outcome.json", {kind: [[float(t) for t in line.split()] for line in
                                              (root / kind).read_text().splitlines()]
                                       for kind in ("reading", "computing", "writing")})

"""Runs for each rank, under `torchrun`: starts the command, and writes down how it ended.

    python -m megavox.jobs.rank FOLDER [ELEMENT]

`torchrun` ends all ranks when one fails and says little of why; what stands here names rank, host and cause. A rank
that leaves with 75 wants to go on later, which is no failure.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from megavox.core.files import write_json
from megavox.core.processes import die_with_parent, nice_session
from megavox.core.provenance import cores
from megavox.core.signals import TO_BE_CONTINUED
from megavox.jobs.job import JobFolder

LOOK_EVERY_S = 0.5  # for the file that tells all ranks to stop
TOPOLOGY = Path("/sys/devices/system/cpu")


def main(folder: JobFolder, element: int | None) -> int:
    """Run the job's command as this rank; returns the status to leave with."""
    die_with_parent()
    nice_session()  # `torchrun` begins one for each rank
    keep_to_share()
    rank, told = int(os.environ["RANK"]), False
    about = {"rank": rank, "host": socket.gethostname()}
    write_json(folder.rank(rank, element), {**about, "exit": None, "ended": time.time()})
    child = subprocess.Popen(folder.request().command, stdin=subprocess.DEVNULL, preexec_fn=die_with_parent)
    signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    while True:
        try:
            status = child.wait(LOOK_EVERY_S)
            break
        except subprocess.TimeoutExpired:
            if not told and folder.stop(element).exists():
                child.send_signal(signal.SIGUSR1)
                told = True
    write_json(folder.rank(rank, element), {**about, "exit": status, "ended": time.time()})
    if status == TO_BE_CONTINUED:
        return 0
    return status if status >= 0 else 128 - status


def keep_to_share() -> None:
    """Keep this process, and all that it starts, to its share of the job's cores on this node.

    Ranks wait for each other in every step: one that is moved to another's core for a moment makes all of them wait.
    Nothing is done where there are fewer cores than ranks, where the cluster does not keep the job to its cores, and
    for GPUs, whose ranks compute little here.
    """
    rank, ranks = int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])
    mine = sorted(os.sched_getaffinity(0), key=_place)
    if ranks <= len(mine) == cores() and not os.environ.get("CUDA_VISIBLE_DEVICES"):
        os.sched_setaffinity(0, mine[rank * len(mine) // ranks:(rank + 1) * len(mine) // ranks])


def _place(core: int) -> tuple[int, int, int]:
    """Sorts the threads of a core beside each other, and the cores of a processor."""
    try:
        processor, number = (int((TOPOLOGY / f"cpu{core}" / "topology" / name).read_text())
                             for name in ("physical_package_id", "core_id"))
    except (OSError, ValueError):  # it is not told here
        return 0, core, core
    return processor, number, core


if __name__ == "__main__":
    sys.exit(main(JobFolder(Path(sys.argv[1])), int(sys.argv[2]) if len(sys.argv) > 2 else None))

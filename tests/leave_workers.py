"""A process with workers that says "ready" and then crashes, or goes on until it is killed.

    python leave_workers.py load|pack crash|stay FOLDER
"""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

from megavox.batches.loader import batches
from megavox.store.build import build_store
from packed_arrays import samples_of, three_cases
from packing_faults import ORGAN_TASK, VOLUME, same_case


def load(folder: Path) -> None:
    """Take one batch, and keep the loader for as long as the process lives."""
    global loader
    loader = batches(samples_of(three_cases(folder), (8, 8, 8)), first_step=0, steps=10_000, workers=2)
    next(loader)
    sys.stdout.write("ready\n")
    sys.stdout.flush()


def pack(folder: Path) -> None:
    """Pack very many cases."""
    def tell() -> None:
        while len(list((folder / "store").glob("*"))) < 3:
            time.sleep(0.05)
        sys.stdout.write("ready\n")
        sys.stdout.flush()

    cases = [same_case(folder, number) for number in range(5000)]
    (folder / "store").mkdir()
    threading.Thread(target=tell, daemon=True).start()
    build_store(folder / "store", cases, VOLUME, ORGAN_TASK, seed=1, workers=2, one_mask_a_class=False)


if __name__ == "__main__":
    what, how, where = sys.argv[1:]
    {"load": load, "pack": pack}[what](Path(where))
    if how == "crash":
        raise ValueError("a bug")
    time.sleep(60)

"""Memory of a loader's worker that draws from many cases: `worker_memory.py STORE` prints megabytes.

A program of its own, as a worker imports again what its parent's script imports: here that is Megavox only.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import psutil

from ct_samples import samples_of
from megavox.batches.loader import batches
from megavox.store.read import Store

DRAWN = 2000  # patches of 128^3


def main() -> None:
    """Print the most that any process of the loader ever had resident."""
    store = Store(Path(sys.argv[1]))
    cases = [store.reader(key, key) for key in store.records]
    drawn = batches(samples_of(cases, 128, 0.2), first_step=0, steps=DRAWN // 2, workers=1)
    peak = 0.0
    for number, _ in enumerate(drawn):
        if number == DRAWN // 2 - 10:  # they end with the last batch
            for process in psutil.Process().children(recursive=True):
                found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())
                peak = max(peak, int(found[1]) * 1024 / 1e6 if found else 0.0)
    print(f"{peak:.1f}")


if __name__ == "__main__":
    main()

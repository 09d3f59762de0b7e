"""Random patches out of CT volumes: Megavox's store read by Megavox, TensorStore and zarr-python.

    make bench-data

Patches per second of CPU time on one thread, everything in the page cache; the readers take turns, and the
median of the rounds counts. The cold column is what the disk gave for one patch after its file had left the
page cache. A bar that is missed makes the exit status 1.
"""

from __future__ import annotations

import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import numpy as np
import tensorstore
import zarr

from ct_volumes import SHAPE, ct_volume, pack_volume
from megavox.store.layout import IMAGE
from megavox.store.read import CaseReader
from megavox.store.shard import OpenShards, read_layout

SIZES, ROUNDS, SECONDS = (32, 64, 128), 5, 0.6
Read = Callable[[int, list[int], list[int]], np.ndarray]


def tensorstore_of(folder: Path) -> tensorstore.TensorStore:
    """The image, opened for reading with one thread and no cache."""
    return tensorstore.open({
        "driver": "zarr3", "kvstore": {"driver": "file", "path": str(folder / IMAGE)}, "recheck_cached_metadata": False,
        "recheck_cached_data": False, "context": {
            "data_copy_concurrency": {"limit": 1}, "file_io_concurrency": {"limit": 1},
            "cache_pool": {"total_bytes_limit": 0}}}).result()


def rate(read: Read, size: int, seconds: float, volumes: int) -> float:
    """Patches per second of CPU time, all threads of the process counted."""
    rng, count, begin = np.random.default_rng(1), 0, time.process_time()
    while time.process_time() - begin < seconds:
        start = [int(rng.integers(0, n - size + 1)) for n in SHAPE]
        read(int(rng.integers(volumes)), start, [a + size for a in start])
        count += 1
    return count / (time.process_time() - begin)


def cold_megabytes(cases: list[CaseReader], size: int, patches: int = 20) -> float:
    """Megabytes that the disk gave for a patch, its index included, whose file was not in the page cache."""
    rng, total = np.random.default_rng(2), 0
    for _ in range(patches):
        case = cases[int(rng.integers(len(cases)))]
        path = case.folder / case.record.bytes[0][0]
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)
        start = [int(rng.integers(0, n - size + 1)) for n in SHAPE]
        layout, before = read_layout(case.folder / IMAGE / "zarr.json"), disk_bytes()
        OpenShards().box(str(path), path.stat(), (0, *start), (1, *(a + size for a in start)), lambda it=layout: it)
        total += disk_bytes() - before
    return total / patches / 1e6


def disk_bytes() -> int:
    """What this process has made the disk read."""
    lines = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(lines["read_bytes"])


def main() -> int:
    """Measure, print, and return the exit status."""
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, " + ", ".join(
        f"{name} {metadata.version(name)}" for name in ("megavox", "numba", "blosc2", "tensorstore", "zarr", "numpy")))
    with tempfile.TemporaryDirectory() as place:
        cases = [pack_volume(Path(place) / f"ct{n}", *ct_volume(n)) for n in range(3)]
        stores = [tensorstore_of(case.folder) for case in cases]
        arrays = [zarr.open_array(case.folder / IMAGE, mode="r") for case in cases]
        readers: dict[str, Read] = {
            "Megavox": lambda n, a, b: cases[n].image(a, b),
            "TensorStore": lambda n, a, b: stores[n][(slice(0, 1), *map(slice, a, b))].read().result(),
            "zarr-python": lambda n, a, b: np.asarray(arrays[n][(slice(0, 1), *map(slice, a, b))])}
        start, stop = [33, 101, 77], [97, 165, 141]
        first, *others = [read(1, start, stop) for read in readers.values()]
        assert all(np.array_equal(first, other) for other in others), "all read the same voxels"
        medians: dict[int, dict[str, float]] = {}
        for size in SIZES:
            rounds = [{name: rate(read, size, SECONDS, len(cases)) for name, read in readers.items()}
                      for _ in range(ROUNDS)]
            medians[size] = {name: float(np.median([one[name] for one in rounds])) for name in readers}
        cold = {size: cold_megabytes(cases, size) for size in SIZES}
    print("\npatches/s of CPU time  " + "".join(f"{name:>13}" for name in readers) + "   to TensorStore   cold MB")
    for size, found in medians.items():
        print(f"{size:>4}^3                 " + "".join(f"{value:>13.1f}" for value in found.values())
              + f"{found['Megavox'] / found['TensorStore']:>17.2f}{cold[size]:>10.2f}")
    bars = [("reading 64^3 to TensorStore", medians[64]["Megavox"] / medians[64]["TensorStore"], 2.5, True)]
    if cold[64]:
        bars.append(("cold MB for 64^3", cold[64], 1.0, False))
    else:
        print("\nthe cold column was not measured: temporary files lie in memory here")
    print()
    short = 0
    for name, value, target, more in bars:
        good = value >= target if more else value <= target
        short += not good
        print(f"bar {name} {value:.2f} {target:g} {'pass' if good else 'short'}")
    return 1 if short else 0


if __name__ == "__main__":
    sys.exit(main())

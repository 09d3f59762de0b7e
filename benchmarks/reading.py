"""Random patches out of CT volumes: Megavox, TensorStore and zarr-python on Megavox's store, nnU-Net on its own.

    make bench-data

Patches per second of CPU time on one thread, everything in the page cache; the readers take turns, and the
median of the rounds counts. TensorStore reads without a cache and does not look whether the files changed.
nnU-Net's store is written by nnU-Net for the very patch size that is read, with z-scored float32, which is what
it writes and trains with; its arrays stay open, which its data loader opens anew for every patch. "Its int16"
is a store that nnU-Net never makes: its chunks and its code with the int16 that the other readers read, without
the checksums that they compare. The cold column is what the disk
gave for one patch after its file had left the page cache. A bar that is missed makes the exit status 1.
`--short` reads one volume, in one round, and sets no bars.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorstore
import zarr

import nnunet_store
from bars import Bar, Work, in_turns, print_machine, report
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


def nnunet_reader(folder: Path, images: list[np.ndarray], size: int) -> Read:
    """Write the images for patches of `size`, and read them."""
    for number, image in enumerate(images):
        nnunet_store.write_case(folder, f"ct{number}", image, np.zeros(SHAPE, np.uint8), size)
    cases = nnunet_store.opened(folder)
    arrays = [cases.load_case(f"ct{number}")[0] for number in range(len(images))]
    return lambda n, a, b: arrays[n][(slice(0, 1), *map(slice, a, b))]


def work_of(read: Read, size: int, volumes: int) -> Work:
    """Read one random patch."""

    def work(rng: np.random.Generator) -> int:
        start = [int(rng.integers(0, n - size + 1)) for n in SHAPE]
        read(int(rng.integers(volumes)), start, [a + size for a in start])
        return 1

    return work


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


def rates(cases: list[CaseReader], images: list[np.ndarray], place: Path, size: int, rounds: int) -> dict[str, float]:
    """The rate of each reader for patches of one size."""
    stores = [tensorstore_of(case.folder) for case in cases]
    arrays = [zarr.open_array(case.folder / IMAGE, mode="r") for case in cases]
    readers: dict[str, Read] = {
        "Megavox": lambda n, a, b: cases[n].image(a, b),
        "TensorStore": lambda n, a, b: stores[n][(slice(0, 1), *map(slice, a, b))].read().result(),
        "nnU-Net": nnunet_reader(place / f"float{size}", [*map(nnunet_store.zscored, images)], size),
        "its int16": nnunet_reader(place / f"int{size}", images, size),
        "zarr-python": lambda n, a, b: np.asarray(arrays[n][(slice(0, 1), *map(slice, a, b))])}
    start, stop = [33, 101, 77], [97, 165, 141]
    first, *others = [read(0, start, stop) for name, read in readers.items() if name != "nnU-Net"]
    assert all(np.array_equal(first, other) for other in others), "all read the same voxels"
    return in_turns({name: work_of(read, size, len(cases)) for name, read in readers.items()}, SECONDS, rounds)


def main() -> int:
    """Measure, print, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--short", action="store_true", help="one volume, one round, no bars")
    short = parser.parse_args().short
    print_machine("megavox", "numba", "blosc2", "tensorstore", "zarr", "nnunetv2", "numpy")
    bars: list[Bar] = []
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        volumes = [ct_volume(n) for n in range(1 if short else 3)]
        cases = [pack_volume(place / f"ct{n}", *volume) for n, volume in enumerate(volumes)]
        for size in SIZES:
            found = rates(cases, [image for image, _ in volumes], place, size, 1 if short else ROUNDS)
            cold = cold_megabytes(cases, size)
            if size == SIZES[0]:
                print("\npatches/s of CPU time" + "".join(f"{name:>13}" for name in found)
                      + "  to TensorStore  to nnU-Net  to its int16  cold MB")
            ratios = [found["Megavox"] / found[peer] for peer in ("TensorStore", "nnU-Net", "its int16")]
            print(f"{size:>4}^3                " + "".join(f"{value:>13.1f}" for value in found.values())
                  + f"{ratios[0]:>16.2f}{ratios[1]:>12.2f}{ratios[2]:>14.2f}{cold:>9.2f}")
            if size == 64:
                bars = [("reading-64-to-tensorstore", ratios[0], 2.5, True),
                        ("reading-64-to-nnunet", ratios[1], 3.0, True)]
                if cold:
                    bars.append(("reading-64-cold-megabytes", cold, 1.0, False))
    if len(bars) < 3:
        print("\nthe cold column was not measured: temporary files lie in memory here")
    return 0 if short else report(bars)


if __name__ == "__main__":
    sys.exit(main())

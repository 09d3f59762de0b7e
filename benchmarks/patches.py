"""Training patches, image and mask, cropped and augmented: Megavox and its peers, and what limits Megavox here.

    make bench-data

Patches per second of CPU time on one thread, everything in the page cache or in memory; the pipelines take
turns, and the median of the rounds counts. `pipelines.py` says what each of them does. Below the peers stand
parts of Megavox alone: reading the same boxes without augmenting them; augmenting boxes that are in memory
already; and without data loading, ready patches put together to batches, which no pipeline can exceed. Then
the most memory that a loader's worker ever had when it drew from 2000 cases. A bar that is missed makes the
exit status 1. `--short` draws from one volume, 64^3, in one round, and sets no bars.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import nnunet_store
from bars import Bar, Work, in_turns, print_machine, report
from ct_samples import samples_of
from ct_volumes import ct_volume, pack_volume
from megavox.batches.samples import Samples
from megavox.core.files import write_json
from megavox.store.read import INDEX, CaseReader
from pipelines import Volumes, megavox, monai_default, monai_tuned, nnunet, torchio_pipeline

SHARES = {"affine always": 1.0, "one in five": 0.2}
ROUNDS, CASES = 5, 2000


class InMemory(CaseReader):
    """A case whose arrays were read before."""

    def __init__(self, case: CaseReader) -> None:
        super().__init__(case.folder, case.record, case.name)
        shape = case.record.shape[1:]
        self._arrays = {"image": case.image((0,) * 3, shape), "mask": case.mask((0,) * 3, shape)[None]}

    def image(self, *box: Any) -> np.ndarray:
        return self._box("image", *box)

    def mask(self, *box: Any) -> np.ndarray:
        return self._box("mask", *box)[0]

    def _box(self, kind: str, start: Sequence[int], stop: Sequence[int], *_wanted: np.ndarray) -> np.ndarray:
        return self._arrays[kind][(slice(None), *map(slice, start, stop))]


class Recorded(InMemory):
    """It also writes down which boxes are asked for."""

    def __init__(self, case: CaseReader, asked: list[tuple]) -> None:
        super().__init__(case)
        self._case, self._asked = case, asked

    def _box(self, kind: str, *box: Any) -> np.ndarray:
        self._asked.append((self._case.image if kind == "image" else self._case.mask, *box))
        return super()._box(kind, *box)


def reading_only(cases: Sequence[CaseReader], size: int, share: float, samples: int = 200) -> Work:
    """The boxes of image and mask that samples are made of, and nothing else."""
    asked: list[tuple] = []
    recorded = samples_of([Recorded(case, asked) for case in cases], size, share)
    for number in range(samples):
        recorded.sample(*divmod(number, 2))
    assert len(asked) == 2 * samples, "an image and a mask each"

    def work(rng: np.random.Generator) -> int:
        number = 2 * int(rng.integers(samples))
        for read, *box in asked[number:number + 2]:
            read(*box)
        return 1

    return work


def ready_patches(samples: Samples, count: int = 16) -> Work:
    """Batches of two out of patches that were made before."""
    made = [samples.sample(*divmod(number, 2)) for number in range(count)]

    def work(rng: np.random.Generator) -> int:
        two = [made[int(n)] for n in rng.integers(0, count, 2)]
        torch.from_numpy(np.stack([one.image for one in two]))
        torch.from_numpy(np.stack([one.target for one in two]))
        return 2

    return work


def worker_megabytes(cases: Sequence[CaseReader], place: Path) -> float:
    """The most memory that a worker of the loader had resident, drawing 128^3 patches from many cases."""
    place.mkdir()
    records = []
    for number in range(CASES):
        case = cases[number % len(cases)]
        records.append(replace(case.record, key=f"case{number}"))
        (place / f"case{number}").symlink_to(case.folder)
    write_json(place / INDEX, {"records": [record.to_dict() for record in records]})
    script = Path(__file__).with_name("worker_memory.py")
    return float(subprocess.run([sys.executable, script, place], check=True, capture_output=True, text=True).stdout)


def rates(cases: Sequence[CaseReader], volumes: Volumes, store: Path, size: int, share: float,
          rounds: int) -> dict[str, float]:
    """The rate of each pipeline and of parts of Megavox."""
    fast = {
        "Megavox": megavox(cases, size, share), "nnU-Net": nnunet(store, size, share),
        "MONAI tuned": monai_tuned(volumes, size, share),
        "Megavox, reading only": reading_only(cases, size, share),
        "Megavox, augmenting only": megavox([InMemory(case) for case in cases], size, share),
        "without data loading": ready_patches(samples_of(cases, size, share))}
    slow = {"MONAI default": monai_default(volumes, size, share), "TorchIO": torchio_pipeline(volumes, size, share)}
    return in_turns(fast, 1.0 if size < 128 else 3.0, rounds) | in_turns(slow, 3.0, min(rounds, 3))


def main() -> int:
    """Measure, print, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--short", action="store_true", help="one volume, 64^3, one round, no bars")
    short = parser.parse_args().short
    torch.set_num_threads(1)
    torch.manual_seed(0)
    np.random.seed(0)
    print_machine("megavox", "numba", "torch", "nnunetv2", "batchgeneratorsv2", "monai", "torchio", "numpy")
    bars: list[Bar] = []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        volumes = [ct_volume(n) for n in range(1 if short else 3)]
        cases = [pack_volume(place / f"ct{n}", *volume) for n, volume in enumerate(volumes)]
        scored = [(nnunet_store.zscored(image), mask) for image, mask in volumes]
        for size, target in ((64, 6.0),) if short else ((64, 6.0), (128, 4.0)):
            store = place / f"nnunet{size}"
            for number, (image, mask) in enumerate(scored):
                nnunet_store.write_case(store, f"ct{number}", image, mask, size)
            found = {column: rates(cases, scored, store, size, share, 1 if short else ROUNDS)
                     for column, share in SHARES.items()}
            print(f"\npatches/s of CPU time, {size}^3" + "".join(f"{column:>20}  to Megavox" for column in SHARES))
            for row in found["one in five"]:
                print(f"{row:<30}" + "".join(
                    f"{rate[row]:>20.1f}{rate['Megavox'] / rate[row]:>12.2f}" for rate in found.values()))
            for column, rate in found.items():
                best = max(rate["nnU-Net"], rate["MONAI tuned"])
                name = f"patches-{size}-{column.replace(' ', '-')}-to-best-peer"
                bars.append((name, rate["Megavox"] / best, target, True))
        if not short:
            peak = worker_megabytes(cases, place / "many")
            print(f"\na loader's worker that drew 128^3 patches from {CASES} cases: {peak:.0f} MB at most")
            bars.append(("worker-megabytes", peak, 700.0, False))
    return 0 if short else report(bars)


if __name__ == "__main__":
    sys.exit(main())

"""Grey pictures like radiographs: read from Megavox's store, beside decoding their PNG files by Pillow.

    make bench-data

Pictures per second of CPU time on one thread, all files in the page cache; the two take turns, and the median
of the rounds counts. The pictures are smooth anatomy with noise, 8 bits, and need about 3 bits a pixel as PNG, as
the 1024 x 1024 files of ChestX-ray14 do (400 kB each). Some rows cut 224 x 224 pixels out of larger pictures,
whose PNG is decoded whole. Copying, the version without data loading, is the rate at which pictures that are in
memory already can be copied, which no reader exceeds. A bar that is missed makes the exit status 1.
`--short` takes one round and sets no bars.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from bars import Bar, Work, in_turns, print_machine, report
from megavox.images.geometry import Geometry
from megavox.images.intensity import intensity_statistics
from megavox.store.layout import Record, shard_files, write_arrays
from megavox.store.read import CaseReader

SIZES, CUT, PICTURES, ROUNDS, SECONDS = (224, 512, 1024), 224, 20, 7, 0.5
Read = Callable[[int, list[int], list[int]], np.ndarray]


def picture(size: int, seed: int) -> np.ndarray:
    """`(Y, X)` uint8."""
    rng = np.random.default_rng(seed)
    grey = sum(amount * _smooth(rng, size, scale) for amount, scale in ((35, 0.12), (12, 0.02), (4, 0.004)))
    return (120 + grey + rng.normal(0, 1.2, (size, size))).clip(0, 255).astype(np.uint8)


def _smooth(rng: np.random.Generator, size: int, scale: float) -> np.ndarray:
    field = ndimage.gaussian_filter(rng.normal(0, 1, (size, size)), scale * size, mode="wrap")
    return field / field.std()


def pack_picture(folder: Path, pixels: np.ndarray) -> CaseReader:
    """Pack a picture into a case's folder as `megavox pack` does."""
    geometry = Geometry((*reversed(pixels.shape), 1))
    write_arrays(folder, pixels[None], None, geometry)
    record = Record(
        folder.name, (1, *pixels.shape), geometry, geometry, intensity_statistics(pixels[None]), "", classes=(0,),
        bytes=tuple((path.relative_to(folder).as_posix(), path.stat().st_size) for path in shard_files(folder)))
    return CaseReader(folder, record, folder.name)


def work_of(read: Read, size: int, cut: int) -> Work:
    """Read a random cut of a random picture."""

    def work(rng: np.random.Generator) -> int:
        start = [int(n) for n in rng.integers(0, size - cut + 1, 2)]
        read(int(rng.integers(PICTURES)), start, [n + cut for n in start])
        return 1

    return work


def rows(place: Path, size: int, rounds: int) -> list[Bar]:
    """Measure pictures of one size, whole and cut; print a line for each, and return the bar of the whole ones."""
    pixels = [picture(size, seed) for seed in range(PICTURES)]
    files = [place / f"{size}-{number}.png" for number in range(PICTURES)]
    for one, file in zip(pixels, files, strict=True):
        Image.fromarray(one).save(file)
    cases = [pack_picture(place / f"{size}-{number}", one) for number, one in enumerate(pixels)]
    packed = sum(case.record.bytes[0][1] for case in cases)
    bits = [8 * total / PICTURES / size**2 for total in (sum(file.stat().st_size for file in files), packed)]
    readers: dict[str, Read] = {
        "Megavox": lambda n, a, b: cases[n].image(a, b),
        "PNG": lambda n, a, b: np.array(Image.open(files[n]))[None, a[0]:b[0], a[1]:b[1]],
        "copying": lambda n, a, b: pixels[n][None, a[0]:b[0], a[1]:b[1]].copy()}
    bars: list[Bar] = []
    for cut in sorted({size, CUT}, reverse=True):
        first, *others = [read(1, [0, 0], [cut, cut]) for read in readers.values()]
        assert all(np.array_equal(first, other) for other in others), "all read the same pixels"
        found = in_turns({name: work_of(read, size, cut) for name, read in readers.items()}, SECONDS, rounds)
        ratio = found["Megavox"] / found["PNG"]
        what = f"{size} x {size}" if cut == size else f"{cut} x {cut} of {size}"
        print(f"{what:<24}{found['Megavox']:>9.0f}{found['PNG']:>13.1f}{ratio:>9.1f}{found['copying']:>11.0f}"
              f"{bits[1]:>12.2f}{bits[0]:>12.2f}")
        if cut == size:
            bars.append((f"pictures-{size}-to-png", ratio, 20.0, True))
    return bars


def main() -> int:
    """Measure, print, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--short", action="store_true", help="one round, no bars")
    short = parser.parse_args().short
    print_machine("megavox", "numba", "pillow", "numpy")
    print("\npictures/s of CPU time   Megavox  decoded PNG   to PNG    copying  bits/pixel  bits of PNG")
    with tempfile.TemporaryDirectory() as name:
        bars = [bar for size in SIZES for bar in rows(Path(name), size, 1 if short else ROUNDS)]
    return 0 if short else report(bars)


if __name__ == "__main__":
    sys.exit(main())

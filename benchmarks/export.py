"""Ten classes of logits on a prepared grid to class numbers on the image's own, 150 x 256 x 256 to 300 x 512 x 512.

    make bench-inference

Megavox's slice-wise export against nnU-Net's two ways (its default, which resamples class by class with
scikit-image or SciPy, and its PyTorch way), each followed by argmax. One thread, wall time; every contender
runs in processes of its own, in turns; medians count. Extra memory is the growth of the largest resident set
over what it was with the logits loaded.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from bars import medians_of_processes, peak_megabytes, print_machine, report

CLASSES, SMALL, LARGE = 10, (150, 256, 256), (300, 512, 512)
ROUNDS = 3
CONTENDERS = ("nnU-Net, default", "nnU-Net, PyTorch", "Megavox")


def logits() -> np.ndarray:
    """Smooth fields as of organs, `(K, Z, Y, X)` float32."""
    import torch

    seed = torch.Generator().manual_seed(0)
    coarse = torch.randn(1, CLASSES, 12, 20, 20, generator=seed)
    fields = 6 * torch.nn.functional.interpolate(coarse, size=SMALL, mode="trilinear")[0]
    fields[0] += 4
    return (fields + 0.05 * torch.randn(fields.shape, generator=seed)).numpy()


def contender(name: str) -> Callable[[np.ndarray], np.ndarray]:
    """A function from logits to class numbers `(Z, Y, X)` uint8."""
    import torch

    torch.set_num_threads(1)
    ones = (1.0, 1.0, 1.0)
    if name == "nnU-Net, default":
        from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape

        def default(values: np.ndarray) -> np.ndarray:
            full = resample_data_or_seg_to_shape(values, LARGE, ones, ones, is_seg=False, order=1, order_z=0,
                                                 force_separate_z=False)
            return np.asarray(full).argmax(0).astype(np.uint8)

        return default
    if name == "nnU-Net, PyTorch":
        from nnunetv2.preprocessing.resampling.resample_torch import resample_torch_fornnunet

        def with_torch(values: np.ndarray) -> np.ndarray:
            full = resample_torch_fornnunet(torch.from_numpy(values), LARGE, ones, ones, is_seg=False, num_threads=1,
                                            force_separate_z=False)
            return torch.as_tensor(full).argmax(0).to(torch.uint8).numpy()

        return with_torch
    from megavox.images.geometry import Geometry
    from megavox.inference.export import LabelExport

    def export(values: np.ndarray) -> np.ndarray:
        target = Geometry(LARGE[::-1], (0.5, 0.5, 0.5), (-0.25, -0.25, -0.25))
        made = LabelExport(Geometry(SMALL[::-1]), target, 3)
        for first in range(0, SMALL[0], 16):
            made.add(values[:, first:first + 16])
        return made.labels

    warm = LabelExport(Geometry((2, 2, 1)), Geometry((2, 2, 1)), 3)
    warm.add(np.zeros((2, 1, 2, 2), np.float32))  # compiled once a machine, or read from the cache
    return export


def one(name: str, folder: Path) -> None:
    """In a process of its own: export once, and print time and extra memory."""
    run = contender(name)
    values = np.load(folder / "logits.npy")
    before, begin = peak_megabytes(), time.perf_counter()
    labels = run(values)
    seconds, after = time.perf_counter() - begin, peak_megabytes()
    np.save(folder / f"{CONTENDERS.index(name)}.npy", labels)
    print(json.dumps({"seconds": seconds, "megabytes": after - before}))


def main() -> int:
    """Measure, print, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--short", action="store_true", help="one round, no bars")
    arguments = parser.parse_args()
    if arguments.one:
        one(arguments.one[0], Path(arguments.one[1]))
        return 0
    import tempfile

    print_machine("megavox", "torch", "nnunetv2", "numba")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        np.save(folder / "logits.npy", logits())
        found = medians_of_processes(__file__, CONTENDERS, place, 1 if arguments.short else ROUNDS)
        labels = {name: np.load(folder / f"{number}.npy") for number, name in enumerate(CONTENDERS)}
    seconds, memory = ({name: one[key] for name, one in found.items()} for key in ("seconds", "megabytes"))
    print(f"\n{'':20}{'s':>8}{'extra MB':>10}{'same as PyTorch':>17}")
    for name in CONTENDERS:
        same = float((labels[name] == labels["nnU-Net, PyTorch"]).mean())
        print(f"{name:20}{seconds[name]:>8.2f}{memory[name]:>10.0f}{same:>17.7f}")
    return 0 if arguments.short else report([
        ("export-times-faster-than-nnunet-torch", seconds["nnU-Net, PyTorch"] / seconds["Megavox"], 4, True),
        ("export-times-faster-than-nnunet-default", seconds["nnU-Net, default"] / seconds["Megavox"], 15, True),
        ("export-extra-gb", memory["Megavox"] / 1e3, 0.3, False),
    ])


if __name__ == "__main__":
    sys.exit(main())

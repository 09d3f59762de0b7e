"""Sliding windows over a volume on one thread: Megavox with OpenVINO and with PyTorch, and MONAI.

    make bench-inference

A volume of 256 x 256 x 128 voxels, MONAI's BasicUNet (16, 16, 32, 64, 128, 16) with five classes and instance
norm, windows of 64^3 that overlap by half, Gaussian weights. From the normalised image to class numbers, wall
time. Every contender runs in processes of its own, in turns; medians count. Peak memory is the largest resident
set of the process, libraries included. Converting the network, once per run and machine, is not in the time.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bars import in_process, medians_of_processes, peak_megabytes, print_machine, report

if TYPE_CHECKING:
    from torch import nn

SHAPE, PATCH, CLASSES = (128, 256, 256), (64, 64, 64), 5
ROUNDS = 3
CONTENDERS = ("MONAI", "Megavox, PyTorch", "Megavox, OpenVINO")


def volume() -> np.ndarray:
    """A smooth body with organs and noise, `(1, Z, Y, X)` float32, mean 0 and deviation 1."""
    from scipy import ndimage

    rng = np.random.default_rng(0)
    image = ndimage.zoom(rng.normal(size=(16, 32, 32)).astype(np.float32), 8, order=1)
    z, y, x = (np.linspace(-1, 1, n) for n in SHAPE)
    image += 2 * ((y[:, None] ** 2 + x**2 < 0.8) & (np.abs(z)[:, None, None] < 2))
    image += rng.normal(0, 0.2, SHAPE)
    return ((image - image.mean()) / image.std())[None].astype(np.float32)


def build() -> nn.Module:
    """The network, always with the same weights."""
    import torch
    from monai.networks.nets import BasicUNet

    torch.manual_seed(0)
    return BasicUNet(3, 1, CLASSES, features=(16, 16, 32, 64, 128, 16), norm=("instance", {"affine": True})).eval()


def contender(name: str, kept: Path) -> Callable[[np.ndarray], np.ndarray]:
    """A function from the volume to class numbers `(Z, Y, X)` uint8."""
    import torch

    torch.set_num_threads(1)
    if name == "MONAI":
        from monai.inferers import sliding_window_inference

        network = build()

        def monai(image: np.ndarray) -> np.ndarray:
            with torch.inference_mode():
                logits = sliding_window_inference(torch.from_numpy(image)[None], PATCH, 4, network, overlap=0.5,
                                                  mode="gaussian")
                return logits[0].argmax(0).to(torch.uint8).numpy()  # type: ignore[union-attr]

        return monai
    from megavox.inference.engines import choose_engine
    from megavox.inference.tiles import bands

    wanted = "openvino" if name.endswith("OpenVINO") else "pytorch"
    engine = choose_engine(wanted, build, torch.device("cpu"), (1, *PATCH), kept=kept)

    def megavox(image: np.ndarray) -> np.ndarray:
        slabs = bands(engine, image, PATCH, outside=np.zeros(1, np.float32))
        return np.concatenate([slab.argmax(axis=0).astype(np.uint8) for slab in slabs])

    return megavox


def one(name: str, folder: Path) -> None:
    """In a process of its own: predict once, and print time and memory."""
    image = np.load(folder / "image.npy")
    predict = contender(name, folder / "kept")
    begin = time.perf_counter()
    labels = predict(image)
    seconds = time.perf_counter() - begin
    np.save(folder / f"{CONTENDERS.index(name)}.npy", labels)
    print(json.dumps({"seconds": seconds, "megabytes": peak_megabytes()}))


def agreement(found: np.ndarray, exact: np.ndarray) -> tuple[float, float]:
    """Share of voxels with the same class, and Dice of the class that is smallest."""
    smallest = np.bincount(exact.reshape(-1), minlength=CLASSES).argmin()
    a, b = found == smallest, exact == smallest
    return float((found == exact).mean()), float(2 * (a & b).sum() / max(a.sum() + b.sum(), 1))


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

    print_machine("megavox", "torch", "monai", "openvino")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        np.save(folder / "image.npy", volume())
        in_process(__file__, "--one", CONTENDERS[-1], place)  # converts the network
        found = medians_of_processes(__file__, CONTENDERS, place, 1 if arguments.short else ROUNDS)
        labels = {name: np.load(folder / f"{number}.npy") for number, name in enumerate(CONTENDERS)}
    seconds, memory = ({name: one[key] for name, one in found.items()} for key in ("seconds", "megabytes"))
    print(f"\n{'':20}{'s':>8}{'to MONAI':>10}{'peak MB':>9}{'to MONAI':>10}{'argmax agree':>14}{'smallest Dice':>15}")
    for name in CONTENDERS:
        same, dice = agreement(labels[name], labels["MONAI"])
        print(f"{name:20}{seconds[name]:>8.1f}{seconds['MONAI'] / seconds[name]:>10.2f}{memory[name]:>9.0f}"
              f"{memory[name] / memory['MONAI']:>10.2f}{same:>14.6f}{dice:>15.5f}")
    best = CONTENDERS[-1]
    same, dice = agreement(labels[best], labels["MONAI"])
    return 0 if arguments.short else report([
        ("prediction-times-faster-than-monai", seconds["MONAI"] / seconds[best], 2.5, True),
        ("prediction-peak-memory-to-monai", memory[best] / memory["MONAI"], 0.6, False),
        ("prediction-argmax-agreement", same, 0.9999, True),
        ("prediction-smallest-class-dice", dice, 0.999, True),
    ])


if __name__ == "__main__":
    sys.exit(main())

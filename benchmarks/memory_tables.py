"""What the networks take that this project began with, told without making a step.

    python benchmarks/memory_tables.py vgg19-3d|vgg19-2d|unet-2d|unet-3d|resnet

Training in float32 as people did it: the plain network, SGD with momentum (the U-Nets: Adam).
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Iterator, Sequence

import torch

from megavox.memory.caching import CachingAllocator
from megavox.memory.follow import Exercise, follow, peak
from megavox.memory.live import Kind
from megavox.memory.workspaces import of_cuda
from megavox.models.resnet import ResNet
from megavox.models.vgg import VGG
from memory_networks import classified, momentum, unet

Row = tuple[str, Exercise, str]  # name, what is done, what was published
VOLUMES = ((80, 80, 80), (96, 96, 96), (128, 128, 128), (160, 384, 384))


def vgg(size: tuple[int, ...], channels: int) -> Exercise:
    """VGG19 as in the paper, one image."""
    return Exercise(lambda: VGG(19, channels, 2, size, norm="none"), (1, channels, *size), classified, momentum)


def resnet(depth: int, side: int) -> Exercise:
    """64 pictures."""
    return Exercise(lambda: ResNet(depth, 2, 3, 14), (64, 3, side, side), classified, momentum)


def rows(table: str) -> Iterator[Row]:
    """Of one table."""
    if table == "vgg19-3d":
        published = ("", "", "", "80 GB")
        yield from ((_times(size), vgg(size, 1), said) for size, said in zip(VOLUMES, published, strict=True))
    elif table == "vgg19-2d":
        yield from ((_times((side, side)), vgg((side, side), 3), "") for side in (224, 320, 384, 512))
    elif table == "unet-2d":
        yield from ((_times((side, side)), unet((side, side)), "") for side in (256, 384, 512))
    elif table == "unet-3d":
        yield from ((_times(size), unet(size), "40 GB" if size == VOLUMES[-1] else "") for size in VOLUMES)
    else:
        for depth, side in ((50, 224), (50, 512), (50, 896), (59, 896)):
            yield f"ResNet-{depth}, 64 of {side} x {side}", resnet(depth, side), "43 GB" if depth == 59 else ""


def _times(size: Sequence[int]) -> str:
    return " x ".join(map(str, size))


def main() -> int:
    """One table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", choices=["vgg19-3d", "vgg19-2d", "unet-2d", "unet-3d", "resnet"])
    given = parser.parse_args()
    warnings.filterwarnings("ignore")
    print(f"{given.table:32} weights, M  peak, GB  activations, GB  reserved on a GPU, GB   published   largest")
    for name, exercise, published in rows(given.table):
        live = follow(exercise)
        reserved = CachingAllocator().run(follow(exercise, of_cuda).events).most_reserved
        most = peak(live)
        with torch.device("meta"):
            weights = sum(one.numel() for one in exercise.build().parameters())
        one = most.largest[0]
        print(f"{name:32} {weights / 1e6:10.1f} {most.size / 1e9:9.2f} {most.kinds[Kind.ACTIVATIONS] / 1e9:16.2f} "
              f"{reserved / 1e9:22.2f} {published:>12}   {one.size / 1e9:.2f} GB by {one.operator or 'weights'} "
              f"{one.module}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

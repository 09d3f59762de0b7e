"""The streamed VGG and ResNet, up to where maps are small: the plain modules go on from there."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from megavox.memory.streamed.maps import Map, Sum, Whole
from megavox.memory.streamed.walk import Walk
from megavox.models.resnet import Bottleneck, ResNet
from megavox.models.vgg import VGG

TOGETHER = 4  # blocks; of the last of them the sum is kept, so that never more than so many are made again


def vgg(network: VGG, x: Tensor, walk: Walk) -> Tensor:
    """As `VGG.features`."""
    found: Map = Whole(x)
    for stage in network.stages:
        found = walk.through(stage, found)
    return walk.output(found)


def resnet(network: ResNet, x: Tensor, walk: Walk) -> Tensor:
    """As `ResNet.features`."""
    stem = nn.Sequential(network.conv1, network.bn1, network.relu, network.maxpool)
    found: Map = walk.whole(walk.through(stem, Whole(x)))  # small beside what it is made of, and asked for often
    *blocks, last = [(number, block) for name in network.stages
                     for number, block in enumerate(network.get_submodule(name).children(), 1)]
    for number, block in blocks:
        found = _sum(block, found, walk)
        found = walk.remade(found) if number % TOGETHER else walk.whole(found)
    return walk.output(_sum(last[1], found, walk))


def _sum(block: Any, source: Map, walk: Walk) -> Map:
    """What a block makes of a map."""
    steps = [block.conv1, block.bn1, block.relu, block.conv2, block.bn2]
    if isinstance(block, Bottleneck):
        steps += [block.relu, block.conv3, block.bn3]
    inner = walk.through(nn.Sequential(*steps), source)
    shortcut = source if block.downsample is None else walk.through(block.downsample, source)
    return walk.through(block.relu, Sum(inner, shortcut))

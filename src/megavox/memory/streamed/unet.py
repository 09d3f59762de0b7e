"""The streamed U-Net: all of it is streamed, and what its heads make is whole."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from megavox.memory.streamed.maps import Enlarged, Joined, Map, Whole
from megavox.memory.streamed.walk import Walk
from megavox.models.unet import UNet


def unet(network: UNet, x: Tensor, walk: Walk) -> Tensor | list[Tensor]:
    """As `UNet.forward`."""
    found = features(network, Whole(x), walk)
    heads: list[Any] = [network.head]
    if network.training and network.deep_supervision:
        heads += reversed(network.coarse_heads)
    logits = [walk.output(walk.convolved(head, one)) for head, one in zip(heads, reversed(found), strict=False)]
    return logits if len(heads) > 1 else logits[0]


def features(network: UNet, found: Map, walk: Walk) -> list[Map]:
    """What comes out of each level of the decoder, the coarsest first."""
    skips: list[Map] = []
    for level in network.encoder:
        found = walk.through(level, found)
        skips.append(found)
    skips.pop()
    outputs = []
    up: Any
    for up, level in zip(network.up, network.decoder, strict=True):
        large = walk.made(Enlarged(found, up.weight, up.bias, up.stride))
        found = walk.through(level, Joined((large, skips.pop())))
        outputs.append(found)
    return outputs

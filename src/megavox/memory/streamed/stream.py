"""Has a network computed slab by slab, on one rank or on several together."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from megavox.core.errors import StudyError
from megavox.memory.streamed.share import WHOLE, Share, Sharing, among
from megavox.memory.streamed.trunk import resnet, vgg
from megavox.memory.streamed.unet import unet
from megavox.memory.streamed.walk import Walk
from megavox.models.resnet import ResNet
from megavox.models.unet import UNet
from megavox.models.vgg import VGG

_WAYS: dict[type[nn.Module], Callable[..., Any]] = {UNet: unet, VGG: vgg, ResNet: resnet}


def stream(network: nn.Module, slab_bytes: int, kept: torch.dtype | None = None) -> None:
    """From now on this network is computed slab by slab; what it gives is the same.

    Args:
        network: a U-Net, VGG or ResNet, in place.
        slab_bytes: about as much of what is convolved, and of what becomes of it, is there at a time.
        kept: in which maps and their gradients are kept; None: that in which they are computed. A narrower one is not
            exact: it is for devices that are slow in bfloat16.

    Raises:
        StudyError: it is another network.
    """
    way = next((way for kind, way in _WAYS.items() if isinstance(network, kind)), None)
    if way is None:
        raise StudyError(f"{type(network).__name__} cannot be computed slab by slab", where="model.family",
                         expected="unet, vgg or resnet", fix="Take one of these, or another way to save memory")
    network.computed = partial(_computed, way=way, slab_bytes=slab_bytes, kept=kept)  # type: ignore[assignment]


def split(network: nn.Module, slab_bytes: int, kept: torch.dtype | None = None, share: Sharing | None = None) -> None:
    """From now on this network is computed slab by slab, and in training the ranks share the slices of each sample.

    Every rank that shares them gives the network the same samples, whole, and gets the logits of its own slices, which
    `share(network, Z).own(Z)` tells. If the loss of a sample is the sum of the ranks' losses, its gradient is
    the sum of their gradients; if it is the mean, the mean, which data-parallel training takes. With cross-entropy and
    Dice of the batch, as `tasks.losses` has them, it is the mean; with Dice of each sample it is neither.

    Args:
        network: a U-Net, in place, with the same weights on every rank.
        slab_bytes, kept: as of `stream`.
        share: tells the share of a rank: `among(group)`, where other ranks have other samples; None: `among()`.

    Raises:
        StudyError: it is another network. When it is computed: there are too few slices for so many ranks.
    """
    if not isinstance(network, UNet):
        raise StudyError(f"{type(network).__name__} cannot share a sample among ranks", where="model.family",
                         expected="unet", fix="Take one, or let every rank have samples of its own")

    network.computed = partial(_computed, way=unet, slab_bytes=slab_bytes, kept=kept, share=share or among())


def _whole(network: nn.Module, slices: int) -> Share:
    return WHOLE


def _computed(network: nn.Module, x: Tensor, way: Callable[..., Any], slab_bytes: int, kept: torch.dtype | None,
              share: Callable[[Any, int], Share] = _whole) -> Any:
    kind = x.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
    with torch.autocast(kind, enabled=False):
        return way(network, x, Walk(slab_bytes, dtype, kept or dtype, share=share(network, x.shape[2])))

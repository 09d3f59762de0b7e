"""Where the channels of a voxel lie in memory: side by side (channels last), or each in an image of its own.

What follows a convolution lies as what went in, so that the network's image decides. Weights stay as they are.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from megavox.core.errors import StudyError
from megavox.models.resnet import LEAST_INPUTS


def lay_out(network: nn.Module, channels_last: bool, device: str) -> None:
    """From now on the image of this network is laid out so; what it gives is the same.

    Args:
        network: in place.
        channels_last: else as it comes, also where the network would change that by itself.
        device: kind of device that it will be computed on.

    Raises:
        StudyError: such a network must not be computed with channels last there.
    """
    own: Any = network
    if hasattr(own, "channels_last"):
        own.channels_last = False
    if not channels_last:
        return
    narrow = [name for name, one in network.named_modules() if isinstance(one, nn.Conv2d)
              and one.kernel_size == (1, 1) and one.stride == (2, 2) and one.in_channels < LEAST_INPUTS]
    if narrow and device == "cpu":
        raise StudyError(f"{narrow[0]} is a convolution of one pixel, with steps of two and fewer than {LEAST_INPUTS} "
                         "inputs", where="training.memory.channels_last", expected="auto or false: on CPUs it may "
                         "crash, or give wrong gradients", fix="Leave channels_last away, or raise model.filters")
    network.register_forward_pre_hook(_channels_last)


def _channels_last(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    image, *others = inputs
    return image.clone(memory_format=torch.channels_last if image.ndim == 4 else torch.channels_last_3d), *others

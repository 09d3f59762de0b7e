"""A whole volume predicted at once and exactly, in memory that does not grow with its length.

Sliding windows compute the voxels that they share again and again, and do not give what the network gives of the whole
volume. Here each slice of each feature map is made once, and there is no more of any map than a window that moves
along (`rolling.py`); image and logits need not be in memory either.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from megavox.core.errors import StudyError
from megavox.memory.streamed.maps import Convolved, Enlarged, Pieces
from megavox.memory.streamed.rolling import Read, Rolling, Window
from megavox.memory.streamed.unet import features
from megavox.memory.streamed.walk import Walk
from megavox.models.unet import UNet


@torch.inference_mode()
def predict(network: UNet, image: Tensor | Read, slab_slices: int) -> Iterator[tuple[int, Tensor]]:
    """The logits of a whole volume, slab by slab along its first axis: those of `network(image)`.

    Of each map there are about `slab_slices` slices, fewer at coarser levels, and at skip connections as many as the
    network looks ahead. A volume in a file is read slice by slice, and logits may go to another:

        array = np.load("volume.npy", mmap_mode="r")  # (Z, Y, X)
        image = Read((1, 1, *array.shape), lambda low, high: torch.tensor(array[low:high])[None, None])
        for low, logits in predict(network, image, 8):
            classes[low:low + logits.shape[2]] = logits[0].argmax(0).cpu()

    Args:
        network: in evaluation mode, with batch norms or none. Its device and, unless autocast is on, its type are those
            in which is computed.
        image: `(B, C, Z, *S)`, on any device, of any type; S and Z multiples of `network.shrink`. Each slice is read
            once, in order.
        slab_slices: of the logits, at a time.

    Returns:
        The first slice and the logits `(B, out, slab_slices, *S)` of each slab, in order; the last may be thinner.

    Raises:
        StudyError: the network has norms whose mean and variance are those of whole maps.
    """
    assert not network.training, "call eval() first"
    assert all(n % s == 0 for n, s in zip(image.shape[2:], network.shrink, strict=True)), \
        f"input {tuple(image.shape[2:])} is not a multiple of {network.shrink}"
    if any(isinstance(module, nn.GroupNorm) for module in network.modules()):
        raise StudyError(
            "a network with instance or group norm needs mean and variance of whole feature maps, and a volume that is "
            "predicted in slabs has none that is whole", where="model.norm", expected="batch",
            fix="Train with model.norm: batch, or predict with maps kept (memory.streamed.stream)")
    head: Any = network.head
    weight: Tensor = head.weight
    kind = weight.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype

    def rolling(source: Convolved | Enlarged | Read) -> Rolling:
        return Rolling(Window(source, max(1, slab_slices * source.shape[2] // image.shape[2])))

    walk = Walk(0, dtype, dtype, rolling)  # no statistics are taken
    found = rolling(Read(image.shape, partial(_rows, image, weight.device)))
    logits = rolling(walk.convolved(head, features(network, found, walk)[-1]))
    return _slabs(logits, slab_slices, kind)


@torch.inference_mode()
def _slabs(logits: Rolling, slab_slices: int, kind: str) -> Iterator[tuple[int, Tensor]]:
    for low in range(0, logits.shape[2], slab_slices):
        high = min(low + slab_slices, logits.shape[2])
        with torch.autocast(kind, enabled=False):
            slab = logits.slab(low, high, Pieces())
        logits.window.had(0, high)
        yield low, slab


def _rows(image: Tensor | Read, device: torch.device, low: int, high: int) -> Tensor:
    """Slices of an image on the network's device, in the layout that convolutions are fast in."""
    rows = image.rows(low, high) if isinstance(image, Read) else image[:, :, low:high]
    layout = torch.channels_last_3d if rows.ndim == 5 else torch.contiguous_format
    return rows.to(device).contiguous(memory_format=layout)

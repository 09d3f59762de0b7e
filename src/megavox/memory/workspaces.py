"""What operators take beside what they give, for as long as they run: a table for each kind of device.

On CPUs that is left out: of twelve networks it is 1 % of the peak at the most (`benchmarks/memory.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from megavox.memory.live import Workspace

MATMUL_BYTES = 32 * 2**20  # that PyTorch keeps for cuBLAS on the GPUs that take the most (CUBLAS_WORKSPACE_CONFIG)
VECTOR_BYTES = 16  # to which the channels of a voxel are filled up


def of_cuda(operator: Any, args: tuple, kwargs: Mapping, result: Any) -> int:
    """Of a convolution: copies of what is convolved, of its weights and of what comes out with channels last, which the
    kernels for tensor cores work on (`nchwToNhwcKernel` in profiles), where they do not lie so already. An estimate:
    cuDNN chooses its kernels by what is left, and no GPU was at hand to compare (`benchmarks/memory.py --device cuda`
    does)."""
    if operator.overloadpacket is torch.ops.aten.convolution:
        tensors = [args[0], args[1], result]
    elif operator.overloadpacket is torch.ops.aten.convolution_backward:
        tensors = list(args[:3])  # gradients of the input and of the weights are found one after the other
    else:
        return 0
    return sum(_channels_last(one) for one in tensors)


def _channels_last(tensor: Tensor) -> int:
    """Bytes of such a copy; 0 where none is needed."""
    channels = tensor.shape[1] * tensor.element_size()
    filled = -(-channels // VECTOR_BYTES) * VECTOR_BYTES
    layout = {4: torch.channels_last, 5: torch.channels_last_3d}.get(tensor.ndim)
    if layout and filled == channels and tensor.is_contiguous(memory_format=layout):
        return 0
    return tensor.shape[0] * filled * tensor[0, 0].numel()


WORKSPACES: dict[str, Workspace] = {"cuda": of_cuda}

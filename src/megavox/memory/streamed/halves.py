"""One convolution as two of half the thickness, beside each other in a batch.

Of a single small sample in float32 on a CPU, PyTorch takes a convolution of its own (`use_mkldnn` in its
Convolution.cpp), which is several times slower than oneDNN's, which it takes of a batch.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

SMALL = 20_480  # numbers, not counting the last axis, up to which PyTorch calls a sample small

_CONVOLVE = {4: functional.conv2d, 5: functional.conv3d}
_CONVOLVE_UP = {4: functional.conv_transpose2d, 5: functional.conv_transpose3d}


def convolve(values: Tensor, weight: Tensor, bias: Tensor | None, stride: tuple[int, ...],
             padding: tuple[int, ...]) -> Tensor:
    """A convolution, `(B, C, Z, *S)`, without zeros added along Z."""
    half = _half(values, weight, stride)
    together: Tensor = _CONVOLVE[values.ndim](  # type: ignore[operator]
        _windows(values, weight, stride, half) if half else values, weight, bias, stride, padding)
    return together.transpose(0, 1).flatten(1, 2).unsqueeze(0) if half else together


def enlarge(values: Tensor, weight: Tensor, bias: Tensor, stride: tuple[int, ...]) -> Tensor:
    """A transposed convolution, `(B, C, Z, *S)`, whose stride is its kernel."""
    halved = slow(values.shape, values.dtype, values.device) and values.shape[2] % 2 == 0
    if halved:
        values = values[0].unflatten(1, (2, -1)).transpose(0, 1)
    together: Tensor = _CONVOLVE_UP[values.ndim](values, weight, bias, stride)  # type: ignore[operator]
    return together.transpose(0, 1).flatten(1, 2).unsqueeze(0) if halved else together


def convolve_back(gradient: Tensor, values: Tensor, weight: Tensor, stride: tuple[int, ...], padding: tuple[int, ...],
                  needed: tuple[bool, bool, bool]) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of values, weight and bias, as far as they are needed, from the gradient of `convolve`."""
    half, dims = _half(values, weight, stride), len(stride)
    back, of_weight, of_bias = torch.ops.aten.convolution_backward(
        gradient[0].unflatten(1, (2, half)).transpose(0, 1) if half else gradient,
        _windows(values, weight, stride, half) if half else values,
        weight, [len(weight)], stride, padding, [1] * dims, False, [0] * dims, 1, list(needed))
    if half and needed[0]:
        length, first = back.shape[2], back[:1]
        back, second = torch.zeros_like(values), back[1:]
        back[:, :, :length] = first
        back[:, :, half * stride[0]:half * stride[0] + length] += second
    return back, of_weight, of_bias


def slow(shape: torch.Size, dtype: torch.dtype, device: torch.device) -> bool:
    """Whether what is convolved is such a small sample."""
    return dtype == torch.float32 and device.type == "cpu" and shape[0] == 1 and shape[:-1].numel() <= SMALL


def _half(values: Tensor, weight: Tensor, stride: tuple[int, ...]) -> int:
    """Slices of each half's output; 0 where the whole is as fast, or cannot be halved."""
    slices = (values.shape[2] - weight.shape[2]) // stride[0] + 1
    return slices // 2 if slow(values.shape, values.dtype, values.device) and slices % 2 == 0 else 0


def _windows(values: Tensor, weight: Tensor, stride: tuple[int, ...], half: int) -> Tensor:
    """What each half needs, `(2, C, z, *S)`."""
    length, second = (half - 1) * stride[0] + weight.shape[2], half * stride[0]
    return torch.cat([values[:, :, :length], values[:, :, second:second + length]])

"""Batch normalisation over the samples of all ranks."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from megavox.core.over_ranks import mean_over_ranks, ranks_together


def synchronised(network: nn.Module, device: torch.device) -> nn.Module:
    """The network with its batch norms replaced by ones over all ranks; names of weights stay the same."""
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(network)
    for name, child in network.named_children():
        if isinstance(child, _BatchNorm):
            child.__class__ = OverRanks  # with all that it holds
        else:
            setattr(network, name, synchronised(child, device))
    return network


class OverRanks(_BatchNorm):
    """Where PyTorch has none: its own is for CUDA alone. All ranks have batches of one size.

    Half precision is widened, as the statistics are kept in float32.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        """Any number of dimensions."""

    def forward(self, input: Tensor) -> Tensor:
        """`(B, C, *S)` to the same."""
        if not self.training:
            return super().forward(input)
        dtype = input.dtype
        if dtype in (torch.float16, torch.bfloat16):
            input = input.float()
        axes, shape = (0, *range(2, input.ndim)), (1, -1, *[1] * (input.ndim - 2))
        mean = mean_over_ranks(input.mean(axes))
        centred = input - mean.view(shape)
        variance = mean_over_ranks(centred.square().mean(axes))
        self._remember(mean.detach(), variance.detach(), input.numel() // input.shape[1] * ranks_together())
        scaled = centred * torch.rsqrt(variance + self.eps).view(shape)
        if self.affine:
            scaled = scaled * self.weight.view(shape) + self.bias.view(shape)
        return scaled.to(dtype)

    def _remember(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """As torch does: with the unbiased variance, weighted by `momentum`, or over all steps without one."""
        if not self.track_running_stats:
            return
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        weight = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, weight)
        self.running_var.lerp_(variance * (count / max(count - 1, 1)), weight)

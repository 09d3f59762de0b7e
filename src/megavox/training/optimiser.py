"""Optimisers, the learning-rate schedule, and the moving average of the weights."""

from __future__ import annotations

import math

import torch
from torch import nn

from megavox.study.training import OptimiserSection
from megavox.training.layerwise import LAMB, LARS


def build_optimiser(network: nn.Module, section: OptimiserSection) -> torch.optim.Optimizer:
    """Adam, AdamW, SGD with Nesterov momentum, LARS or LAMB; no weight decay on norms and biases.

    Those of PyTorch are fused: their step makes nothing as large as the weights.
    """
    decayed = [p for p in network.parameters() if p.requires_grad and p.ndim > 1]
    plain = [p for p in network.parameters() if p.requires_grad and p.ndim <= 1]
    rate = float(section.rate)
    groups = [{"params": decayed, "weight_decay": section.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    groups = [group for group in groups if group["params"]]
    if section.name == "sgd":
        sgd = torch.optim.SGD(groups, lr=rate, momentum=section.momentum, nesterov=section.momentum > 0, fused=True)
        if section.momentum:  # fused, PyTorch 2.13 cannot make some later, where a first gradient comes later
            sgd.state.update({one: {"momentum_buffer": torch.zeros_like(one)} for one in decayed + plain})
        return sgd
    if section.name == "lars":
        return LARS(groups, lr=rate, momentum=section.momentum)
    if section.name == "lamb":
        return LAMB(groups, lr=rate, betas=section.betas)
    kind = torch.optim.AdamW if section.name == "adamw" else torch.optim.Adam
    return kind(groups, lr=rate, betas=section.betas, fused=True)


def learning_rate(step: int, steps: int, section: OptimiserSection) -> float:
    """The rate of a step (counted from 0).

    It rises linearly over the first `warmup * steps` steps, then falls to zero: polynomial
    `(1 - t)^power` (Chen 2017, DeepLab) or half a cosine (Loshchilov 2017, SGDR).
    """
    warm, rate = round(section.warmup * steps), float(section.rate)
    if step < warm:
        return rate * (step + 1) / warm
    t = (step - warm) / max(steps - warm, 1)
    if section.schedule == "constant":
        return rate
    if section.schedule == "polynomial":
        return rate * (1 - t) ** section.power
    return rate * 0.5 * (1 + math.cos(math.pi * t))


class MovingAverage:
    """Exponential moving average of weights and buffers.

    The decay of step s is `min(decay, (1 + s) / (10 + s))`, so that early steps are not dominated by
    the first weights.

    Args:
        network: what is averaged.
        decay: 0 keeps the latest weights.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights = {name: value.detach().clone() for name, value in network.state_dict().items()}

    def update(self, network: nn.Module, step: int) -> None:
        """Take in the weights after `step` (counted from 0)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        latest = network.state_dict()
        floats = [name for name, value in latest.items() if value.is_floating_point()]
        torch._foreach_lerp_([self.weights[n] for n in floats], [latest[n] for n in floats], 1 - decay)
        for name in latest.keys() - set(floats):
            self.weights[name].copy_(latest[name])

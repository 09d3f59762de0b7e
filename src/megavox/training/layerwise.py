"""Optimisers for large batches: each layer's step is in proportion to its weights.

Norms' weights and biases (tensors of one dimension) take plain steps, as in both papers' code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


class LARS(torch.optim.Optimizer):
    """Momentum whose rate is scaled for each layer (You 2017, arXiv:1708.03888, algorithm 1).

    With gradient g and weight decay b: `v = m v + r t (g + b w)`, `w = w - v`, where
    `t = trust |w| / (|g| + b |w|)`.

    Args:
        parameters: groups of parameters.
        lr: rate r.
        momentum: m.
        trust: of the paper, 0.001.
    """

    def __init__(self, parameters: Iterable[dict[str, Any]], lr: float, momentum: float = 0.9,
                 trust: float = 1e-3) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "trust": trust, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Take one step."""
        for group, weight, gradient in _with_gradients(self.param_groups):
            state = self.state[weight]
            if not state:
                state["momentum_buffer"] = torch.zeros_like(weight)
            decay, rate = group["weight_decay"], group["lr"]
            if weight.ndim > 1:
                rate = rate * group["trust"] * _ratio(weight.norm(), gradient.norm() + decay * weight.norm())
            velocity = state["momentum_buffer"].mul_(group["momentum"]).add_(rate * (gradient + decay * weight))
            weight.sub_(velocity)


class LAMB(torch.optim.Optimizer):
    """Adam whose step is scaled for each layer (You 2019, arXiv:1904.00962, algorithm 2).

    With Adam's direction `d = m / (sqrt(v) + e) + b w`, both moments corrected for their start:
    `w = w - r (|w| / |d|) d`.

    Args:
        parameters: groups of parameters.
        lr: rate r.
        betas: decays of the moments.
        eps: e.
    """

    def __init__(self, parameters: Iterable[dict[str, Any]], lr: float, betas: tuple[float, float] = (0.9, 0.999),
                 eps: float = 1e-6) -> None:
        super().__init__(parameters, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Take one step."""
        for group, weight, gradient in _with_gradients(self.param_groups):
            state = self.state[weight]
            if not state:
                state["step"] = torch.tensor(0.0)
                state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(weight), torch.zeros_like(weight)
            (first, second), step = group["betas"], float(state["step"]) + 1
            state["step"] = torch.tensor(step)
            mean = state["exp_avg"].lerp_(gradient, 1 - first) / (1 - first**step)
            square = state["exp_avg_sq"].mul_(second).addcmul_(gradient, gradient, value=1 - second)
            direction = mean / ((square / (1 - second**step)).sqrt_() + group["eps"])
            direction += group["weight_decay"] * weight
            rate = group["lr"] * (_ratio(weight.norm(), direction.norm()) if weight.ndim > 1 else 1.0)
            weight.sub_(rate * direction)


def _with_gradients(groups: Iterable[dict[str, Any]]) -> Iterable[tuple[dict[str, Any], Tensor, Tensor]]:
    for group in groups:
        for weight in group["params"]:
            if weight.grad is not None:
                yield group, weight, weight.grad


def _ratio(over: Tensor, under: Tensor) -> Tensor:
    """A quotient; 1 where one of the two is zero."""
    return torch.where((over > 0) & (under > 0), over / under, torch.ones_like(over))

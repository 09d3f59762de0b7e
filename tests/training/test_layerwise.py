"""LARS and LAMB against the formulas of their papers, written down once more in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from megavox.training.layerwise import LAMB, LARS

SHAPES = [(3, 4), (5,), (2, 3, 3), (2, 2)]
DECAYS = [0.1, 0.0, 0.1, 0.1]


def problem() -> tuple[list[torch.nn.Parameter], list[list[np.ndarray]]]:
    """Weights, of which the last begin at zero, and gradients of eight steps, of which one is zero."""
    drawn = np.random.default_rng(0)
    weights = [torch.nn.Parameter(torch.tensor(drawn.normal(size=shape))) for shape in SHAPES]
    weights[-1].data.zero_()
    gradients = [[drawn.normal(size=shape) for shape in SHAPES] for _ in range(8)]
    gradients[0][0][:] = 0
    return weights, gradients


def taken(kind: type[torch.optim.Optimizer], **options: object) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Weights before and after eight steps."""
    weights, gradients = problem()
    first = [weight.detach().numpy().copy() for weight in weights]
    optimiser = kind([{"params": [w], "weight_decay": decay} for w, decay in zip(weights, DECAYS, strict=True)],
                     **options)  # type: ignore[arg-type]
    for step in gradients:
        for weight, gradient in zip(weights, step, strict=True):
            weight.grad = torch.tensor(gradient)
        optimiser.step()
    return first, [weight.detach().numpy() for weight in weights]


def ratio(over: float, under: float) -> float:
    return over / under if over > 0 and under > 0 else 1.0


def test_lars_is_algorithm_1_of_its_paper() -> None:
    first, found = taken(LARS, lr=0.5, momentum=0.9, trust=0.01)
    for number, (weight, decay) in enumerate(zip(first, DECAYS, strict=True)):
        velocity = np.zeros_like(weight)
        for step in problem()[1]:
            gradient = step[number]
            local = 0.01 * ratio(np.linalg.norm(weight), np.linalg.norm(gradient) + decay * np.linalg.norm(weight)) \
                if weight.ndim > 1 else 1.0
            velocity = 0.9 * velocity + 0.5 * local * (gradient + decay * weight)
            weight = weight - velocity
        np.testing.assert_allclose(found[number], weight, rtol=1e-12, atol=1e-14)


def test_lamb_is_algorithm_2_of_its_paper() -> None:
    first, found = taken(LAMB, lr=0.05, betas=(0.9, 0.99), eps=1e-6)
    for number, (weight, decay) in enumerate(zip(first, DECAYS, strict=True)):
        mean, square = np.zeros_like(weight), np.zeros_like(weight)
        for count, step in enumerate(problem()[1], 1):
            mean = 0.9 * mean + 0.1 * step[number]
            square = 0.99 * square + 0.01 * step[number] ** 2
            direction = mean / (1 - 0.9**count) / (np.sqrt(square / (1 - 0.99**count)) + 1e-6) + decay * weight
            scale = ratio(np.linalg.norm(weight), np.linalg.norm(direction)) if weight.ndim > 1 else 1.0
            weight = weight - 0.05 * scale * direction
        np.testing.assert_allclose(found[number], weight, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("kind", [LARS, LAMB])
def test_a_loaded_state_goes_on_as_if_nothing_had_been(kind: type[torch.optim.Optimizer]) -> None:
    ends = []
    for stop in (False, True):
        weights, gradients = problem()
        optimiser = kind([{"params": weights}], lr=0.1)  # type: ignore[call-arg]
        for number, step in enumerate(gradients):
            if stop and number == 4:
                state = optimiser.state_dict()
                optimiser = kind([{"params": weights}], lr=0.7)  # type: ignore[call-arg]
                optimiser.load_state_dict(state)
            for weight, gradient in zip(weights, step, strict=True):
                weight.grad = torch.tensor(gradient)
            optimiser.step()
        ends.append([weight.detach().clone() for weight in weights])
    for one, other in zip(*ends, strict=True):
        assert torch.equal(one, other)

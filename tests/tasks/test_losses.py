"""Losses against MONAI, torch and finite differences."""

from __future__ import annotations

import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from megavox.tasks.losses import deep_supervision_loss, dice_ce, weighted_bce, weighted_ce

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from monai.losses import DiceCELoss


def drawn(seed: int, classes: int = 3, size: tuple[int, ...] = (4, 5, 6)) -> tuple[Tensor, Tensor]:
    torch.manual_seed(seed)
    return torch.randn(2, classes, *size, dtype=torch.float64), torch.randint(0, classes, (2, *size))


@pytest.mark.parametrize("batch_dice", [True, False])
@pytest.mark.parametrize("size", [(7, 9), (4, 5, 6)])
def test_dice_ce_is_monais(batch_dice: bool, size: tuple[int, ...]) -> None:
    logits, target = drawn(0, size=size)
    peer = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True, batch=batch_dice,
                      smooth_nr=1e-5, smooth_dr=1e-5)
    torch.testing.assert_close(dice_ce(logits, target.to(torch.uint8), batch_dice=batch_dice),
                               peer(logits, target.unsqueeze(1)), rtol=1e-9, atol=0)


def test_class_weights_are_torchs() -> None:
    logits, target = drawn(1)
    target[target == 1] = 255
    weights = torch.tensor([0.5, 1.0, 4.0])
    difference = dice_ce(logits, target, class_weights=weights) - dice_ce(logits, target)
    expected = (functional.cross_entropy(logits, target, weight=weights.double(), ignore_index=255)
                - functional.cross_entropy(logits, target, ignore_index=255))
    torch.testing.assert_close(difference, expected)


@given(seed=st.integers(0, 2**31), share=st.floats(0, 1), batch_dice=st.booleans(), weighted=st.booleans())
def test_ignored_voxels_change_nothing(seed: int, share: float, batch_dice: bool, weighted: bool) -> None:
    """Whatever stands in the logits there: same loss, and no gradient."""
    logits, target = drawn(seed, size=(3, 4))
    ignored = torch.rand(target.shape) < share
    target[ignored] = 255
    weights = torch.tensor([1.0, 2.0, 3.0]) if weighted else None
    other = torch.where(ignored.unsqueeze(1), 50 * torch.randn_like(logits), logits).requires_grad_()
    loss = dice_ce(other, target.to(torch.uint8), class_weights=weights, batch_dice=batch_dice)
    torch.testing.assert_close(loss, dice_ce(logits, target, class_weights=weights, batch_dice=batch_dice))
    loss.backward()
    assert other.grad is not None and other.grad.isfinite().all()
    assert not other.grad[ignored.unsqueeze(1).expand_as(other)].any()


def test_ignoring_equals_leaving_out() -> None:
    logits, target = drawn(2, size=(4, 8))
    target[..., 5:] = 255
    torch.testing.assert_close(dice_ce(logits, target), dice_ce(logits[..., :5], target[..., :5]))


def test_all_ignored_is_zero() -> None:
    logits, target = drawn(3)
    assert dice_ce(logits, torch.full_like(target, 255)) == 0


def test_perfect_and_wrong_predictions() -> None:
    target = torch.tensor([[[0, 1], [2, 1]]])
    right = 100 * functional.one_hot(target, 3).movedim(-1, 1).double()
    assert dice_ce(right, target) < 1e-4
    assert dice_ce(right.roll(1, dims=1), target) == pytest.approx(101, abs=1e-3)  # Dice loss 1, CE 100


def test_half_precision_is_summed_in_full() -> None:
    logits, target = drawn(4, size=(64, 64))
    loss = dice_ce(logits.bfloat16(), target)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, dice_ce(logits.bfloat16().float(), target))


@pytest.mark.parametrize("weights", [None, torch.tensor([1.0, 2.0])])
def test_gradients(weights: Tensor | None) -> None:
    logits, target = drawn(5, classes=2, size=(2, 3))
    target[0, 0, 0] = 255
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: dice_ce(x, target, class_weights=weights), logits)
    flat = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    findings = torch.tensor([[0.0, 1.0], [float("nan"), 1.0], [0.0, float("nan")]])
    assert torch.autograd.gradcheck(lambda x: weighted_bce(x, findings, weights), flat)
    assert torch.autograd.gradcheck(lambda x: weighted_ce(x, torch.tensor([0, 1, 1]), weights, 0.1), flat)


def test_deep_supervision_weights_and_nearest_target() -> None:
    outputs = [torch.randn(2, 3, *size) for size in ((4, 8, 16), (4, 4, 8), (2, 2, 4))]
    target = torch.randint(0, 3, (2, 4, 8, 16), dtype=torch.uint8)
    expected = torch.tensor(0.0)
    for weight, logits in zip((4 / 7, 2 / 7, 1 / 7), outputs, strict=True):
        nearest = functional.interpolate(target.unsqueeze(1).float(), size=logits.shape[2:], mode="nearest")
        expected = expected + weight * dice_ce(logits, nearest[:, 0].long())
    torch.testing.assert_close(deep_supervision_loss(outputs, target, dice_ce), expected)


def test_bce_with_unknowns() -> None:
    logits = torch.tensor([[0.3, -1.2], [2.0, 0.1]])
    target = torch.tensor([[1.0, float("nan")], [0.0, 1.0]])
    weights = torch.tensor([3.0, 5.0])
    known = ~target.isnan()
    expected = functional.binary_cross_entropy_with_logits(
        logits[known], target[known], pos_weight=weights.expand(2, 2)[known])
    torch.testing.assert_close(weighted_bce(logits, target, weights), expected)
    assert weighted_bce(logits, torch.full((2, 2), float("nan"))) == 0


def test_weighted_ce_by_hand() -> None:
    """Weighted mean of -log p: weights 1 and 3, p = 1/2 and 1/4."""
    logits = torch.log(torch.tensor([[0.5, 0.5], [0.75, 0.25]]))
    loss = weighted_ce(logits, torch.tensor([0, 1]), torch.tensor([1.0, 3.0]))
    torch.testing.assert_close(loss, torch.log(torch.tensor([2.0, 4.0])) @ torch.tensor([1.0, 3.0]) / 4)
    smooth = weighted_ce(logits[:1], torch.tensor([0]), label_smoothing=0.5)
    torch.testing.assert_close(smooth, torch.log(torch.tensor(2.0)))

"""The losses of the tasks: functions of logits and target, differentiable in the logits.

Mixed precision: sums over voxels are taken in float32 or wider. What is ignored or unknown changes
neither the loss nor its gradient; a batch with nothing else has loss 0.

Sums over a batch go over the batches of all ranks: the mean of the ranks' losses and gradients is that of the
whole batch, however it is dealt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from megavox.core.over_ranks import mean_over_ranks, sum_over_ranks

SMOOTH = 1e-5  # keeps Dice defined for a class that is neither there nor predicted


def dice_ce(logits: Tensor, target: Tensor, *, class_weights: Tensor | None = None, ignore: int = 255,
            batch_dice: bool = True) -> Tensor:
    """Soft Dice loss of the foreground classes plus cross-entropy of all (Isensee 2021, nnU-Net).

    Args:
        logits: `(B, K+1, *S)`, class 0 is the background.
        target: `(B, *S)` uint8 or int64, classes 0..K or `ignore`.
        class_weights: `(K+1,)` weights in the cross-entropy, which is a weighted mean.
        ignore: value of the voxels that are left out of both terms.
        batch_dice: one Dice a class over the whole batch of all ranks; else one a class and sample.

    Returns:
        Scalar `mean_k(1 - (2 sum p t + s) / (sum p + sum t + s)) + CE`, s = 1e-5.
    """
    logits = _wide(logits)
    valid = target != ignore
    return _dice(logits, target, valid, batch_dice) + _cross_entropy(logits, target, valid, class_weights)


def _dice(logits: Tensor, target: Tensor, valid: Tensor, batch_dice: bool) -> Tensor:
    axes = tuple(range(2, logits.ndim))
    if batch_dice:
        axes = (0, *axes)
    probability = logits.softmax(dim=1)[:, 1:] * valid.unsqueeze(1)
    classes = torch.arange(1, logits.shape[1], device=target.device)
    truth = (target.unsqueeze(1) == classes.view(1, -1, *[1] * (target.ndim - 1))) & valid.unsqueeze(1)
    overlap = (probability * truth).sum(axes)
    total = probability.sum(axes) + truth.sum(axes)
    if batch_dice:
        overlap, total = sum_over_ranks(torch.stack([overlap, total]))
    return (1 - (2 * overlap + SMOOTH) / (total + SMOOTH)).mean()


def _cross_entropy(logits: Tensor, target: Tensor, valid: Tensor, weights: Tensor | None) -> Tensor:
    label = target.long().where(valid, 0)
    loss = functional.cross_entropy(logits, label, reduction="none")
    share = valid.to(loss.dtype)
    if weights is not None:
        share = share * weights.to(loss)[label]
    return (loss * share).sum() / mean_over_ranks(share.sum()).clamp_min(torch.finfo(loss.dtype).tiny)


def deep_supervision_loss(outputs: Sequence[Tensor], target: Tensor,
                          loss: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Weighted mean of a loss over resolutions, with weights 1, 1/2, 1/4... (Isensee 2021).

    Args:
        outputs: logits `(B, C, *S_i)`, full resolution first; every `S_i` divides the target's size.
        target: `(B, *S)`; a coarser level is compared with every n-th voxel of it (nearest neighbour).
        loss: of one level's logits and target.
    """
    weights = [0.5**level for level in range(len(outputs))]
    terms = [weight * loss(logits, _thinned(target, logits.shape[2:]))
             for weight, logits in zip(weights, outputs, strict=True)]
    return torch.stack(terms).sum() / sum(weights)


def _thinned(target: Tensor, size: Sequence[int]) -> Tensor:
    assert all(full % n == 0 for full, n in zip(target.shape[1:], size, strict=True)), (target.shape, size)
    steps = [slice(None, None, full // n) for full, n in zip(target.shape[1:], size, strict=True)]
    return target[(slice(None), *steps)]


def weighted_bce(logits: Tensor, target: Tensor, positive_weights: Tensor | None = None) -> Tensor:
    """Binary cross-entropy for any number of findings a case, mean over the known ones.

    Args:
        logits: `(B, K)`.
        target: `(B, K)` 0 or 1 as floats; NaN where unknown.
        positive_weights: `(K,)` factors on the positives' terms.
    """
    logits = _wide(logits)
    known = ~target.isnan()
    weights = None if positive_weights is None else positive_weights.to(logits)
    loss = functional.binary_cross_entropy_with_logits(
        logits, target.nan_to_num(0.0).to(logits), pos_weight=weights, reduction="none")
    most = mean_over_ranks(known.sum().to(loss.dtype))
    return (loss * known).sum() / most.clamp_min(torch.finfo(loss.dtype).tiny)


def weighted_ce(logits: Tensor, target: Tensor, weights: Tensor | None = None,
                label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of exclusive classes, as torch defines the weighted mean and smoothing.

    Args:
        logits: `(B, K)`.
        target: `(B,)` int64.
        weights: `(K,)` class weights.
        label_smoothing: share of the target spread evenly over the classes (Szegedy 2016).
    """
    logits = _wide(logits)
    weights = None if weights is None else weights.to(logits)
    mean = functional.cross_entropy(logits, target, weight=weights, label_smoothing=label_smoothing)
    if weights is None:
        return mean
    share = weights[target].sum()  # by which torch divides
    return mean * (share / mean_over_ranks(share))


def _wide(logits: Tensor) -> Tensor:
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits

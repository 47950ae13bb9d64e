"""Losses as functions: ``loss(preds, targets, weight=None, ..., reduction, avg_factor=None)``.

``weight`` is broadcast to the unreduced loss, whose shape each function states. ``reduction`` is
``"none"``, ``"mean"`` or ``"sum"``; with ``avg_factor`` the mean is the sum over that number.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from detrex.layers.box_ops import EPS, elementwise_generalized_box_iou
from detrex.utils import softplus

REDUCTIONS = ("none", "mean", "sum")


def reduce_loss(
    loss: Tensor,
    weight: Tensor | None = None,
    reduction: str = "mean",
    avg_factor: float | Tensor | None = None,
) -> Tensor:
    """Weighs an unreduced loss and reduces it, as this module's docstring says."""
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction is {reduction!r}, but must be one of {REDUCTIONS}.")
    if weight is not None:
        loss = loss * weight
    if reduction == "none":
        return loss
    if avg_factor is not None:
        if reduction == "sum":
            raise ValueError('avg_factor divides a mean: use it with reduction="mean".')
        return loss.sum() / avg_factor
    return loss.mean() if reduction == "mean" else loss.sum()


def focal_loss_of_negatives(
    logits: Tensor, gamma: float, alpha: float | None = None, detach: bool = False
) -> Tensor:
    """``alpha p^gamma BCE(p, 0)`` of logits of any shape, ``p`` their sigmoid; of negated logits it
    is the focal loss of positives.

    Source: "Focal Loss for Dense Object Detection", arXiv:1708.02002.

    Args:
        alpha: weight; none if not given.
        detach: whether ``p^gamma`` is a weight without gradient.
    """
    weight = (logits.detach() if detach else logits).sigmoid() ** gamma
    return (weight if alpha is None else alpha * weight) * softplus(logits)


def bce_with_logits(logits: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy of logits and targets in [0, 1], of one shape."""
    return (1 - targets) * logits + softplus(-logits)


def sigmoid_focal_loss(
    preds: Tensor,
    targets: Tensor,
    weight: Tensor | None = None,
    alpha: float = 0.25,
    gamma: float = 2.0,
    reduction: str = "mean",
    avg_factor: float | Tensor | None = None,
    activated: bool = False,
) -> Tensor:
    """Binary cross-entropy that forgets what is easy: unreduced ``(..., K)``.

    Source: "Focal Loss for Dense Object Detection", arXiv:1708.02002.

    Args:
        preds: ``(..., K)`` logits, or probabilities if ``activated``.
        targets: ``(..., K)`` in [0, 1], or ``(...)`` class numbers with ``K`` for none of them.
        alpha: share of the positive targets; negative for equal shares.
        gamma: exponent that turns down easy examples.
    """
    num_classes = preds.shape[-1]
    if targets.ndim == preds.ndim - 1:
        targets = F.one_hot(targets, num_classes + 1)[..., :num_classes]
    targets = targets.to(preds.dtype)
    if activated:
        prob, least = preds, torch.finfo(preds.dtype).eps
        log_yes, log_no = (p.clamp(min=least).log() for p in (prob, 1 - prob))
        loss = -(targets * log_yes + (1 - targets) * log_no)
    else:
        prob = preds.sigmoid()
        loss = F.binary_cross_entropy_with_logits(preds, targets, reduction="none")
    wrong = prob * (1 - targets) + (1 - prob) * targets
    loss = loss * wrong**gamma
    if alpha >= 0:
        loss = loss * (alpha * targets + (1 - alpha) * (1 - targets))
    return reduce_loss(loss, weight, reduction, avg_factor)


def cross_entropy(
    preds: Tensor,
    targets: Tensor,
    weight: Tensor | None = None,
    class_weight: Tensor | None = None,
    reduction: str = "mean",
    avg_factor: float | Tensor | None = None,
    ignore_index: int = -100,
    avg_non_ignore: bool = False,
) -> Tensor:
    """Softmax cross-entropy: unreduced ``(N,)``.

    Args:
        preds: ``(N, K)`` logits.
        targets: ``(N,)`` class numbers.
        class_weight: ``(K,)``; the mean still divides by ``N``, not by the sum of these.
        ignore_index: a class number whose loss is 0.
        avg_non_ignore: let the mean divide by the number of the other targets, at least 1.
    """
    loss = F.cross_entropy(
        preds, targets, class_weight, ignore_index=ignore_index, reduction="none"
    )
    if avg_non_ignore and avg_factor is None and reduction == "mean":
        avg_factor = (targets != ignore_index).sum().clamp(min=1)
    return reduce_loss(loss, weight, reduction, avg_factor)


def l1_loss(
    preds: Tensor,
    targets: Tensor,
    weight: Tensor | None = None,
    reduction: str = "mean",
    avg_factor: float | Tensor | None = None,
) -> Tensor:
    """Absolute differences: unreduced, the shape of ``preds``."""
    return reduce_loss((preds - targets).abs(), weight, reduction, avg_factor)


def smooth_l1_loss(
    preds: Tensor,
    targets: Tensor,
    weight: Tensor | None = None,
    beta: float = 1.0,
    reduction: str = "mean",
    avg_factor: float | Tensor | None = None,
) -> Tensor:
    """Absolute differences, quadratic below ``beta``: unreduced, the shape of ``preds``."""
    loss = F.smooth_l1_loss(preds, targets, reduction="none", beta=beta)
    return reduce_loss(loss, weight, reduction, avg_factor)


def giou_loss(
    preds: Tensor,
    targets: Tensor,
    weight: Tensor | None = None,
    eps: float = EPS,
    reduction: str = "mean",
    avg_factor: float | Tensor | None = None,
) -> Tensor:
    """One minus the generalized IoU of xyxy boxes ``(N, 4)``: unreduced ``(N,)`` in [0, 2].

    Source: Rezatofighi et al., arXiv:1902.09630.
    """
    loss = 1 - elementwise_generalized_box_iou(preds, targets, eps)
    return reduce_loss(loss, weight, reduction, avg_factor)


def dice_loss(
    preds: Tensor,
    targets: Tensor,
    weight: Tensor | None = None,
    eps: float = 1e-4,
    reduction: str = "mean",
    avg_factor: float | Tensor | None = None,
    use_sigmoid: bool = True,
) -> Tensor:
    """One minus the overlap of soft masks: unreduced ``(N,)``.

    Source: "V-Net", arXiv:1606.04797.

    Args:
        preds: ``(N, ...)`` logits, or probabilities unless ``use_sigmoid``.
        targets: ``(N, ...)`` in [0, 1].
        eps: ``1 + eps`` is added above and below the fraction, so that two empty masks agree.
    """
    if use_sigmoid:
        preds = preds.sigmoid()
    preds, targets = preds.flatten(1), targets.flatten(1).to(preds.dtype)
    overlap = (preds * targets).sum(1)
    loss = 1 - (2 * overlap + 1 + eps) / (preds.sum(1) + targets.sum(1) + 1 + eps)
    return reduce_loss(loss, weight, reduction, avg_factor)

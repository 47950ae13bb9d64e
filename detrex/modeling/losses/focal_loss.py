"""The focal loss where the public detrex has it."""

from __future__ import annotations

from torch import Tensor

from detrex.modeling.losses.functional import sigmoid_focal_loss
from detrex.modeling.losses.modules import FocalLoss

__all__ = ["FocalLoss", "focal_loss_with_prob", "sigmoid_focal_loss"]


def focal_loss_with_prob(
    preds: Tensor,
    targets: Tensor,
    weight: Tensor | None = None,
    alpha: float = 0.25,
    gamma: float = 2.0,
    reduction: str = "mean",
    avg_factor: float | Tensor | None = None,
) -> Tensor:
    """:func:`.sigmoid_focal_loss` of probabilities ``(..., K)`` instead of logits."""
    return sigmoid_focal_loss(
        preds, targets, weight, alpha, gamma, reduction, avg_factor, activated=True
    )

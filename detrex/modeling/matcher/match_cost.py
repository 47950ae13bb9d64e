"""Costs of matching on the queries and targets of one image, as the public detrex composes them.

The costs of :class:`~detrex.modeling.matcher.HungarianMatcher` are in
:mod:`detrex.modeling.matcher.costs`. Letters: ``Q`` queries, ``K`` classes, ``T`` targets.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from detrex.layers.box_ops import box_cxcywh_to_xyxy, generalized_box_iou
from detrex.modeling.losses.functional import focal_loss_of_negatives


class FocalLossCost(nn.Module):
    """The focal loss that a query would have as a positive, less that as a negative.

    Source: "Deformable DETR", arXiv:2010.04159.

    Args:
        alpha, gamma: balance and exponent of the focal loss.
        weight: of this cost.
        eps: of no use here, as the logarithms are taken of logits.
    """

    def __init__(
        self, alpha: float = 0.25, gamma: float = 2.0, weight: float = 1.0, eps: float = 1e-12
    ) -> None:
        super().__init__()
        self.alpha = alpha
        self.gamma = gamma
        self.weight = weight
        self.eps = eps

    def forward(self, pred_logits: Tensor, gt_labels: Tensor) -> Tensor:
        """``(Q, K)`` and ``(T,)`` class numbers -> ``(Q, T)``."""
        logits = pred_logits[:, gt_labels]
        positive = focal_loss_of_negatives(-logits, self.gamma, self.alpha)
        return self.weight * (
            positive - focal_loss_of_negatives(logits, self.gamma, 1 - self.alpha)
        )


class CrossEntropyCost(nn.Module):
    """The negative probability of the target's class. Source: "DETR", arXiv:2005.12872."""

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, pred_logits: Tensor, gt_labels: Tensor) -> Tensor:
        """``(Q, K)`` and ``(T,)`` class numbers -> ``(Q, T)``."""
        return -self.weight * pred_logits.softmax(-1)[:, gt_labels]


class L1Cost(nn.Module):
    """The L1 distance of normalized cxcywh boxes."""

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, pred_bboxes: Tensor, gt_bboxes: Tensor) -> Tensor:
        """``(Q, 4)`` and ``(T, 4)`` -> ``(Q, T)``."""
        return self.weight * torch.cdist(pred_bboxes, gt_bboxes, p=1)


class GIoUCost(nn.Module):
    """The negative generalized IoU of normalized cxcywh boxes."""

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, pred_bboxes: Tensor, gt_bboxes: Tensor) -> Tensor:
        """``(Q, 4)`` and ``(T, 4)`` -> ``(Q, T)``."""
        corners = box_cxcywh_to_xyxy(pred_bboxes), box_cxcywh_to_xyxy(gt_bboxes)
        return -self.weight * generalized_box_iou(*corners)

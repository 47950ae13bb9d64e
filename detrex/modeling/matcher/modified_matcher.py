"""A matcher made of three costs, in the manner of the public detrex."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from detrex.modeling.matcher.match_cost import FocalLossCost, GIoUCost, L1Cost
from detrex.modeling.matcher.matcher import assign
from detrex.modeling.predictions import Indices
from detrex.utils import at_least_float32


class HungarianMatcher(nn.Module):
    """The one-to-one assignment of least cost, by costs of
    :mod:`detrex.modeling.matcher.match_cost`; ``detrex.modeling.matcher.ModifedMatcher``.

    Args:
        cost_class: ``(pred_logits, gt_labels)``; focal with weight 2 if not given.
        cost_bbox: ``(pred_boxes, gt_boxes)``; L1 with weight 5 if not given.
        cost_giou: likewise; the negative generalized IoU with weight 2 if not given.
    """

    def __init__(
        self,
        cost_class: nn.Module | None = None,
        cost_bbox: nn.Module | None = None,
        cost_giou: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.cost_class = FocalLossCost(weight=2.0) if cost_class is None else cost_class
        self.cost_bbox = L1Cost(5.0) if cost_bbox is None else cost_bbox
        self.cost_giou = GIoUCost(2.0) if cost_giou is None else cost_giou

    @torch.no_grad()
    def forward(
        self,
        pred_logits: Tensor,
        pred_boxes: Tensor,
        gt_labels: Sequence[Tensor],
        gt_boxes: Sequence[Tensor],
    ) -> Indices:
        """Matches ``(B, Q, K)`` logits and ``(B, Q, 4)`` normalized cxcywh boxes.

        Args:
            gt_labels: per image ``(T,)`` class numbers.
            gt_boxes: per image ``(T, 4)``, normalized cxcywh.

        Returns:
            per image (queries in ascending order, their targets), int64 on the CPU.

        Letters: ``B`` images, ``Q`` queries, ``K`` classes, ``T`` targets.
        """
        pred_logits, pred_boxes = at_least_float32(pred_logits), at_least_float32(pred_boxes)
        costs = [
            self.cost_class(logits, labels)
            + self.cost_bbox(predicted, boxes)
            + self.cost_giou(predicted, boxes)
            for logits, predicted, labels, boxes in zip(
                pred_logits, pred_boxes, gt_labels, gt_boxes, strict=True
            )
        ]
        return [assign(cost.cpu().numpy()) for cost in costs]

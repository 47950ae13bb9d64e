"""Box losses of matched pairs: ``loss(pairs, step) -> {name: scalar}``."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from detrex.layers.box_ops import box_cxcywh_to_xyxy, elementwise_generalized_box_iou
from detrex.modeling.pairs import MatchedPairs, Step


class BoxL1Loss(nn.Module):
    """The L1 distance of normalized cxcywh boxes."""

    def forward(self, pairs: MatchedPairs, step: Step) -> dict[str, Tensor]:
        distance = F.l1_loss(pairs.predicted_boxes, pairs.target_boxes, reduction="sum")
        return {"loss_bbox": distance / pairs.num_boxes}


class BoxGIoULoss(nn.Module):
    """One minus the generalized IoU (Rezatofighi et al., arXiv:1902.09630)."""

    def forward(self, pairs: MatchedPairs, step: Step) -> dict[str, Tensor]:
        predicted, target = (
            box_cxcywh_to_xyxy(boxes) for boxes in (pairs.predicted_boxes, pairs.target_boxes)
        )
        giou = elementwise_generalized_box_iou(predicted, target)
        return {"loss_giou": (1 - giou).sum() / pairs.num_boxes}

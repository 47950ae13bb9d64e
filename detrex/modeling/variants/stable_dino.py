"""Stable matching: a score says how well its box fits, and the matching asks for both at once.

Source: "Detection Transformer with Stable Matching" (Stable-DINO), 2304.04742, without its memory
fusion. The balance ``alpha`` is DINO's, as the paper's formulas have none. Letters: ``B`` images,
``Q`` queries, ``K`` classes, ``T`` the most targets of an image, ``n`` matched pairs.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from detrex.layers.box_ops import box_cxcywh_to_xyxy, elementwise_generalized_box_iou
from detrex.modeling.criterion import SetCriterion
from detrex.modeling.criterion.criterion import MatchedPairs
from detrex.modeling.matcher import HungarianMatcher
from detrex.modeling.predictions import Prediction
from detrex.utils import at_least_float32, softplus


class PositionSupervisedCriterion(SetCriterion):
    """The class score of a matched query is to be its box's overlap with the target, not 1.

    With ``p`` the score of the target's class and ``f1`` from :meth:`fit`, the focal loss of a
    matched query is ``|f1 - p|^gamma BCE(p, f1)`` in place of ``(1 - p)^gamma BCE(p, 1)``. All else
    is as in :class:`SetCriterion`, for every prediction: last, auxiliary, encoder, denoising.

    Raises:
        ValueError: ``loss_class_type`` is not ``"focal_loss"``.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if self.loss_class_type != "focal_loss":
            raise ValueError(
                "PositionSupervisedCriterion needs sigmoid scores: set criterion.loss_class_type "
                f'to "focal_loss", not {self.loss_class_type!r}.'
            )

    def loss_class(
        self, prediction: Prediction, pairs: MatchedPairs, num_boxes: Tensor
    ) -> dict[str, Tensor]:
        """Classification of all queries; those without a target refuse every class."""
        logits = at_least_float32(prediction.logits)
        matched = logits[pairs.image, pairs.query, pairs.labels]
        wanted = self.fit(prediction, pairs).to(matched.dtype)
        entropy = (1 - wanted) * matched + softplus(-matched)
        agreeing = (wanted - matched.sigmoid()).abs() ** self.gamma * entropy
        yes, no = self.alpha, 1 - self.alpha
        loss = no * self._refusing(logits).sum()
        loss = loss + (yes * agreeing - no * self._refusing(matched)).sum()
        return {"loss_class": loss / num_boxes}

    @torch.no_grad()
    def fit(self, prediction: Prediction, pairs: MatchedPairs) -> Tensor:
        """The scores that matched queries should have: ``f1 = s^2 / best``, ``(n,)`` in [0, 1].

        ``s`` is the IoU of a pair and ``best`` the largest IoU in its image, of any query with any
        matched target: squaring tells good boxes from fair ones, dividing gives the best box its
        IoU back. No gradient flows, so boxes are not moved to suit their scores.
        """
        boxes = box_cxcywh_to_xyxy(at_least_float32(prediction.boxes))
        targets = box_cxcywh_to_xyxy(pairs.boxes.to(boxes.dtype))
        overlaps = box_overlap(boxes[pairs.image], targets[:, None])  # n Q
        matched = overlaps.gather(1, pairs.query[:, None])[:, 0]
        # Padded, as there is no maximum over the queries of a group that has none.
        per_target = F.pad(overlaps, (0, 1)).amax(1)
        best = boxes.new_zeros(len(boxes)).scatter_reduce(0, pairs.image, per_target, "amax")
        return matched**2 / best[pairs.image].clamp(min=torch.finfo(boxes.dtype).tiny)


class PositionModulatedMatcher(HungarianMatcher):
    """The class cost is that of the score times the fit of the box, ``p f2``, in place of ``p``.

    With ``f2 = ((GIoU + 1) / 2)^power`` the cost is ``alpha (1 - p f2)^gamma BCE(p f2, 1) -
    (1 - alpha) (p f2)^gamma BCE(p f2, 0)``: a query with a high score for a box that is far off
    no longer wins a target.

    Args:
        power: exponent of the fit; at 0 the matching is that of :class:`HungarianMatcher`, whose
            arguments the others are.

    Raises:
        ValueError: ``cost_class_type`` is not ``"focal_loss_cost"``.
    """

    def __init__(self, *args: Any, power: float = 0.5, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if self.cost_class_type != "focal_loss_cost":
            raise ValueError(
                "PositionModulatedMatcher needs sigmoid scores: set matcher.cost_class_type to "
                f'"focal_loss_cost", not {self.cost_class_type!r}.'
            )
        self.power = power

    def _costs(self, prediction: Prediction, labels: Tensor, target_boxes: Tensor) -> Tensor:
        logits, boxes = at_least_float32(prediction.logits), at_least_float32(prediction.boxes)
        target_boxes = target_boxes.to(boxes.dtype)
        giou = elementwise_generalized_box_iou(
            box_cxcywh_to_xyxy(boxes)[:, :, None], box_cxcywh_to_xyxy(target_boxes)[:, None]
        )
        index = labels[:, None].expand(-1, logits.shape[1], -1)
        return (
            self.cost_class * self._modulated_cost(logits.gather(2, index), giou)
            + self.cost_bbox * torch.cdist(boxes, target_boxes, p=1)
            - self.cost_giou * giou
        )

    def _modulated_cost(self, logits: Tensor, giou: Tensor) -> Tensor:
        """Class costs ``(B, Q, T)`` of logits and GIoU of all pairs, both of that shape."""
        fit = ((giou + 1) / 2).clamp(min=0) ** self.power
        score = logits.sigmoid()
        yes = score * fit + 0 * logits  # the last term keeps an infinite logit from looking sound
        no = (-logits).sigmoid() + score * (1 - fit)  # 1 - yes, exact where yes is nearly 1
        least = torch.finfo(logits.dtype).tiny
        accepting = self.alpha * no**self.gamma * -yes.clamp(min=least).log()
        refusing = (1 - self.alpha) * yes**self.gamma * -no.clamp(min=least).log()
        return accepting - refusing


def box_overlap(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """IoU of xyxy boxes, broadcast: ``(..., 4), (..., 4) -> (...)``; 0 for boxes without extent."""
    low = torch.maximum(boxes1[..., :2], boxes2[..., :2])
    high = torch.minimum(boxes1[..., 2:], boxes2[..., 2:])
    inter = (high - low).clamp(min=0).prod(-1)
    size1, size2 = ((b[..., 2:] - b[..., :2]).prod(-1) for b in (boxes1, boxes2))
    return inter / (size1 + size2 - inter).clamp(min=torch.finfo(inter.dtype).tiny)

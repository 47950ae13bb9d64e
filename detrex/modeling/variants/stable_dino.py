"""Stable matching: a score says how well its box fits, and the matching asks for both at once.

Source: "Detection Transformer with Stable Matching" (Stable-DINO), arXiv:2304.04742, without its
memory fusion. The balance ``alpha`` is DINO's, as the paper's formulas have none.

Letters: ``B`` images, ``Q`` queries, ``T`` the most targets of an image, ``n`` matched pairs.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detrex.layers.box_ops import box_cxcywh_to_xyxy, elementwise_box_iou
from detrex.modeling.losses import FocalClassLoss, bce_with_logits
from detrex.modeling.matcher import Candidates
from detrex.modeling.pairs import MatchedPairs
from detrex.utils import at_least_float32


class PositionSupervisedLoss(FocalClassLoss):
    """The class score of a matched query is to be its box's overlap with the target, not 1.

    With ``p`` the score of the target's class and ``f1`` from :meth:`fit`, the focal loss of a
    matched query is ``|f1 - p|^gamma BCE(p, f1)`` in place of ``(1 - p)^gamma BCE(p, 1)``. All else
    is as in :class:`.FocalClassLoss`, for every prediction: last, auxiliary, encoder, denoising.
    """

    def positives(self, logits: Tensor, pairs: MatchedPairs) -> Tensor:
        fit = self.fit(pairs).to(logits.dtype)
        entropy = bce_with_logits(logits, fit)
        return self.positive_weight * ((fit - logits.sigmoid()).abs() ** self.gamma * entropy)

    @torch.no_grad()
    def fit(self, pairs: MatchedPairs) -> Tensor:
        """The scores that matched queries should have: ``f1 = s^2 / best``, ``(n,)`` in [0, 1].

        ``s`` is the IoU of a pair and ``best`` the largest IoU in its image, of any query with any
        matched target: squaring tells good boxes from fair ones, dividing gives the best box its
        IoU back. No gradient flows, so boxes are not moved to suit their scores.
        """
        boxes = box_cxcywh_to_xyxy(at_least_float32(pairs.prediction.boxes))
        targets = box_cxcywh_to_xyxy(pairs.boxes.to(boxes.dtype))
        overlaps = elementwise_box_iou(boxes[pairs.image], targets[:, None])  # n Q
        matched = overlaps.gather(1, pairs.query[:, None])[:, 0]
        # Padded, as there is no maximum over the queries of a group that has none.
        per_target = F.pad(overlaps, (0, 1)).amax(1)
        best = boxes.new_zeros(len(boxes)).scatter_reduce(0, pairs.image, per_target, "amax")
        return matched**2 / best[pairs.image].clamp(min=torch.finfo(boxes.dtype).tiny)


class PositionModulatedCost(nn.Module):
    """The class cost is that of the score times the fit of the box, ``p f2``, in place of ``p``.

    With ``f2 = ((GIoU + 1) / 2)^power`` the cost is ``alpha (1 - p f2)^gamma BCE(p f2, 1) -
    (1 - alpha) (p f2)^gamma BCE(p f2, 0)``: a query with a high score for a box that is far off
    no longer wins a target.

    Args:
        alpha, gamma: balance and exponent, as in :class:`.FocalCost`.
        power: exponent of the fit; at 0 this is :class:`.FocalCost`.
    """

    def __init__(self, alpha: float = 0.25, gamma: float = 2.0, power: float = 0.5) -> None:
        super().__init__()
        self.alpha = alpha
        self.gamma = gamma
        self.power = power

    def forward(self, candidates: Candidates) -> Tensor:
        logits = candidates.of_class(candidates.logits)
        fit = ((candidates.giou + 1) / 2).clamp(min=0) ** self.power
        score = logits.sigmoid()
        yes = score * fit + 0 * logits  # the last term keeps an infinite logit from looking sound
        no = (-logits).sigmoid() + score * (1 - fit)  # 1 - yes, exact where yes is nearly 1
        least = torch.finfo(logits.dtype).tiny
        positive = self.alpha * no**self.gamma * -yes.clamp(min=least).log()
        negative = (1 - self.alpha) * yes**self.gamma * -no.clamp(min=least).log()
        return positive - negative

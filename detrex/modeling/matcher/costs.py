"""Costs of matching: ``cost(candidates) -> (B, Q, T)``, low where a query fits a target.

Letters: ``B`` images, ``Q`` queries, ``K`` classes, ``T`` the most targets of an image.
"""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from detrex.layers.box_ops import box_cxcywh_to_xyxy, elementwise_generalized_box_iou
from detrex.modeling.losses.functional import focal_loss_of_negatives
from detrex.modeling.predictions import Prediction, Targets
from detrex.utils import at_least_float32


class PaddedTargets:
    """The targets of images that have different numbers of them, as tensors.

    Attributes:
        targets: as they are, with whatever else they have.
        labels: ``(B, T)``.
        boxes: ``(B, T, 4)``, normalized cxcywh; what is padding means nothing.
    """

    def __init__(self, targets: Targets) -> None:
        self.targets = targets
        self.labels = pad_sequence([t["labels"] for t in targets], batch_first=True)
        # Padding with 0.5 makes a proper box, so nothing undefined is computed for it.
        boxes = [t["boxes"] for t in targets]
        self.boxes = pad_sequence(boxes, batch_first=True, padding_value=0.5)


class Candidates:
    """Every query of a prediction beside every target of its image.

    Attributes:
        prediction: with its extras.
        targets: as they are, with whatever else they have.
        logits: ``(B, Q, K)``, in single precision at least.
        boxes: ``(B, Q, 4)``, normalized cxcywh, in the dtype of the logits.
        labels: ``(B, T)``.
        target_boxes: ``(B, T, 4)``, likewise.

    Raises:
        ValueError: there are predictions for more or fewer images than targets.
    """

    def __init__(self, prediction: Prediction, targets: PaddedTargets) -> None:
        self.prediction = prediction
        self.targets = targets.targets
        self.logits = at_least_float32(prediction.logits)
        self.boxes = prediction.boxes.to(self.logits.dtype)
        self.labels = targets.labels
        self.target_boxes = targets.boxes.to(self.logits.dtype)
        if len(self.labels) != len(self.logits):
            raise ValueError(
                f"predictions for {len(self.logits)} images, targets for {len(self.labels)}."
            )

    @cached_property
    def giou(self) -> Tensor:
        """``(B, Q, T)`` generalized IoU."""
        return elementwise_generalized_box_iou(
            box_cxcywh_to_xyxy(self.boxes)[:, :, None],
            box_cxcywh_to_xyxy(self.target_boxes)[:, None],
        )

    def of_class(self, scores: Tensor) -> Tensor:
        """``(B, Q, K)`` -> ``(B, Q, T)``: those of each target's class."""
        return scores.gather(2, self.labels[:, None].expand(-1, scores.shape[1], -1))


class FocalCost(nn.Module):
    """The focal loss that the query would have as a positive, less that as a negative.

    Source: "Deformable DETR", arXiv:2010.04159.

    Args:
        alpha, gamma: balance and exponent of the focal loss.
    """

    def __init__(self, alpha: float = 0.25, gamma: float = 2.0) -> None:
        super().__init__()
        self.alpha = alpha
        self.gamma = gamma

    def forward(self, candidates: Candidates) -> Tensor:
        logits = candidates.of_class(candidates.logits)
        positive = focal_loss_of_negatives(-logits, self.gamma, self.alpha)
        return positive - focal_loss_of_negatives(logits, self.gamma, 1 - self.alpha)


class SoftmaxCost(nn.Module):
    """The negative probability of the target's class, "no object" being one of the classes."""

    def forward(self, candidates: Candidates) -> Tensor:
        return -candidates.of_class(candidates.logits.softmax(-1))


class _Weighted(nn.Module):
    """A cost with a weight of its own.

    Args:
        weight: of this cost in the sum.
    """

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = weight


class BoxL1Cost(_Weighted):
    """The L1 distance of normalized cxcywh boxes."""

    def forward(self, candidates: Candidates) -> Tensor:
        return torch.cdist(candidates.boxes, candidates.target_boxes, p=1)


class BoxGIoUCost(_Weighted):
    """The negative generalized IoU."""

    def forward(self, candidates: Candidates) -> Tensor:
        return -candidates.giou

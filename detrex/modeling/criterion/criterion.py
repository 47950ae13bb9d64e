"""The losses of DETR: one loop over everything that is predicted.

Source: "End-to-End Object Detection with Transformers", 2005.12872; focal loss as in "Deformable
DETR", 2010.04159. Letters: ``B`` images, ``Q`` queries, ``K`` classes, ``n`` matched pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from detrex.layers.box_ops import box_cxcywh_to_xyxy, elementwise_generalized_box_iou
from detrex.modeling.losses import sigmoid_focal_loss
from detrex.modeling.predictions import (
    Indices,
    Matcher,
    Prediction,
    Targets,
    predictions_from_outputs,
)
from detrex.utils import at_least_float32

LossTerm = Callable[[Prediction, "MatchedPairs", Tensor], dict[str, Tensor]]

LOSS_CLASS_TYPES = ("ce_loss", "focal_loss")


@dataclass
class MatchedPairs:
    """The matched queries of a batch next to their targets.

    Attributes:
        image, query: ``(n,)`` where the query is.
        labels: ``(n,)`` classes of the targets.
        boxes: ``(n, 4)`` boxes of the targets, normalized cxcywh.
    """

    image: Tensor
    query: Tensor
    labels: Tensor
    boxes: Tensor


def matched_pairs(indices: Indices, targets: Targets, device: torch.device) -> MatchedPairs:
    """Collects matches (on any device) and their targets on ``device``."""
    rows, offset = [], 0
    for image, ((query, target), own) in enumerate(zip(indices, targets, strict=True)):
        rows.append(torch.stack((torch.full_like(query, image), query, target + offset)))
        offset += len(own["labels"])
    image, query, target = torch.cat(rows, 1).to(device, non_blocking=True)
    labels = torch.cat([t["labels"] for t in targets])
    boxes = torch.cat([t["boxes"] for t in targets])
    return MatchedPairs(image, query, labels[target], boxes[target])


class SetCriterion(nn.Module):
    """Matches predictions and targets, then compares the pairs.

    Args:
        num_classes: classes, without "no object".
        matcher: finds the pairs of all predictions:
            ``matcher.match(predictions, targets) -> list[Indices]``.
        weight_dict: loss name -> weight, used by :meth:`weighted`. The weight of ``loss_bbox`` also
            holds for ``loss_bbox_0``, ``loss_bbox_dn`` and so on unless they have their own.
        losses: which losses: ``"class"``, ``"boxes"``.
        eos_coef: weight of "no object" in the cross-entropy.
        loss_class_type: ``"focal_loss"`` (``K = num_classes`` sigmoid scores) or ``"ce_loss"``
            (``K = num_classes + 1`` softmax scores, the last one for "no object").
        alpha, gamma: balance and exponent of the focal loss.
    """

    empty_weight: Tensor

    def __init__(
        self,
        num_classes: int,
        matcher: Matcher,
        weight_dict: Mapping[str, float],
        losses: Sequence[str] = ("class", "boxes"),
        eos_coef: float = 0.1,
        loss_class_type: str = "focal_loss",
        alpha: float = 0.25,
        gamma: float = 2.0,
    ):
        super().__init__()
        if loss_class_type not in LOSS_CLASS_TYPES:
            raise ValueError(
                f"loss_class_type is {loss_class_type!r}, but must be one of {LOSS_CLASS_TYPES}."
            )
        self.num_classes = num_classes
        self.matcher = matcher
        self.weight_dict = dict(weight_dict)
        self.losses = tuple(losses)
        self.eos_coef = eos_coef
        self.loss_class_type = loss_class_type
        self.alpha = alpha
        self.gamma = gamma
        if loss_class_type == "ce_loss":
            empty_weight = torch.ones(num_classes + 1)
            empty_weight[-1] = eos_coef
            self.register_buffer("empty_weight", empty_weight)
        unknown = [name for name in self.losses if name not in self.terms()]
        if unknown:
            raise ValueError(f"unknown losses {unknown}; there are {list(self.terms())}.")

    def forward(
        self, outputs: Sequence[Prediction] | Mapping[str, Any], targets: Targets
    ) -> dict[str, Tensor]:
        """The losses before weighting, scalars named ``loss_class``, ``loss_bbox_0``, ...

        Args:
            outputs: predictions, or the dictionary that
                :func:`~detrex.modeling.predictions.predictions_from_outputs` takes.
            targets: per image ``labels (T,)`` and ``boxes (T, 4)``, normalized cxcywh, on the
                device of the predictions. They aren't written to; ``T = 0`` is fine.
        """
        predictions = predictions_from_outputs(outputs) if isinstance(outputs, Mapping) else outputs
        matches = self.matcher.match(predictions, targets)
        num_boxes = self.num_boxes(targets, predictions[0].boxes.device)
        losses: dict[str, Tensor] = {}
        for prediction, indices in zip(predictions, matches, strict=True):
            terms = self.prediction_losses(prediction, indices, targets, num_boxes)
            losses |= {name + prediction.suffix: value for name, value in terms.items()}
        return losses

    def weighted(self, losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The losses times their weights; a loss without a weight stays as it is."""
        return {name: value * self._weight(name) for name, value in losses.items()}

    def _weight(self, name: str) -> float:
        """The weight of ``name``, or of what is left of it without some ``_suffix``."""
        stem = name
        while stem not in self.weight_dict and "_" in stem:
            stem = stem.rpartition("_")[0]
        return self.weight_dict.get(stem, 1.0)

    @staticmethod
    def num_boxes(targets: Targets, device: torch.device) -> Tensor:
        """Targets per process, averaged over all processes, at least 1: a scalar."""
        count = torch.tensor(float(sum(len(t["labels"]) for t in targets)), device=device)
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(count)
            count = count / dist.get_world_size()
        return count.clamp(min=1)

    def terms(self) -> dict[str, LossTerm]:
        """What the names in ``losses`` stand for; a subclass may add to it."""
        return {"class": self.loss_class, "boxes": self.loss_boxes}

    def prediction_losses(
        self, prediction: Prediction, indices: Indices, targets: Targets, num_boxes: Tensor
    ) -> dict[str, Tensor]:
        """All losses of one prediction, named without its suffix."""
        own = prediction.own_targets(targets)
        pairs = matched_pairs(indices, own, prediction.boxes.device)
        num_boxes = num_boxes * prediction.num_boxes_scale
        terms = self.terms()
        losses: dict[str, Tensor] = {}
        for name in self.losses:
            losses |= terms[name](prediction, pairs, num_boxes)
        return losses

    def loss_class(
        self, prediction: Prediction, pairs: MatchedPairs, num_boxes: Tensor
    ) -> dict[str, Tensor]:
        """Classification of all queries; those without a target answer for "no object"."""
        logits = at_least_float32(prediction.logits)
        if self.loss_class_type == "ce_loss":
            target = logits.new_full(logits.shape[:2], self.num_classes, dtype=torch.long)
            target[pairs.image, pairs.query] = pairs.labels
            weight = self.empty_weight.to(logits.dtype)
            loss = F.cross_entropy(logits.flatten(0, 1), target.flatten(), weight, reduction="sum")
            # The sum of weights may be 0: no queries, or no targets with eos_coef=0.
            total = weight[target].sum().clamp(min=torch.finfo(weight.dtype).tiny)
            return {"loss_class": loss / total}
        one_hot = torch.zeros_like(logits)
        one_hot[pairs.image, pairs.query, pairs.labels] = 1
        loss = sigmoid_focal_loss(
            logits, one_hot, alpha=self.alpha, gamma=self.gamma, reduction="sum"
        )
        return {"loss_class": loss / num_boxes}

    def loss_boxes(
        self, prediction: Prediction, pairs: MatchedPairs, num_boxes: Tensor
    ) -> dict[str, Tensor]:
        """L1 distance and generalized IoU of the pairs."""
        boxes = at_least_float32(prediction.boxes)[pairs.image, pairs.query]
        target = pairs.boxes.to(boxes.dtype)
        giou = elementwise_generalized_box_iou(
            box_cxcywh_to_xyxy(boxes), box_cxcywh_to_xyxy(target)
        )
        return {
            "loss_bbox": F.l1_loss(boxes, target, reduction="sum") / num_boxes,
            "loss_giou": (1 - giou).sum() / num_boxes,
        }

"""The losses of DETR: one loop over everything that is predicted.

Source: "End-to-End Object Detection with Transformers", 2005.12872; focal loss as in "Deformable
DETR", 2010.04159. Letters: ``B`` images, ``Q`` queries, ``K`` classes, ``n`` matched pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detrex.layers.box_ops import box_cxcywh_to_xyxy, elementwise_generalized_box_iou
from detrex.modeling.predictions import (
    Indices,
    Matcher,
    Prediction,
    Targets,
    all_own_targets,
    predictions_from_outputs,
)
from detrex.utils import at_least_float32, softplus
from detrex.utils.processes import sum_over_processes

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


def matched_pairs(
    matches: Sequence[Indices], targets: Sequence[Targets], device: torch.device
) -> list[MatchedPairs]:
    """Collects matches (on the CPU) and their targets on ``device``, with one copy to it.

    Args:
        matches: of each prediction.
        targets: of each prediction; made ready once where several have the same object.
    """
    rows = [_rows(indices, own) for indices, own in zip(matches, targets, strict=True)]
    on_device = torch.cat(rows, 1).to(device, non_blocking=True)
    labels = {id(own): torch.cat([t["labels"] for t in own]) for own in targets}
    boxes = {id(own): torch.cat([t["boxes"] for t in own]) for own in targets}
    pairs = []
    for part, own in zip(on_device.split([r.shape[1] for r in rows], 1), targets, strict=True):
        image, query, target = part
        pairs.append(MatchedPairs(image, query, labels[id(own)][target], boxes[id(own)][target]))
    return pairs


def _rows(indices: Indices, targets: Targets) -> Tensor:
    """``(3, n)``: image, query and position of the target among those of all images."""
    rows, offset = [], 0
    for image, ((query, target), own) in enumerate(zip(indices, targets, strict=True)):
        rows.append(torch.stack((torch.full_like(query, image), query, target + offset)))
        offset += len(own["labels"])
    return torch.cat(rows, 1)


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

        Raises:
            ValueError: there are logits of another number of classes.
        """
        predictions = predictions_from_outputs(outputs) if isinstance(outputs, Mapping) else outputs
        self._check_classes(predictions)
        device = predictions[0].boxes.device
        matches = self.matcher.match(predictions, targets)
        pairs = matched_pairs(matches, all_own_targets(predictions, targets), device)
        num_boxes = self.num_boxes(targets, device)
        losses: dict[str, Tensor] = {}
        for prediction, own in zip(predictions, pairs, strict=True):
            terms = self.prediction_losses(prediction, own, num_boxes)
            losses |= {name + prediction.suffix: value for name, value in terms.items()}
        return losses

    def _check_classes(self, predictions: Sequence[Prediction]) -> None:
        no_object = self.loss_class_type == "ce_loss"
        for p in predictions:
            if (
                not p.supervision.class_agnostic
                and p.logits.shape[-1] != self.num_classes + no_object
            ):
                raise ValueError(
                    f"predictions have {p.logits.shape[-1]} logits, but the criterion expects "
                    f"{self.num_classes}{' and one for no object' if no_object else ''}: let the "
                    "heads and the criterion have the num_classes of the model."
                )

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
        """Targets of all processes, at least 1, divided by the number of processes: a scalar.

        Distributed training averages gradients over processes, so those of these losses are then
        the gradients of one process that has all images.
        """
        # Filled in place: copying a number to a GPU would wait for it.
        count = torch.full((), float(sum(len(t["labels"]) for t in targets)), device=device)
        total, processes = sum_over_processes(count)
        return total.clamp(min=1) / processes

    def terms(self) -> dict[str, LossTerm]:
        """What the names in ``losses`` stand for; a subclass may add to it."""
        return {"class": self.loss_class, "boxes": self.loss_boxes}

    def prediction_losses(
        self, prediction: Prediction, pairs: MatchedPairs, num_boxes: Tensor
    ) -> dict[str, Tensor]:
        """All losses of one prediction, named without its suffix."""
        num_boxes = num_boxes * prediction.supervision.num_boxes_scale
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
            return {"loss_class": self._cross_entropy(logits, pairs)}
        # Nearly every query is to refuse every class: the few others are put right after.
        matched = logits[pairs.image, pairs.query, pairs.labels]
        yes, no = self.alpha, 1 - self.alpha
        loss = no * self._refusing(logits).sum()
        loss = loss + (yes * self._refusing(-matched) - no * self._refusing(matched)).sum()
        return {"loss_class": loss / num_boxes}

    def _refusing(self, logits: Tensor) -> Tensor:
        """Focal loss (1708.02002) of logits that are to say no, before the balance."""
        return logits.sigmoid() ** self.gamma * softplus(logits)

    def _cross_entropy(self, logits: Tensor, pairs: MatchedPairs) -> Tensor:
        """The mean over all queries of all processes, weighted with ``empty_weight``."""
        target = logits.new_full(logits.shape[:2], self.num_classes, dtype=torch.long)
        target[pairs.image, pairs.query] = pairs.labels
        weight = self.empty_weight.to(logits.dtype)
        loss = F.cross_entropy(logits.flatten(0, 1), target.flatten(), weight, reduction="sum")
        # The sum of weights may be 0: no queries, or no targets with eos_coef=0.
        total, processes = sum_over_processes(weight[target].sum())
        return loss / (total / processes).clamp(min=torch.finfo(weight.dtype).tiny)

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

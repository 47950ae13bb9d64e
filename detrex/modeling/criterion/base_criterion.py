"""A criterion made of loss modules, in the manner of the public detrex."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from detrex.layers.box_ops import box_cxcywh_to_xyxy
from detrex.modeling.criterion.core import Criterion
from detrex.modeling.criterion.indices import source_indices, target_indices
from detrex.modeling.losses import FocalLoss, GIoULoss, L1Loss
from detrex.modeling.predictions import Indices, Targets


class BaseCriterion(nn.Module):
    """Matches dictionaries of outputs and targets and asks three loss modules.

    Args:
        num_classes: classes, without "no object".
        matcher: ``matcher(pred_logits, pred_boxes, gt_labels, gt_boxes)``, such as
            :class:`~detrex.modeling.matcher.ModifedMatcher`.
        loss_class: ``(preds, targets, avg_factor=)`` on ``(B * Q, K)`` logits and ``(B * Q,)``
            class numbers, ``K`` standing for none of them; the focal loss if not given.
        loss_bbox: likewise on ``(n, 4)`` normalized cxcywh boxes; L1 with weight 5 if not given.
        loss_giou: likewise on ``(n, 4)`` normalized xyxy boxes; generalized IoU with weight 2 if
            not given.

    Letters: ``B`` images, ``Q`` queries, ``K`` classes, ``n`` matched pairs.
    """

    def __init__(
        self,
        num_classes: int,
        matcher: nn.Module,
        loss_class: nn.Module | None = None,
        loss_bbox: nn.Module | None = None,
        loss_giou: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.matcher = matcher
        self.loss_class = FocalLoss() if loss_class is None else loss_class
        self.loss_bbox = L1Loss(loss_weight=5.0) if loss_bbox is None else loss_bbox
        self.loss_giou = GIoULoss(eps=1e-6, loss_weight=2.0) if loss_giou is None else loss_giou

    def forward(self, outputs: Mapping[str, Any], targets: Targets) -> dict[str, Tensor]:
        """Losses, weighted by their modules: ``loss_class``, ``loss_bbox``, ``loss_giou``, and with
        ``_0``, ``_1``, ... those of ``aux_outputs``.

        Args:
            outputs: ``pred_logits (B, Q, K)``, ``pred_boxes (B, Q, 4)``, optionally
                ``aux_outputs``, a list of such dictionaries.
            targets: per image ``labels (T,)`` and ``boxes (T, 4)``, normalized cxcywh.
        """
        num_boxes = Criterion.num_boxes(targets, outputs["pred_boxes"].device)
        labels, boxes = [t["labels"] for t in targets], [t["boxes"] for t in targets]
        layers = {"": outputs}
        layers |= {f"_{i}": layer for i, layer in enumerate(outputs.get("aux_outputs", ()))}
        losses = {}
        for suffix, layer in layers.items():
            logits, predicted = layer["pred_logits"], layer["pred_boxes"]
            indices = self.matcher(logits, predicted, labels, boxes)
            asked = {
                "loss_class": (self.calculate_class_loss, logits),
                "loss_bbox": (self.calculate_bbox_loss, predicted),
                "loss_giou": (self.calculate_giou_loss, predicted),
            }
            for name, (calculate, preds) in asked.items():
                losses[name + suffix] = calculate(preds, targets, indices, num_boxes)
        return losses

    def calculate_class_loss(
        self, pred_logits: Tensor, targets: Targets, indices: Indices, num_boxes: Tensor
    ) -> Tensor:
        """The class loss of ``(B, Q, K)`` logits."""
        classes = pred_logits.new_full(pred_logits.shape[:2], self.num_classes, dtype=torch.long)
        classes[self._get_src_permutation_idx(indices)] = torch.cat(
            [t["labels"][target] for t, (_, target) in zip(targets, indices, strict=True)]
        )
        preds = pred_logits.flatten(0, 1)
        return self.loss_class(preds, classes.flatten(), avg_factor=num_boxes)

    def calculate_bbox_loss(
        self, pred_boxes: Tensor, targets: Targets, indices: Indices, num_boxes: Tensor
    ) -> Tensor:
        """The loss of ``(B, Q, 4)`` boxes as center and size."""
        matched, wanted = self._matched_boxes(pred_boxes, targets, indices)
        return self.loss_bbox(matched, wanted, avg_factor=num_boxes)

    def calculate_giou_loss(
        self, pred_boxes: Tensor, targets: Targets, indices: Indices, num_boxes: Tensor
    ) -> Tensor:
        """The loss of ``(B, Q, 4)`` boxes as corners."""
        matched, wanted = self._matched_boxes(pred_boxes, targets, indices)
        corners = box_cxcywh_to_xyxy(matched), box_cxcywh_to_xyxy(wanted)
        return self.loss_giou(*corners, avg_factor=num_boxes)

    def _matched_boxes(
        self, pred_boxes: Tensor, targets: Targets, indices: Indices
    ) -> tuple[Tensor, Tensor]:
        matched = pred_boxes[self._get_src_permutation_idx(indices)]
        wanted = [t["boxes"][target] for t, (_, target) in zip(targets, indices, strict=True)]
        return matched, torch.cat(wanted)

    def _get_src_permutation_idx(self, indices: Indices) -> tuple[Tensor, Tensor]:
        """``(n,)`` image and query of all matched pairs."""
        return source_indices(indices)

    def _get_tgt_permutation_idx(self, indices: Indices) -> tuple[Tensor, Tensor]:
        """``(n,)`` image and target of all matched pairs."""
        return target_indices(indices)

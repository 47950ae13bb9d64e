"""A model with the interface of a detector, for tests of what trains detectors."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn


class TinyDetector(nn.Module):
    """Predicts one box and class per image from the image's mean color, with dropout."""

    def __init__(self, num_classes: int = 2, dropout: float = 0.2) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.body = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Dropout(dropout))
        self.box = nn.Linear(8, 4)
        self.label = nn.Linear(8, num_classes)
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def forward(self, batch: list[dict[str, Any]]) -> Any:
        device = self.box.weight.device
        colors = torch.stack([x["image"].float().mean((1, 2)) / 255 for x in batch])
        features = self.body(colors.to(device))
        boxes, logits = self.box(features), self.label(features)
        if self.training:
            self.steps += 1
            return self.losses(boxes, logits, batch)
        return [
            {"instances": self.instances(b, s, x)}
            for b, s, x in zip(boxes.sigmoid(), logits.sigmoid(), batch, strict=True)
        ]

    def losses(
        self, boxes: Tensor, logits: Tensor, batch: list[dict[str, Any]]
    ) -> dict[str, Tensor]:
        """Sums over objects, divided by the number of objects, as in the DETR family."""
        count = max(sum(len(x["instances"]) for x in batch), 1)
        zero = boxes.sum() * 0
        loss_bbox, loss_class = zero, zero
        for box, logit, x in zip(boxes, logits, batch, strict=True):
            target = x["instances"].to(box.device)
            height, width = target.image_size
            scale = box.new_tensor([width, height, width, height])
            loss_bbox = loss_bbox + (box - target.gt_boxes.tensor / scale).abs().sum()
            log_odds = logit.log_softmax(-1)
            loss_class = loss_class - log_odds[target.gt_classes].sum()
        return {"loss_bbox": loss_bbox / count, "loss_class": loss_class / count}

    def instances(self, box: Tensor, scores: Tensor, x: dict[str, Any]) -> Instances:
        height, width = x.get("height"), x.get("width")
        low, high = box.view(2, 2).sort(0).values
        scale = box.new_tensor([width, height, width, height])
        result = Instances((height, width))
        result.pred_boxes = Boxes(torch.cat([low, high])[None] * scale)
        result.scores, result.pred_classes = scores.max(0, keepdim=True)
        return result

"""From logits and normalized boxes to detections in pixels.

Letters: ``B`` batch, ``Q`` queries, ``K`` classes, ``D`` detections.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn

from detrex.layers import box_cxcywh_to_xyxy
from detrex.utils import at_least_float32


class Detections(NamedTuple):
    """The detections of a batch, best first."""

    scores: Tensor
    """``(B, D)`` in [0, 1]."""
    classes: Tensor
    """``(B, D)``."""
    boxes: Tensor
    """``(B, D, 4)``, normalized cxcywh."""

    def pixel_boxes(self, sizes: Tensor) -> Tensor:
        """``(B, D, 4)``, xyxy in pixels of images of ``sizes (B, 2)``, (height, width)."""
        scale = sizes.flip(-1).repeat(1, 2).to(self.boxes)
        return box_cxcywh_to_xyxy(self.boxes) * scale[:, None]

    def instances(self, image_sizes: Sequence[tuple[int, int]]) -> list[Instances]:
        """Per image, with boxes in pixels of an image of (height, width)."""
        results = []
        for i, boxes in enumerate(self.pixel_boxes(torch.tensor(image_sizes))):
            found = Instances(image_sizes[i])
            found.pred_boxes = Boxes(boxes)
            found.scores = self.scores[i]
            found.pred_classes = self.classes[i]
            results.append(found)
        return results


def _gather(boxes: Tensor, queries: Tensor) -> Tensor:
    return boxes.gather(1, queries[..., None].expand(-1, -1, 4))


class TopKSigmoid(nn.Module):
    """The best pairs of query and class; a query may appear with several classes.

    Args:
        num_boxes: detections ``D`` per image; all pairs if there are fewer.
    """

    def __init__(self, num_boxes: int = 300) -> None:
        super().__init__()
        self.num_boxes = num_boxes

    def forward(self, logits: Tensor, boxes: Tensor) -> Detections:
        """``(B, Q, K)`` and ``(B, Q, 4)`` to the best ``D``."""
        num_classes = logits.shape[-1]
        pairs = at_least_float32(logits).sigmoid().flatten(1)
        scores, index = pairs.topk(torch.sym_min(self.num_boxes, pairs.shape[1]), 1)
        query = index.div(num_classes, rounding_mode="floor")
        return Detections(scores, index % num_classes, _gather(boxes, query))


class SoftmaxPerQuery(nn.Module):
    """One detection per query, its best class other than "no object" (the last one)."""

    def forward(self, logits: Tensor, boxes: Tensor) -> Detections:
        """``(B, Q, K + 1)`` and ``(B, Q, 4)`` to all ``Q``, best first."""
        scores, classes = at_least_float32(logits).softmax(-1)[..., :-1].max(-1)
        scores, order = scores.sort(1, descending=True)
        return Detections(scores, classes.gather(1, order), _gather(boxes, order))

"""Boxes as tensors: conversions and overlaps.

``cxcywh`` is (center x, center y, width, height), ``xyxy`` the two corners. Boxes to compare have
one unit. In overlaps every denominator grows by :data:`EPS`: the published models trained with
that, and it keeps the overlap of two boxes without any extent defined.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import box_area, masks_to_boxes

__all__ = [
    "box_cxcywh_to_xyxy",
    "box_iou",
    "box_xyxy_to_cxcywh",
    "elementwise_generalized_box_iou",
    "generalized_box_iou",
    "masks_to_boxes",
]

EPS = 1e-6


def box_cxcywh_to_xyxy(bbox: Tensor) -> Tensor:
    """``(..., 4)`` centers and sizes to ``(..., 4)`` corners."""
    center, size = bbox.split(2, -1)
    return torch.cat((center - size / 2, center + size / 2), -1)


def box_xyxy_to_cxcywh(bbox: Tensor) -> Tensor:
    """``(..., 4)`` corners to ``(..., 4)`` centers and sizes."""
    low, high = bbox.split(2, -1)
    return torch.cat(((low + high) / 2, high - low), -1)


def _intersection_and_hull(boxes1: Tensor, boxes2: Tensor) -> tuple[Tensor, Tensor]:
    """Areas of the intersection and of the smallest enclosing box, broadcast: ``(...)``."""
    # Coordinate by coordinate: an innermost axis of two makes elementwise kernels ten times slower.
    left1, top1, right1, bottom1 = boxes1.unbind(-1)
    left2, top2, right2, bottom2 = boxes2.unbind(-1)
    high, low = torch.maximum, torch.minimum
    width = (low(right1, right2) - high(left1, left2)).clamp(min=0)
    height = (low(bottom1, bottom2) - high(top1, top2)).clamp(min=0)
    hull_width = (high(right1, right2) - low(left1, left2)).clamp(min=0)
    hull_height = (high(bottom1, bottom2) - low(top1, top2)).clamp(min=0)
    return width * height, hull_width * hull_height


def elementwise_box_iou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """IoU of xyxy boxes, broadcast: ``(..., 4), (..., 4) -> (...)``; 0 for boxes without extent."""
    low = torch.maximum(boxes1[..., :2], boxes2[..., :2])
    high = torch.minimum(boxes1[..., 2:], boxes2[..., 2:])
    inter = (high - low).clamp(min=0).prod(-1)
    size1, size2 = ((b[..., 2:] - b[..., :2]).prod(-1) for b in (boxes1, boxes2))
    return inter / (size1 + size2 - inter).clamp(min=torch.finfo(inter.dtype).tiny)


def elementwise_generalized_box_iou(boxes1: Tensor, boxes2: Tensor, eps: float = EPS) -> Tensor:
    """Generalized IoU of xyxy boxes, broadcast: ``(..., 4), (..., 4) -> (...)`` in [-1, 1].

    NaN boxes give NaN: nothing is asserted here, targets are checked once when they are loaded.
    Source: Rezatofighi et al., arXiv:1902.09630.
    """
    inter, hull = _intersection_and_hull(boxes1, boxes2)
    size1, size2 = (b[..., 2:] - b[..., :2] for b in (boxes1, boxes2))
    union = size1.prod(-1) + size2.prod(-1) - inter
    return inter / (union + eps) - (hull - union) / (hull + eps)


def generalized_box_iou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Generalized IoU of all pairs of xyxy boxes: ``(N, 4), (M, 4) -> (N, M)`` in [-1, 1]."""
    return elementwise_generalized_box_iou(boxes1[:, None], boxes2[None])


def box_iou(boxes1: Tensor, boxes2: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and union area of all pairs of xyxy boxes: ``(N, 4), (M, 4) -> (N, M), (N, M)``."""
    inter, _ = _intersection_and_hull(boxes1[:, None], boxes2[None])
    union = box_area(boxes1)[:, None] + box_area(boxes2) - inter
    return inter / (union + EPS), union

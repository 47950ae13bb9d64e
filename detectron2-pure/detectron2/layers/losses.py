"""Box losses under detectron2's names."""

from __future__ import annotations

from torch import Tensor
from torchvision.ops import complete_box_iou_loss, distance_box_iou_loss

__all__ = ["ciou_loss", "diou_loss"]


def diou_loss(boxes1: Tensor, boxes2: Tensor, reduction: str = "none", eps: float = 1e-7) -> Tensor:
    """Distance-IoU loss (arXiv:1911.08287) of boxes (N, 4) as XYXY."""
    return distance_box_iou_loss(boxes1, boxes2, reduction, eps)


def ciou_loss(boxes1: Tensor, boxes2: Tensor, reduction: str = "none", eps: float = 1e-7) -> Tensor:
    """Complete-IoU loss (arXiv:1911.08287) of boxes (N, 4) as XYXY."""
    return complete_box_iou_loss(boxes1, boxes2, reduction, eps)

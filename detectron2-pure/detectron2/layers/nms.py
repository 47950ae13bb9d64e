"""Non-maximum suppression."""

from torch import Tensor
from torchvision.ops import boxes as box_ops
from torchvision.ops import nms

__all__ = ["batched_nms", "nms"]


def batched_nms(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    """Non-maximum suppression within each category, in float32.

    Args:
        boxes: (N, 4) as XYXY.
        scores: (N,).
        idxs: category (N,) of each box.
        iou_threshold: boxes that overlap a better one of their category by more are dropped.

    Returns:
        Indices (M,) of the boxes kept, by falling score.
    """
    if boxes.shape[-1] != 4:
        raise AssertionError(f"batched_nms() takes boxes (N, 4), not {list(boxes.shape)}.")
    # Half precision cannot hold the offsets that keep the categories apart, and torchvision
    # wants one dtype.
    return box_ops.batched_nms(boxes.float(), scores.float(), idxs, iou_threshold)

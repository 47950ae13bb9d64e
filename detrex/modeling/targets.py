"""From the annotations of detectron2's dictionaries to targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from detectron2.structures import BitMasks, PolygonMasks
from torch import Tensor

from detrex.layers import box_xyxy_to_cxcywh
from detrex.modeling.predictions import Target, Targets


def targets_from_instances(
    batch: Sequence[Mapping[str, Any]], device: torch.device, dtype: torch.dtype
) -> Targets:
    """Per image labels and boxes, and masks where its ``instances`` have ``gt_masks``.

    Args:
        batch: dictionaries with ``instances``, whose boxes are xyxy in pixels.
        device: where the targets are to live.
        dtype: of the boxes.
    """
    return [_target(x["instances"], device, dtype) for x in batch]


def _target(instances: Any, device: torch.device, dtype: torch.dtype) -> Target:
    # Boxes are computed where they are, most likely on the CPU: a GPU then need not be waited for.
    height, width = instances.image_size
    boxes = instances.gt_boxes.tensor.to(dtype)
    boxes = box_xyxy_to_cxcywh(boxes / boxes.new_tensor((width, height, width, height)))
    target = Target(
        labels=instances.gt_classes.to(device, non_blocking=True),
        boxes=boxes.to(device, non_blocking=True),
    )
    if instances.has("gt_masks"):
        masks = _bitmaps(instances.gt_masks, height, width)
        target["masks"] = masks.to(device, non_blocking=True)
    return target


def _bitmaps(masks: Any, height: int, width: int) -> Tensor:
    """``(T, H, W)`` boolean."""
    if isinstance(masks, PolygonMasks):
        masks = BitMasks.from_polygon_masks(masks, height, width)
    return masks.tensor if isinstance(masks, BitMasks) else torch.as_tensor(masks, dtype=torch.bool)

"""Predictions in COCO's result format."""

from __future__ import annotations

from typing import Any

import numpy as np
import pycocotools.mask as mask_util
import torch
from detectron2.structures import Boxes, BoxMode, Instances

__all__ = ["instances_to_coco_json"]


def instances_to_coco_json(instances: Instances, img_id: Any) -> list[dict[str, Any]]:
    """Predictions of one image in COCO's result format.

    Args:
        instances: N predictions on the CPU with ``pred_boxes`` (XYXY), ``scores``, ``pred_classes``
            and perhaps ``pred_masks`` (N, H, W) and ``pred_keypoints`` (N, K, 3).
        img_id: the id of the image.

    Returns:
        N dicts with ``image_id``, ``category_id``, ``bbox`` (XYWH), ``score`` and perhaps
        ``segmentation`` (RLE) and ``keypoints``.
    """
    if len(instances) == 0:
        return []
    boxes = instances.pred_boxes
    boxes = boxes.tensor if isinstance(boxes, Boxes) else torch.as_tensor(boxes)
    boxes = BoxMode.convert(boxes.detach().clone(), BoxMode.XYXY_ABS, BoxMode.XYWH_ABS)
    rows = zip(
        instances.pred_classes.tolist(), boxes.tolist(), instances.scores.tolist(), strict=True
    )
    results: list[dict[str, Any]] = [
        {"image_id": img_id, "category_id": category, "bbox": box, "score": score}
        for category, box, score in rows
    ]
    if instances.has("pred_masks"):
        for result, rle in zip(results, _encode_masks(instances.pred_masks), strict=True):
            result["segmentation"] = rle
    if instances.has("pred_keypoints"):
        # COCO counts keypoints from pixel centers, detectron2 from pixel corners.
        keypoints = instances.pred_keypoints - instances.pred_keypoints.new_tensor([0.5, 0.5, 0])
        for result, points in zip(results, keypoints.flatten(1).tolist(), strict=True):
            result["keypoints"] = points
    return results


def _encode_masks(masks: Any) -> list[dict[str, Any]]:
    """Masks (N, H, W) as RLE that json can hold."""
    masks = torch.as_tensor(getattr(masks, "tensor", masks))
    # One by one, since a copy of hundreds of large masks is too much for some machines.
    rles = (mask_util.encode(np.asfortranarray(mask, dtype=np.uint8)) for mask in masks.numpy())
    return [{**rle, "counts": rle["counts"].decode("utf-8")} for rle in rles]

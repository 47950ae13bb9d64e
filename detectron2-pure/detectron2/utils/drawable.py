"""Annotations and predictions in the forms in which ``Visualizer`` draws them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from detectron2.structures import BoxMode
from detectron2.utils.file_io import PathManager
from detectron2.utils.generic_mask import GenericMask
from PIL import Image


def create_text_labels(
    classes: Sequence[int] | None,
    scores: Any,
    class_names: Sequence[str] | None,
    is_crowd: Sequence[bool] | None = None,
) -> list[str] | None:
    """Labels such as ``cat 97%`` and ``person|crowd``.

    Args:
        classes: N class numbers.
        scores: N numbers in [0, 1].
        class_names: names of all classes.
        is_crowd: N flags.

    Returns:
        N strings, or None if neither classes nor scores are given.
    """
    labels = None
    if classes is not None:
        labels = [class_names[c] if class_names else str(c) for c in classes]
    if scores is not None:
        percent = [f"{float(score) * 100:.0f}%" for score in scores]
        if labels is None:
            labels = percent
        else:
            labels = [f"{name} {text}" for name, text in zip(labels, percent, strict=True)]
    if labels is not None and is_crowd is not None:
        labels = [
            name + ("|crowd" if crowd else "") for name, crowd in zip(labels, is_crowd, strict=True)
        ]
    return labels


def to_numpy(value: Any) -> np.ndarray:
    """An array of an array, a tensor, or a structure that holds a tensor."""
    value = getattr(value, "tensor", value)
    return value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)


def union_of(masks: list[GenericMask] | None) -> np.ndarray | None:
    """The union of masks."""
    return np.any([m.mask for m in masks], axis=0) if masks else None


def values_of(dicts: Sequence[dict[str, Any]], key: str, default: Any = None) -> list[Any] | None:
    """A value of every dict, with a default where some lack it; None if all do."""
    if not any(key in d for d in dicts):
        return None
    return [d.get(key, default) for d in dicts]


def boxes_of(annotations: Sequence[dict[str, Any]]) -> np.ndarray | None:
    """Boxes of dataset dicts, XYXY, or rotated ones as they are."""
    if "bbox" not in annotations[0]:
        return None
    boxes = []
    for annotation in annotations:
        box = [float(v) for v in annotation["bbox"]]
        is_rotated = len(box) == 5
        boxes.append(
            box if is_rotated else BoxMode.convert(box, annotation["bbox_mode"], BoxMode.XYXY_ABS)
        )
    return np.array(boxes)


def keypoints_of(annotations: Sequence[dict[str, Any]]) -> np.ndarray | None:
    if "keypoints" not in annotations[0]:
        return None
    return np.array([a["keypoints"] for a in annotations]).reshape(len(annotations), -1, 3)


def largest_first(
    boxes: np.ndarray | None, masks: list[GenericMask] | None, count: int
) -> list[int]:
    if boxes is not None:
        areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    elif masks is not None:
        areas = np.array([mask.area() for mask in masks])
    else:
        areas = np.zeros(count)
    return np.argsort(-areas, kind="stable").tolist()


def read_label_map(path: str) -> np.ndarray:
    """The labels (H, W) of a picture that has one in each pixel."""
    with PathManager.open(path, "rb") as f:
        return np.asarray(Image.open(f))


def read_segment_ids(path: str) -> np.ndarray:
    """The segment ids (H, W) of a picture in COCO's panoptic format, which has them as colors."""
    with PathManager.open(path, "rb") as f:
        colors = np.asarray(Image.open(f).convert("RGB"))
    red, green, blue = colors.astype(np.int64).transpose(2, 0, 1)
    return red + 256 * green + 256**2 * blue

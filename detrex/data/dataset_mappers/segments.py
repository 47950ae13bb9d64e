"""From the annotations of a record to classes and masks, in detectron2's three formats.

Each function reads what one format has of an image, moves it as the image was moved, and gives
``(classes, masks)``: (N,) int64 and (N, H, W) bool. Letters: N segments, (H, W) the size of the
augmented image.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from detectron2.data import detection_utils as utils
from detectron2.data import transforms as T
from torch import Tensor

__all__ = [
    "Segments",
    "instance_segments",
    "panoptic_segments",
    "read_labels",
    "semantic_segments",
]

Segments = tuple[Tensor, Tensor]


def instance_segments(
    record: dict[str, Any], transforms: T.TransformList, image_size: tuple[int, int]
) -> Segments:
    """The objects of ``annotations`` that are no crowds.

    Args:
        record: loses its ``annotations``, whose segmentations are polygons or run lengths.
        transforms: what was done to the image.
        image_size: (H, W) after that.

    Raises:
        ValueError: the record has no ``annotations``, or one of them has no ``segmentation``.
    """
    moved = []
    for index, annotation in enumerate(taken(record, "annotations")):
        if annotation.get("iscrowd", 0):
            continue
        if not annotation.get("segmentation"):
            raise ValueError(
                f"annotation number {index} of {record['file_name']} has no segmentation, which "
                "training with masks needs; add it or leave the annotation out."
            )
        annotation.pop("keypoints", None)  # a mirrored one would need the names of its points
        moved.append(utils.transform_instance_annotations(annotation, transforms, image_size))
    if not moved:
        return torch.zeros(0, dtype=torch.int64), torch.zeros(0, *image_size, dtype=torch.bool)
    instances = utils.annotations_to_instances(moved, image_size, mask_format="bitmask")
    return instances.gt_classes, instances.gt_masks.tensor


def panoptic_segments(record: dict[str, Any], transforms: T.TransformList) -> Segments:
    """The segments of ``segments_info`` that are no crowds, things and stuff alike.

    Args:
        record: loses its ``pan_seg_file_name``, a PNG in which the id of a pixel's segment is
            R + 256 G + 256**2 B, and its ``segments_info``. It has ``height`` and ``width``.
        transforms: what was done to the image.

    Raises:
        ValueError: the record lacks one of the two, or the PNG has another size than the image.
        OSError: the PNG does not exist or cannot be decoded.
    """
    colors = read_labels(record, "pan_seg_file_name", "RGB")
    segments = [s for s in taken(record, "segments_info") if not s.get("iscrowd", 0)]
    moved = transforms.apply_segmentation(colors).astype(np.int32)
    ids = torch.from_numpy(moved @ np.array([1, 256, 256**2], dtype=np.int32))
    classes = torch.tensor([s["category_id"] for s in segments], dtype=torch.int64)
    wanted = torch.tensor([s["id"] for s in segments], dtype=torch.int32)
    return classes, ids[None] == wanted[:, None, None]


def semantic_segments(sem_seg: Tensor, ignore_label: int) -> Segments:
    """One segment per class that the labels (H, W) have, in the order of the classes."""
    classes = sem_seg.unique()
    classes = classes[classes != ignore_label]
    return classes, sem_seg[None] == classes[:, None, None]


def read_labels(record: dict[str, Any], key: str, img_format: str | None = None) -> np.ndarray:
    """The label image that a record names, as its file has it.

    Args:
        record: has ``height`` and ``width``; loses ``key``.
        key: whose value is the file's path.
        img_format: "RGB" for labels that are colors; None for one number per pixel.

    Raises:
        ValueError: the record has no such key, or the file has another size than the image.
        OSError: the file does not exist or cannot be decoded.
    """
    path, image = taken(record, key), record["file_name"]
    try:
        labels = utils.read_image(path, format=img_format)
    except FileNotFoundError as e:
        raise FileNotFoundError(
            f"{path}, the {key} of image {image}, does not exist; check the folders that the "
            "dataset was registered with."
        ) from e
    except (OSError, SyntaxError) as e:  # Pillow raises SyntaxError for a broken PNG
        raise OSError(
            f"{path}, the {key} of image {image}, cannot be read ({e}); repair it or leave that "
            "record out."
        ) from e
    if labels.ndim != (2 if img_format is None else 3):
        raise ValueError(
            f"{path}, the {key} of image {image}, has {labels.shape[-1]} numbers per pixel, where "
            "a label is one; save it as a gray image."
        )
    if labels.shape[:2] != (record["height"], record["width"]):
        raise ValueError(
            f"{path}, the {key} of image {image}, has {labels.shape[0]} x {labels.shape[1]} "
            f"pixels, the image {record['height']} x {record['width']}; make them agree."
        )
    return labels


def taken(record: dict[str, Any], key: str) -> Any:
    """The value that a record has for ``key``, which is taken out of it.

    Raises:
        ValueError: it has none.
    """
    if key not in record:
        raise ValueError(
            f"the record of {record['file_name']} has no {key}, which this mapper trains on; use a "
            "data set that has it, or another mapper."
        )
    return record.pop(key)

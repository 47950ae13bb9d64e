"""Instances in COCO's format under large-scale jitter (arXiv:2012.07177), as Mask2Former trains."""

from __future__ import annotations

from typing import Any

import numpy as np
from detectron2.data import transforms as T
from detectron2.structures import BitMasks
from torch import Tensor

from detrex.data.dataset_mappers.mask_dataset_mapper import MaskDatasetMapper
from detrex.data.dataset_mappers.segments import Segments, instance_segments

__all__ = [
    "COCOInstanceNewBaselineDatasetMapper",
    "build_transform_gen",
    "convert_coco_poly_to_mask",
]


def build_transform_gen(
    image_size: int = 1024,
    min_scale: float = 0.1,
    max_scale: float = 2.0,
    random_flip: str = "horizontal",
    is_train: bool = True,
) -> list[T.Augmentation]:
    """Large-scale jitter: flip, resize by a random factor, crop and pad to a square.

    Args:
        image_size: side of the square, in pixels.
        min_scale: smallest factor on the size at which the image just fits the square.
        max_scale: largest factor.
        random_flip: "horizontal", "vertical" or "none".
        is_train: must be true: evaluation resizes, and neither crops nor pads.

    Raises:
        ValueError: ``is_train`` is false, or ``random_flip`` is none of the three.
    """
    if not is_train:
        raise ValueError(
            "build_transform_gen makes the augmentation of training; for evaluation give the "
            "mapper augmentation=[ResizeShortestEdge(short_edge_length=800, max_size=1333)]."
        )
    if random_flip not in ("horizontal", "vertical", "none"):
        raise ValueError(f"random_flip is horizontal, vertical or none, not {random_flip!r}.")
    horizontal = random_flip == "horizontal"
    flip = [T.RandomFlip(horizontal=horizontal, vertical=not horizontal)]
    return [
        *(flip if random_flip != "none" else []),
        T.ResizeScale(
            min_scale=min_scale,
            max_scale=max_scale,
            target_height=image_size,
            target_width=image_size,
        ),
        T.FixedSizeCrop(crop_size=(image_size, image_size)),
    ]


class COCOInstanceNewBaselineDatasetMapper(MaskDatasetMapper):
    """Objects with masks, from records with ``annotations``.

    What it gives is said at ``MaskDatasetMapper``; ``image_format`` and ``augmentation`` are
    explained there, too.
    """

    def segments(
        self,
        record: dict[str, Any],
        transforms: T.TransformList,
        image_size: tuple[int, int],
        sem_seg: Tensor | None,
    ) -> Segments:
        """The objects of ``annotations`` that are no crowds."""
        return instance_segments(record, transforms, image_size)


def convert_coco_poly_to_mask(
    segmentations: list[list[np.ndarray]], height: int, width: int
) -> Tensor:
    """Polygons of N objects, each a list of parts [x0, y0, x1, y1, ...], as bool (N, H, W)."""
    return BitMasks.from_polygon_masks(segmentations, height, width).tensor

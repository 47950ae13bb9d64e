"""Data structures for the objects in images."""

from typing import Any

from detectron2._left_out import FULL_PACKAGE
from detectron2._left_out import explain_missing as _explain_missing
from detectron2.structures.boxes import (
    Boxes,
    BoxMode,
    matched_pairwise_iou,
    pairwise_intersection,
    pairwise_ioa,
    pairwise_iou,
    pairwise_point_box_distance,
)
from detectron2.structures.image_list import ImageList
from detectron2.structures.instances import Instances
from detectron2.structures.keypoints import Keypoints, heatmaps_to_keypoints
from detectron2.structures.masks import (
    BitMasks,
    PolygonMasks,
    ROIMasks,
    polygons_to_bitmask,
    rasterize_polygons_within_box,
)

__all__ = [
    "BitMasks",
    "BoxMode",
    "Boxes",
    "ImageList",
    "Instances",
    "Keypoints",
    "PolygonMasks",
    "ROIMasks",
    "RotatedBoxes",
    "heatmaps_to_keypoints",
    "matched_pairwise_iou",
    "pairwise_intersection",
    "pairwise_ioa",
    "pairwise_iou",
    "pairwise_point_box_distance",
    "polygons_to_bitmask",
    "rasterize_polygons_within_box",
]


class RotatedBoxes(Boxes):
    """Not part of this package: making some says so.

    It can be imported, since scripts and test-suites do so beside what they need.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError(
            "Rotated boxes are not part of detectron2-pure; install the full detectron2 "
            f"({FULL_PACKAGE}) to use them."
        )


__getattr__ = _explain_missing(__name__)

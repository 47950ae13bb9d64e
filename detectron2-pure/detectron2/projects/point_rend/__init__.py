"""Points instead of grids, for masks (PointRend, arXiv:1912.08193)."""

from typing import Any

from detectron2._left_out import explain as _explain
from detectron2.projects.point_rend.color_augmentation import ColorAugSSDTransform
from detectron2.projects.point_rend.point_features import (
    get_uncertain_point_coords_with_randomness,
    point_sample,
)

__all__ = [
    "ColorAugSSDTransform",
    "get_uncertain_point_coords_with_randomness",
    "point_sample",
]


def __getattr__(name: str) -> Any:
    return _explain(__name__, name)

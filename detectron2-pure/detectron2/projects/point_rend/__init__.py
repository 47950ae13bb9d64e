"""Points instead of grids, for masks (PointRend, arXiv:1912.08193)."""

from detectron2._left_out import explain_missing as _explain_missing
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

__getattr__ = _explain_missing(__name__)

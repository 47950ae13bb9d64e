"""detectron2's shape of a feature map, where the public detrex has it."""

from detectron2.layers import ShapeSpec

__all__ = ["ShapeSpec"]

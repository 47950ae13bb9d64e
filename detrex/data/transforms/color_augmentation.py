"""The change of colors by which SSD was trained (arXiv:1512.02325); detectron2 has it."""

from detectron2.projects.point_rend import ColorAugSSDTransform

__all__ = ["ColorAugSSDTransform"]

"""Parts of detection models."""

from typing import Any

from detectron2._left_out import explain as _explain
from detectron2.layers.shape_spec import ShapeSpec
from detectron2.modeling.backbone import BACKBONE_REGISTRY, Backbone, build_backbone

__all__ = ["BACKBONE_REGISTRY", "Backbone", "ShapeSpec", "build_backbone"]


def __getattr__(name: str) -> Any:
    return _explain(__name__, name)

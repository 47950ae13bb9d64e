"""Backbones."""

from typing import Any

from detectron2._left_out import explain as _explain
from detectron2.modeling.backbone.backbone import Backbone
from detectron2.modeling.backbone.build import BACKBONE_REGISTRY, build_backbone

__all__ = ["BACKBONE_REGISTRY", "Backbone", "build_backbone"]


def __getattr__(name: str) -> Any:
    return _explain(__name__, name)

"""Backbones by name, for configs in yacs style."""

from __future__ import annotations

from typing import Any

from detectron2.layers.shape_spec import ShapeSpec
from detectron2.modeling.backbone.backbone import Backbone
from detectron2.utils.registry import Registry

BACKBONE_REGISTRY = Registry("BACKBONE")
BACKBONE_REGISTRY.__doc__ = "Callables ``(cfg, input_shape) -> Backbone`` by name."


def build_backbone(cfg: Any, input_shape: ShapeSpec | None = None) -> Backbone:
    """The backbone registered as ``cfg.MODEL.BACKBONE.NAME``.

    ``input_shape`` defaults to one channel per entry of ``cfg.MODEL.PIXEL_MEAN``.
    """
    if input_shape is None:
        input_shape = ShapeSpec(channels=len(cfg.MODEL.PIXEL_MEAN))
    name = cfg.MODEL.BACKBONE.NAME
    backbone = BACKBONE_REGISTRY.get(name)(cfg, input_shape)
    if not isinstance(backbone, Backbone):
        raise TypeError(f"The backbone {name!r} is a {type(backbone).__name__}, not a Backbone.")
    return backbone

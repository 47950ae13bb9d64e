"""Feature extractors that return maps by name, on detectron2's ``Backbone`` interface."""

from .feature_pyramid import SimpleFeaturePyramid
from .folding import fold_frozen_norms
from .resnet import (
    BasicBlock,
    BasicStem,
    BottleneckBlock,
    DeformBottleneckBlock,
    ResNet,
    make_stage,
)
from .timm_backbone import TimmBackbone
from .torchvision_backbone import TorchvisionBackbone
from .vitdet import ViTDet

__all__ = [
    "BasicBlock",
    "BasicStem",
    "BottleneckBlock",
    "DeformBottleneckBlock",
    "ResNet",
    "SimpleFeaturePyramid",
    "TimmBackbone",
    "TorchvisionBackbone",
    "ViTDet",
    "fold_frozen_norms",
    "make_stage",
]

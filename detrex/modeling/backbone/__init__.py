"""Feature extractors that return maps by name, on detectron2's ``Backbone`` interface."""

from detectron2.modeling.backbone import SimpleFeaturePyramid, get_vit_lr_decay_rate

from detrex.modeling.backbone.convnext import ConvNeXt
from detrex.modeling.backbone.eva import EVAViT
from detrex.modeling.backbone.eva_02 import EVA02_ViT
from detrex.modeling.backbone.feature_pyramid import FeaturePyramid
from detrex.modeling.backbone.focalnet import FocalNet
from detrex.modeling.backbone.folding import fold_frozen_norms
from detrex.modeling.backbone.internimage import InternImage
from detrex.modeling.backbone.resnet import (
    BasicBlock,
    BasicStem,
    BottleneckBlock,
    DeformBottleneckBlock,
    ResNet,
    make_stage,
)
from detrex.modeling.backbone.timm_backbone import TimmBackbone
from detrex.modeling.backbone.torchvision_backbone import TorchvisionBackbone
from detrex.modeling.backbone.torchvision_resnet import TorchvisionResNet
from detrex.modeling.backbone.vitdet import ViTDet

__all__ = [
    "BasicBlock",
    "BasicStem",
    "BottleneckBlock",
    "ConvNeXt",
    "DeformBottleneckBlock",
    "EVA02_ViT",
    "EVAViT",
    "FeaturePyramid",
    "FocalNet",
    "InternImage",
    "ResNet",
    "SimpleFeaturePyramid",
    "TimmBackbone",
    "TorchvisionBackbone",
    "TorchvisionResNet",
    "ViTDet",
    "fold_frozen_norms",
    "get_vit_lr_decay_rate",
    "make_stage",
]

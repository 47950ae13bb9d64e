"""Parts of detection models."""

from detectron2._left_out import explain_missing as _explain_missing
from detectron2.modeling.backbone import (
    BACKBONE_REGISTRY,
    FPN,
    Backbone,
    BasicBlock,
    BasicStem,
    BottleneckBlock,
    DeformBottleneckBlock,
    LastLevelMaxPool,
    LastLevelP6P7,
    ResNet,
    ResNetBlockBase,
    ShapeSpec,
    SimpleFeaturePyramid,
    SwinTransformer,
    ViT,
    build_backbone,
    get_vit_lr_decay_rate,
    make_stage,
)
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.meta_arch import (
    META_ARCH_REGISTRY,
    SEM_SEG_HEADS_REGISTRY,
    build_model,
    build_sem_seg_head,
)
from detectron2.modeling.postprocessing import detector_postprocess, sem_seg_postprocess
from detectron2.modeling.sampling import subsample_labels

__all__ = [
    "BACKBONE_REGISTRY",
    "FPN",
    "META_ARCH_REGISTRY",
    "SEM_SEG_HEADS_REGISTRY",
    "Backbone",
    "BasicBlock",
    "BasicStem",
    "BottleneckBlock",
    "DeformBottleneckBlock",
    "LastLevelMaxPool",
    "LastLevelP6P7",
    "Matcher",
    "ResNet",
    "ResNetBlockBase",
    "ShapeSpec",
    "SimpleFeaturePyramid",
    "SwinTransformer",
    "ViT",
    "build_backbone",
    "build_model",
    "build_sem_seg_head",
    "detector_postprocess",
    "get_vit_lr_decay_rate",
    "make_stage",
    "sem_seg_postprocess",
    "subsample_labels",
]

__getattr__ = _explain_missing(__name__)

"""One recipe of each family of models, and how to make it small enough to train in seconds."""

from __future__ import annotations

import zoo
from detectron2.config import LazyCall
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone
from omegaconf import DictConfig
from torch import Tensor, nn

FAMILIES = {
    "detr": "detr/detr_r50_300ep.py",
    "conditional_detr": "conditional_detr/conditional_detr_r50_50ep.py",
    "dab_detr": "dab_detr/dab_detr_r50_50ep.py",
    "dn_detr": "dn_detr/dn_detr_r50_50ep.py",
    "group_detr": "group_detr/group_detr_r50_50ep.py",
    "deformable_detr": "deformable_detr/deformable_detr_r50_50ep.py",
    "deformable_detr_refine": ("deformable_detr/deformable_detr_r50_with_box_refinement_50ep.py"),
    "deformable_detr_two_stage": "deformable_detr/deformable_detr_r50_two_stage_50ep.py",
    "dab_deformable_detr": "dab_deformable_detr/dab_deformable_detr_r50_50ep.py",
    "dab_deformable_detr_two_stage": (
        "dab_deformable_detr/dab_deformable_detr_r50_two_stage_50ep.py"
    ),
    "dn_deformable_detr": "dn_deformable_detr/dn_deformable_detr_r50_50ep.py",
    "h_deformable_detr": "h_deformable_detr/h_deformable_detr_r50_50ep.py",
    "h_deformable_detr_two_stage": ("h_deformable_detr/h_deformable_detr_r50_two_stage_12ep.py"),
    "dino": "dino/dino-resnet/dino_r50_4scale_12ep.py",
    "stable_dino": "stable_dino/stable_dino_r50_4scale_12ep.py",
}


class ToyBackbone(Backbone):
    """A convolution with a norm for each map; of strides 8, 16 and 32, or the first of these."""

    def __init__(self, levels: int = 3, width: int = 32):
        super().__init__()
        self.stem = self.block(3, width, 4)
        names = ("res3", "res4", "res5")[:levels]
        self.stages = nn.ModuleDict({name: self.block(width, width, 2) for name in names})
        self.width = width

    @staticmethod
    def block(channels: int, width: int, stride: int) -> nn.Module:
        convolution = nn.Conv2d(channels, width, stride + 1, stride, padding=stride // 2)
        return nn.Sequential(convolution, nn.GroupNorm(4, width), nn.ReLU())

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.stem(x)
        maps = {}
        for name, stage in self.stages.items():
            maps[name] = x = stage(x)
        return maps

    def output_shape(self) -> dict[str, ShapeSpec]:
        strides = {"res3": 8, "res4": 16, "res5": 32}
        return {name: ShapeSpec(self.width, stride=strides[name]) for name in self.stages}

    @property
    def size_divisibility(self) -> int:
        return 32


def tiny(model: DictConfig, embed_dim: int = 64, num_classes: int = 3) -> DictConfig:
    """One encoder and two decoder layers; single-level models look at the maps of stride 8."""
    zoo.shrink(model)
    model.update(embed_dim=embed_dim, num_classes=num_classes)
    model.backbone = LazyCall(ToyBackbone)()
    if model.neck.get("in_features"):
        model.backbone.levels = 1
        model.neck.in_features = ["res3"]
    else:
        model.neck.norm_layer.num_groups = 8  # maps of one cell need more than a channel each
    for part in (model.transformer.encoder, model.transformer.decoder):
        part.layer.feedforward_dim = 2 * embed_dim
    model.transformer.encoder.num_layers = 1
    return model

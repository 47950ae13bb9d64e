"""All recipes of the project, and how to build any of their models small."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from detectron2.config import instantiate
from detectron2.structures import Boxes, Instances
from omegaconf import DictConfig
from small_backbones import shrink_timm
from torch import nn

from detrex.config import get_config

CONFIGS = Path(__file__).parents[1] / "configs"
RECIPES = sorted(
    str(path.relative_to(CONFIGS))
    for path in CONFIGS.rglob("*.py")
    if path.parent.name != "models" and path.relative_to(CONFIGS).parts[0] != "common"
)

_SIZE_OR_LENGTH = re.compile(r"_(tiny|small|base|large|lrf|fl\d|224|384|\d+ep)(?=[_.])")
MODELS = list({_SIZE_OR_LENGTH.sub("", recipe): recipe for recipe in RECIPES}.values())
"""One recipe of each kind of model: those for other sizes and durations are the same once small."""


def shrink(model: DictConfig) -> DictConfig:
    """Few classes, queries, channels and layers; a shallow backbone where that is one number."""
    model.update(num_classes=3, num_queries=12, embed_dim=64)
    for part in (model.transformer.encoder, model.transformer.decoder):
        part.num_layers = min(2, part.num_layers)
        part.layer.update(feedforward_dim=32, dropout=0.0)
    queries, groups = model.transformer.queries, model.transformer.groups
    if "one_to_many" in groups:
        queries.num_queries = 3 * model.num_queries
    if "num_patterns" in queries:
        model.num_queries //= queries.num_patterns
    if "copies" in groups:
        groups.copies.num_groups = 2
    if "denoising" in groups and "num_pairs" in groups.denoising:
        groups.denoising.num_pairs = 4
    if "stages" in model.backbone:  # 101 random layers whose norms do nothing end in infinity
        model.backbone.stages.depth = 50 if "res5_dilation" in model.backbone.stages else 18
    if "model_name" in model.backbone:
        shrink_timm(model.backbone)
    return model


def small_model(recipe: str, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return instantiate(shrink(get_config(recipe).model))


def image(
    height: int, width: int, boxes: list[tuple[float, ...]], classes: list[int], seed: int = 0
) -> dict[str, Any]:
    """A batch entry with random pixels; boxes are xyxy in pixels."""
    instances = Instances((height, width))
    instances.gt_boxes = Boxes(torch.tensor(boxes).reshape(-1, 4))
    instances.gt_classes = torch.tensor(classes, dtype=torch.long)
    pixels = torch.randint(0, 256, (3, height, width), generator=torch.manual_seed(seed))
    return {
        "image": pixels.to(torch.uint8),
        "height": height,
        "width": width,
        "instances": instances,
    }

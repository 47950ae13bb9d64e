"""Backbones that upstream wrote by hand, as ``TimmBackbone``, and what was measured on them.

``reference/backbones/keys.json.gz`` has the names and shapes of their parameters within a detector;
``statistics.npz`` mean, standard deviation and the first eight values of their outputs for the
batch of :mod:`reference_models`; ``small.npz`` whole outputs of small networks. Weights follow
:mod:`reference_recipe`.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.modeling import Backbone
from reference_recipe import recipe_value
from torch import Tensor

from detrex.modeling.backbone import TimmBackbone, ViTDet

FOLDER = Path(__file__).parent / "reference" / "backbones"


def _timm(model_name: str, levels: tuple[int, ...], **more: Any) -> dict[str, Any]:
    return {"model_name": model_name, "out_indices": levels, "level_norm": True, **more}


def _swin(size: str, levels: tuple[int, ...], drop_path_rate: float) -> dict[str, Any]:
    name, window, side = size.split("_")
    model_name = f"swin_{name}_patch4_window{window}_{side}"
    return _timm(model_name, levels, always_partition=True, drop_path_rate=drop_path_rate)


ARGUMENTS = {
    "dab_detr_swin_tiny": _swin("tiny_7_224", (3,), 0.1),
    "dab_detr_swin_base": _swin("base_7_224", (3,), 0.4),
    "dino_swin_tiny_224": _swin("tiny_7_224", (1, 2, 3), 0.1),
    "dino_swin_small_224": _swin("small_7_224", (1, 2, 3), 0.2),
    "dino_swin_base_384": _swin("base_12_384", (1, 2, 3), 0.2),
    "dino_swin_large_224": _swin("large_7_224", (1, 2, 3), 0.2),
    "dino_swin_large_384": _swin("large_12_384", (1, 2, 3), 0.2),
    "dino_swin_large_384_5scale": _swin("large_12_384", (0, 1, 2, 3), 0.2),
    "h_deformable_detr_swin_tiny_two_stage": _swin("tiny_7_224", (1, 2, 3), 0.2),
    "h_deformable_detr_swin_large_two_stage": _swin("large_7_224", (1, 2, 3), 0.2),
    "deta_swin_large": _swin("large_12_384", (1, 2, 3), 0.2),
    "dino_convnext_tiny_384": _timm("convnext_tiny", (1, 2, 3), drop_path_rate=0.0),
    "dino_convnext_small_384": _timm("convnext_small", (1, 2, 3), drop_path_rate=0.0),
    "dino_convnext_base_384": _timm("convnext_base", (1, 2, 3), drop_path_rate=0.0),
    "dino_convnext_large_384": _timm("convnext_large", (1, 2, 3), drop_path_rate=0.0),
    "dino_focal_tiny_lrf_fl3": _timm("focalnet_tiny_lrf", (1, 2, 3), drop_path_rate=0.1),
    "dino_focal_small_lrf_fl3": _timm("focalnet_small_lrf", (1, 2, 3), drop_path_rate=0.1),
    "dino_focal_base_lrf_fl3": _timm("focalnet_base_lrf", (1, 2, 3), drop_path_rate=0.1),
    "dino_focal_large_lrf_384_fl3": _timm("focalnet_large_fl3", (1, 2, 3)),
    "dino_focal_large_lrf_384_fl4": _timm("focalnet_large_fl4", (1, 2, 3)),
    "dino_focal_large_lrf_384_fl4_5scale": _timm("focalnet_large_fl4", (0, 1, 2, 3)),
    "dino_vitdet_base": {"model_name": "samvit_base_patch16", "drop_path_rate": 0.1},
    "dino_vitdet_large": {"model_name": "samvit_large_patch16", "drop_path_rate": 0.4},
}
"""Arguments of ``TimmBackbone``, or ``ViTDet``, for the backbones of the reference's detectors."""


def build(detector: str) -> Backbone:
    """The backbone of one of the reference's detectors, with random weights."""
    network = ViTDet if "vitdet" in detector else TimmBackbone
    return network(**ARGUMENTS[detector])


def names_and_shapes(detector: str) -> dict[str, dict[str, list[int]]]:
    """``parameters`` and ``buffers`` of a detector's backbone: shapes by name."""
    return json.loads(gzip.decompress((FOLDER / "keys.json.gz").read_bytes()))[detector]


def weights(detector: str) -> dict[str, Tensor]:
    """The reference's parameters of a backbone, under the reference's names."""
    shapes = names_and_shapes(detector)["parameters"]
    return {name: torch.from_numpy(recipe_value(name, tuple(s))) for name, s in shapes.items()}


def statistics(detector: str) -> dict[str, Tensor]:
    """Mean, standard deviation and the first eight values of each of a backbone's outputs."""
    with np.load(FOLDER / "statistics.npz") as arrays:
        return {
            name.removeprefix(f"{detector}."): torch.from_numpy(values)
            for name, values in arrays.items()
            if name.startswith(f"{detector}.")
        }


def small(network: str) -> dict[str, Tensor]:
    """Outputs of a small network for ``RandomState(18).standard_normal((1, 3, 70, 90))``."""
    with np.load(FOLDER / "small.npz") as arrays:
        return {
            name.removeprefix(f"{network}."): torch.from_numpy(values)
            for name, values in arrays.items()
            if name.startswith(f"{network}.")
        }

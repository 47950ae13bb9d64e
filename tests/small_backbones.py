"""Networks of timm made small without leaving their family, for tests of whole detectors."""

from __future__ import annotations

from omegaconf import DictConfig

_PLAIN = {"embed_dim": 48, "num_heads": 3, "depth": 3}
_SMALL = {
    "convnext_": {"model_name": "convnext_atto", "depths": (1, 1, 1, 1), "dims": (8, 8, 16, 16)},
    "eva02_": {"model_name": "eva02_tiny_patch14_224", **_PLAIN},
    "focalnet_": {"model_name": "focalnet_tiny_srf", "mlp_ratio": 0.25},
    "ghostnet": {},
    "resnet": {"model_name": "resnet18d"},
    "samvit_": {**_PLAIN, "global_attn_indexes": (2,)},
    "swin_": {
        "model_name": "swin_tiny_patch4_window7_224",
        "depths": (1, 1, 1, 1),
        "embed_dim": 12,
        "num_heads": (1, 1, 2, 2),
    },
    "tf_efficientnet_": {"model_name": "tf_efficientnet_lite0"},
    "vit_": _PLAIN,
}
"""By the beginning of a network's name: arguments that make it small, or a small relative."""


def shrink_timm(backbone: DictConfig) -> None:
    """Make a ``TimmBackbone`` node small, with random weights."""
    family = [prefix for prefix in _SMALL if backbone.model_name.startswith(prefix)]
    assert family, f"say in _SMALL how to make {backbone.model_name} small"
    backbone.update({**_SMALL[family[0]], "pretrained": False, "pyramid_channels": 32})

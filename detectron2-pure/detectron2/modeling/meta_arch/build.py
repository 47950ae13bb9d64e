"""Models by name, for configs in yacs style."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.utils.registry import Registry
from torch import nn

META_ARCH_REGISTRY = Registry("META_ARCH")
META_ARCH_REGISTRY.__doc__ = "Callables ``(cfg) -> nn.Module`` by name."


def build_model(cfg: Any) -> nn.Module:
    """The model registered as ``cfg.MODEL.META_ARCHITECTURE``, on ``cfg.MODEL.DEVICE``.

    It is built without weights.
    """
    model = META_ARCH_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE)(cfg)
    return model.to(torch.device(cfg.MODEL.DEVICE))

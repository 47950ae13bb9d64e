"""Parameter groups and learning-rate schedules."""

from typing import Any

from detectron2._left_out import explain as _explain
from torch.optim.lr_scheduler import LRScheduler

from .build import (
    build_lr_scheduler,
    build_optimizer,
    get_default_optimizer_params,
    maybe_add_gradient_clipping,
)
from .lr_scheduler import LRMultiplier, WarmupParamScheduler

__all__ = [
    "LRMultiplier",
    "LRScheduler",
    "WarmupParamScheduler",
    "build_lr_scheduler",
    "build_optimizer",
    "get_default_optimizer_params",
    "maybe_add_gradient_clipping",
]


def __getattr__(name: str) -> Any:
    return _explain(__name__, name)

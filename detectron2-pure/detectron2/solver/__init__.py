"""Parameter groups and learning-rate schedules."""

from typing import Any

from detectron2._left_out import explain as _explain
from detectron2.solver.build import (
    build_lr_scheduler,
    build_optimizer,
    get_default_optimizer_params,
    maybe_add_gradient_clipping,
)
from detectron2.solver.lr_scheduler import LRMultiplier, WarmupParamScheduler
from torch.optim.lr_scheduler import LRScheduler

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

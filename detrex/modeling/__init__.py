"""Models and what they are made of.

Names of the rooms below can be imported from here, as from the public detrex; a room is imported
when one of its names is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from detrex.modeling.backbone import (
        BasicBlock,
        BasicStem,
        BottleneckBlock,
        DeformBottleneckBlock,
        ResNet,
        TimmBackbone,
        TorchvisionBackbone,
        make_stage,
    )
    from detrex.modeling.criterion import BaseCriterion, SetCriterion
    from detrex.modeling.losses import (
        CrossEntropyLoss,
        DiceLoss,
        FocalLoss,
        GIoULoss,
        L1Loss,
        SmoothL1Loss,
        cross_entropy,
        dice_loss,
        giou_loss,
        l1_loss,
        sigmoid_focal_loss,
        smooth_l1_loss,
    )
    from detrex.modeling.matcher import (
        CrossEntropyCost,
        FocalLossCost,
        GIoUCost,
        HungarianMatcher,
        L1Cost,
    )
    from detrex.modeling.neck import ChannelMapper

_ROOMS = {
    "BaseCriterion": "criterion",
    "BasicBlock": "backbone",
    "BasicStem": "backbone",
    "BottleneckBlock": "backbone",
    "ChannelMapper": "neck",
    "CrossEntropyCost": "matcher",
    "CrossEntropyLoss": "losses",
    "DeformBottleneckBlock": "backbone",
    "DiceLoss": "losses",
    "FocalLoss": "losses",
    "FocalLossCost": "matcher",
    "GIoUCost": "matcher",
    "GIoULoss": "losses",
    "HungarianMatcher": "matcher",
    "L1Cost": "matcher",
    "L1Loss": "losses",
    "ResNet": "backbone",
    "SetCriterion": "criterion",
    "SmoothL1Loss": "losses",
    "TimmBackbone": "backbone",
    "TorchvisionBackbone": "backbone",
    "cross_entropy": "losses",
    "dice_loss": "losses",
    "giou_loss": "losses",
    "l1_loss": "losses",
    "make_stage": "backbone",
    "sigmoid_focal_loss": "losses",
    "smooth_l1_loss": "losses",
}

__all__ = [
    "BaseCriterion",
    "BasicBlock",
    "BasicStem",
    "BottleneckBlock",
    "ChannelMapper",
    "CrossEntropyCost",
    "CrossEntropyLoss",
    "DeformBottleneckBlock",
    "DiceLoss",
    "FocalLoss",
    "FocalLossCost",
    "GIoUCost",
    "GIoULoss",
    "HungarianMatcher",
    "L1Cost",
    "L1Loss",
    "ResNet",
    "SetCriterion",
    "SmoothL1Loss",
    "TimmBackbone",
    "TorchvisionBackbone",
    "cross_entropy",
    "dice_loss",
    "giou_loss",
    "l1_loss",
    "make_stage",
    "sigmoid_focal_loss",
    "smooth_l1_loss",
]


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_ROOMS[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_ROOMS})

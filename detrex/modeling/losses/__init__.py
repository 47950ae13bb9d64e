"""Loss functions, and the same as modules with a weight and a reduction."""

from .functional import (
    cross_entropy,
    dice_loss,
    giou_loss,
    l1_loss,
    reduce_loss,
    sigmoid_focal_loss,
    smooth_l1_loss,
)
from .modules import (
    CrossEntropyLoss,
    DiceLoss,
    FocalLoss,
    GIoULoss,
    L1Loss,
    SmoothL1Loss,
)

__all__ = [
    "CrossEntropyLoss",
    "DiceLoss",
    "FocalLoss",
    "GIoULoss",
    "L1Loss",
    "SmoothL1Loss",
    "cross_entropy",
    "dice_loss",
    "giou_loss",
    "l1_loss",
    "reduce_loss",
    "sigmoid_focal_loss",
    "smooth_l1_loss",
]

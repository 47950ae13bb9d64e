"""Losses: terms of a criterion, and functions and modules on plain tensors.

A **term** (:mod:`~detrex.modeling.losses.class_losses`, :mod:`~detrex.modeling.losses.box_losses`)
sees the matched pairs of a step and is given to ``SetCriterion``. The **functions** and the modules
around them take ``preds`` and ``targets``, as those of the public detrex.
"""

from detrex.modeling.losses.box_losses import BoxGIoULoss, BoxL1Loss
from detrex.modeling.losses.class_losses import (
    FocalClassLoss,
    IoUAwareClassLoss,
    MatchabilityClassLoss,
    QualityFocalClassLoss,
    SigmoidClassLoss,
    SoftmaxClassLoss,
    VarifocalClassLoss,
)
from detrex.modeling.losses.functional import (
    bce_with_logits,
    cross_entropy,
    dice_loss,
    focal_loss_of_negatives,
    giou_loss,
    l1_loss,
    reduce_loss,
    sigmoid_focal_loss,
    smooth_l1_loss,
)
from detrex.modeling.losses.modules import (
    CrossEntropyLoss,
    DiceLoss,
    FocalLoss,
    GIoULoss,
    L1Loss,
    SmoothL1Loss,
)

__all__ = [
    "BoxGIoULoss",
    "BoxL1Loss",
    "CrossEntropyLoss",
    "DiceLoss",
    "FocalClassLoss",
    "FocalLoss",
    "GIoULoss",
    "IoUAwareClassLoss",
    "L1Loss",
    "MatchabilityClassLoss",
    "QualityFocalClassLoss",
    "SigmoidClassLoss",
    "SmoothL1Loss",
    "SoftmaxClassLoss",
    "VarifocalClassLoss",
    "bce_with_logits",
    "cross_entropy",
    "dice_loss",
    "focal_loss_of_negatives",
    "giou_loss",
    "l1_loss",
    "reduce_loss",
    "sigmoid_focal_loss",
    "smooth_l1_loss",
]

"""Losses: terms of a criterion, and functions and modules on plain tensors.

A **term** (:mod:`~detrex.modeling.losses.class_losses`, :mod:`~detrex.modeling.losses.box_losses`)
sees the matched pairs of a step and is given to ``SetCriterion``. The **functions** and the modules
around them take ``preds`` and ``targets``, as those of the public detrex, and its modules
(``dice_loss.py``, ...), which some functions are called as, are imported here before these are.
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
from detrex.modeling.losses.cross_entropy_loss import CrossEntropyLoss, cross_entropy
from detrex.modeling.losses.dice_loss import DiceLoss, dice_loss
from detrex.modeling.losses.focal_loss import FocalLoss, focal_loss_with_prob
from detrex.modeling.losses.functional import (
    bce_with_logits,
    focal_loss_of_negatives,
    l1_loss,
    reduce_loss,
    sigmoid_focal_loss,
)
from detrex.modeling.losses.giou_loss import GIoULoss, giou_loss
from detrex.modeling.losses.modules import L1Loss
from detrex.modeling.losses.smooth_l1_loss import SmoothL1Loss, smooth_l1_loss

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
    "focal_loss_with_prob",
    "giou_loss",
    "l1_loss",
    "reduce_loss",
    "sigmoid_focal_loss",
    "smooth_l1_loss",
]

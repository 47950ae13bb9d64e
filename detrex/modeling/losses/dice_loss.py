"""The dice loss where the public detrex has it."""

from detrex.modeling.losses.functional import dice_loss
from detrex.modeling.losses.modules import DiceLoss

__all__ = ["DiceLoss", "dice_loss"]

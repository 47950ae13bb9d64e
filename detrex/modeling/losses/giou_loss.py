"""The loss of generalized IoU where the public detrex has it."""

from detrex.modeling.losses.functional import giou_loss
from detrex.modeling.losses.modules import GIoULoss

__all__ = ["GIoULoss", "giou_loss"]

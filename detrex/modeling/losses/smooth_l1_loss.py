"""Losses of absolute differences where the public detrex has them."""

from detrex.modeling.losses.functional import l1_loss, smooth_l1_loss
from detrex.modeling.losses.modules import L1Loss, SmoothL1Loss

__all__ = ["L1Loss", "SmoothL1Loss", "l1_loss", "smooth_l1_loss"]

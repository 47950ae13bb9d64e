"""Weights and reduction of a loss where the public detrex has them."""

from detrex.modeling.losses.functional import reduce_loss as weight_reduce_loss

__all__ = ["weight_reduce_loss"]

"""Small helpers that everything else may use."""

from detrex.utils.misc import at_least_float32, inverse_sigmoid, softplus

__all__ = ["at_least_float32", "inverse_sigmoid", "softplus"]

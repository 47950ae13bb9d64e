"""Layer normalization where the public detrex has it."""

from detrex.layers.norm import LayerNorm

__all__ = ["LayerNorm"]

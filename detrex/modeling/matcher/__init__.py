"""Which query answers for which target."""

from detrex.modeling.matcher.costs import (
    BoxL1Cost,
    Candidates,
    FocalCost,
    GIoUCost,
    SoftmaxCost,
)
from detrex.modeling.matcher.matcher import HungarianMatcher

__all__ = [
    "BoxL1Cost",
    "Candidates",
    "FocalCost",
    "GIoUCost",
    "HungarianMatcher",
    "SoftmaxCost",
]

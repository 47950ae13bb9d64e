"""Softmax cross-entropy where the public detrex has it."""

from detrex.modeling.losses.functional import cross_entropy
from detrex.modeling.losses.modules import CrossEntropyLoss

__all__ = ["CrossEntropyLoss", "cross_entropy"]

"""The training losses of a set of predictions."""

from .criterion import SetCriterion

__all__ = ["SetCriterion"]

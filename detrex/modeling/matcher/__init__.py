"""Which query answers for which target."""

from .matcher import HungarianMatcher

__all__ = ["HungarianMatcher"]

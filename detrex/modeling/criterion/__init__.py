"""What predictions are compared with, and how."""

from detrex.modeling.criterion.criterion import SetCriterion
from detrex.modeling.pairs import MatchedPairs, Step, match_pairs

__all__ = ["MatchedPairs", "SetCriterion", "Step", "match_pairs"]

"""What predictions are compared with, and how."""

from detrex.modeling.criterion.base_criterion import BaseCriterion
from detrex.modeling.criterion.core import Criterion
from detrex.modeling.criterion.criterion import SetCriterion
from detrex.modeling.pairs import MatchedPairs, Step, match_pairs

__all__ = ["BaseCriterion", "Criterion", "MatchedPairs", "SetCriterion", "Step", "match_pairs"]

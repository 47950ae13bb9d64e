"""Which query answers for which target.

``FocalLossCost``, ``CrossEntropyCost``, ``L1Cost`` and ``GIoUCost`` are for ``ModifedMatcher``; the
costs of ``HungarianMatcher`` see all images at once (:mod:`detrex.modeling.matcher.costs`).
"""

from detrex.modeling.matcher.costs import BoxGIoUCost, BoxL1Cost, Candidates, FocalCost, SoftmaxCost
from detrex.modeling.matcher.match_cost import CrossEntropyCost, FocalLossCost, GIoUCost, L1Cost
from detrex.modeling.matcher.matcher import HungarianMatcher
from detrex.modeling.matcher.modified_matcher import HungarianMatcher as ModifedMatcher

__all__ = [
    "BoxGIoUCost",
    "BoxL1Cost",
    "Candidates",
    "CrossEntropyCost",
    "FocalCost",
    "FocalLossCost",
    "GIoUCost",
    "HungarianMatcher",
    "L1Cost",
    "ModifedMatcher",
    "SoftmaxCost",
]

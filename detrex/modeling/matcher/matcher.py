"""Hungarian matching of queries and targets, for all predictions of a step at once.

Source: "End-to-End Object Detection with Transformers", arXiv:2005.12872.

Letters: ``B`` images, ``Q`` queries, ``K`` classes, ``T`` the most targets of an image.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from detrex.modeling.matcher.costs import (
    BoxGIoUCost,
    BoxL1Cost,
    Candidates,
    FocalCost,
    PaddedTargets,
    SoftmaxCost,
)
from detrex.modeling.predictions import Indices, Prediction, Targets, all_own_targets
from detrex.utils.nonfinite import NonFinite, hand_over

logger = logging.getLogger(__name__)

COST_CLASS_TYPES = ("ce_cost", "focal_loss_cost")


class HungarianMatcher(nn.Module):
    """Finds the one-to-one assignment of least cost between the queries and targets of an image.

    A cost is a module ``cost(candidates) -> (B, Q, T)``, of every query for every target
    (:class:`~detrex.modeling.matcher.Candidates`). Their sum counts, each times its ``weight``.

    Args:
        cost_class: weight of the classification cost.
        cost_bbox: weight of the L1 distance of boxes (normalized cxcywh).
        cost_giou: weight of the negative generalized IoU.
        cost_class_type, alpha, gamma: the classification cost in short, where ``class_cost`` is
            not given: ``"focal_loss_cost"`` for sigmoid scores is :class:`.FocalCost` with
            ``alpha`` and ``gamma``, ``"ce_cost"`` for softmax scores is :class:`.SoftmaxCost`.
        class_cost: the classification cost (:mod:`detrex.modeling.matcher.costs`).
        terms: all other costs, each with a ``weight``; if not given :class:`.BoxL1Cost` and
            :class:`.BoxGIoUCost` with the weights above.
    """

    def __init__(
        self,
        cost_class: float = 1,
        cost_bbox: float = 1,
        cost_giou: float = 1,
        cost_class_type: str = "focal_loss_cost",
        alpha: float = 0.25,
        gamma: float = 2.0,
        class_cost: nn.Module | None = None,
        terms: Iterable[nn.Module] | None = None,
    ) -> None:
        super().__init__()
        if terms is None and cost_class == 0 and cost_bbox == 0 and cost_giou == 0:
            raise ValueError("cost_class, cost_bbox and cost_giou are all 0: nothing to match by.")
        if cost_class_type not in COST_CLASS_TYPES:
            raise ValueError(
                f"cost_class_type is {cost_class_type!r}, but must be one of {COST_CLASS_TYPES}."
            )
        if class_cost is None:
            softmax = cost_class_type == "ce_cost"
            class_cost = SoftmaxCost() if softmax else FocalCost(alpha, gamma)
        if terms is None:
            terms = [BoxL1Cost(cost_bbox), BoxGIoUCost(cost_giou)]
        self.cost_class = cost_class
        self.cost_bbox = cost_bbox  # these are for subclasses to read; terms hold what counts
        self.cost_giou = cost_giou
        self.cost_class_type = cost_class_type
        self.alpha = alpha
        self.gamma = gamma
        self.class_cost = class_cost
        self.terms = nn.ModuleList(terms)
        self.nonfinite_steps = 0  # calls that met a cost that is NaN or infinite

    def forward(self, outputs: Mapping[str, Tensor], targets: Targets) -> Indices:
        """Matches one dictionary of ``pred_logits (B, Q, K)`` and ``pred_boxes (B, Q, 4)``.

        Returns:
            per image (queries in ascending order, their targets), int64 on the CPU.
        """
        prediction = Prediction(outputs["pred_logits"], outputs["pred_boxes"])
        return self.match([prediction], targets)[0]

    @torch.no_grad()
    def match(self, predictions: Sequence[Prediction], targets: Targets) -> list[Indices]:
        """Matches all predictions with one copy from the device.

        Args:
            predictions: numbers of queries may differ; one with ``indices`` keeps them.
            targets: those of the batch, for predictions without their own.

        Returns:
            per prediction the matches as :meth:`forward` returns them.
        """
        pending = [p for p in predictions if p.supervision.indices is None]
        found = iter(self._assign(pending, targets))
        known = [p.supervision.indices for p in predictions]
        return [next(found) if indices is None else indices for indices in known]

    def _assign(self, predictions: list[Prediction], targets: Targets) -> list[Indices]:
        if not predictions:
            return []
        own = all_own_targets(predictions, targets)
        padded = {key: PaddedTargets(t) for key, t in {id(t): t for t in own}.items()}
        costs = [self._sum(p, padded[id(t)]) for p, t in zip(predictions, own, strict=True)]
        flat = torch.cat([c.flatten() for c in costs]).cpu()  # the one copy from the device
        parts = flat.split([c.numel() for c in costs])
        matches, trouble = [], {}
        for i, part in enumerate(parts):
            images = zip(part.view(costs[i].shape).numpy(), own[i], strict=True)
            blocks = [block[:, : len(target["labels"])] for block, target in images]
            bad = [image for image, block in enumerate(blocks) if not np.isfinite(block).all()]
            if bad:
                trouble[predictions[i].suffix or "last layer"] = bad
            groups = predictions[i].supervision.num_groups
            matches.append([_assign_groups(block, groups) for block in blocks])
        if trouble:
            self._report(trouble)
        return matches

    def costs(self, prediction: Prediction, targets: Targets) -> Tensor:
        """Weighted costs of every query for the targets of its own image.

        Returns:
            ``(B, Q, T)`` in float32 at least, under autocast too (it narrows none of the operations
            here); columns beyond an image's targets mean nothing.
        """
        return self._sum(prediction, PaddedTargets(targets))

    def _sum(self, prediction: Prediction, targets: PaddedTargets) -> Tensor:
        candidates = Candidates(prediction, targets)
        total = self.cost_class * self.class_cost(candidates)
        for term in self.terms:
            total = total + term.weight * term(candidates)
        return total

    def _report(self, trouble: dict[str, list[int]]) -> None:
        """Warns of costs that aren't finite, at the 1st, 2nd, 4th, 8th, ... step with any.

        A trainer that listens warns in our place, as it knows the images.
        """
        self.nonfinite_steps += 1
        due = self.nonfinite_steps & (self.nonfinite_steps - 1) == 0
        if due and not hand_over(NonFinite(trouble, self.nonfinite_steps)):
            logger.warning(
                "Matching met predictions that are NaN or infinite, in %s; this is step number %d "
                "with any. They are matched last. Training is about to diverge: lower the learning "
                "rate, clip gradients, or use bfloat16 in place of float16.",
                ", ".join(f"{name} (images {images})" for name, images in trouble.items()),
                self.nonfinite_steps,
            )


def _assign_groups(cost: np.ndarray, num_groups: int) -> tuple[Tensor, Tensor]:
    """``(Q, T)`` costs of one image -> matches of each of the equal groups of its queries."""
    if num_groups == 1:
        return assign(cost)
    size = len(cost) // num_groups
    starts = [group * size for group in range(num_groups)]
    found = [assign(cost[start : start + size]) for start in starts]
    queries = [query + start for start, (query, _) in zip(starts, found, strict=True)]
    return torch.cat(queries), torch.cat([target for _, target in found])


def assign(cost: np.ndarray) -> tuple[Tensor, Tensor]:
    """``(Q, T)`` costs of one image -> queries (ascending) and their targets."""
    finite = np.isfinite(cost)
    if not finite.all():
        # Above all others: a broken query is taken only when sound ones have run out.
        worst = cost[finite].max(initial=0.0) + 1.0
        cost = np.where(finite, cost, worst)
    query, target = linear_sum_assignment(cost)
    return torch.from_numpy(query), torch.from_numpy(target)

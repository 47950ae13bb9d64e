"""Class losses of sets of queries: ``loss(pairs, step) -> {"loss_class": scalar}``.

In those with sigmoid scores nearly every query is a negative of every class. So the loss of
negatives is summed over all logits first, and the few matched ones are corrected afterwards; each
loss says what a negative costs and what a matched query does.

Letters: ``K`` classes, ``n`` matched pairs, ``p`` scores, ``q`` the IoU of a pair.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detrex.modeling.losses.functional import bce_with_logits, focal_loss_of_negatives
from detrex.modeling.pairs import MatchedPairs, Step
from detrex.utils import at_least_float32
from detrex.utils.processes import sum_over_processes


class SigmoidClassLoss(nn.Module):
    """What class losses with ``K`` independent scores share.

    A subclass gives :meth:`positives`, and :meth:`negatives` where they aren't focal.

    Args:
        negative_weight: weight of negatives.
        gamma: exponent that down-weights easy examples.
    """

    no_object = False
    """Whether the last logit stands for "no object"."""

    def __init__(self, negative_weight: float, gamma: float) -> None:
        super().__init__()
        self.negative_weight = negative_weight
        self.gamma = gamma

    def positives(self, logits: Tensor, pairs: MatchedPairs) -> Tensor:
        """Losses ``(n,)`` of the logits ``(n,)`` that matched queries have for their classes."""
        raise NotImplementedError

    def negatives(self, logits: Tensor) -> Tensor:
        """Losses of logits that are to be low, any shape, before :attr:`negative_weight`."""
        return focal_loss_of_negatives(logits, self.gamma)

    def forward(self, pairs: MatchedPairs, step: Step) -> dict[str, Tensor]:
        """The sum over all queries and classes, divided by the number of boxes."""
        logits = at_least_float32(pairs.prediction.logits)
        matched = logits[pairs.image, pairs.query, pairs.labels]
        loss = self.negative_weight * self.negatives(logits).sum()
        changes = self.positives(matched, pairs) - self.negative_weight * self.negatives(matched)
        return {"loss_class": (loss + changes.sum()) / pairs.num_boxes}

    def extra_repr(self) -> str:
        return f"negative_weight={self.negative_weight}, gamma={self.gamma}"


class FocalClassLoss(SigmoidClassLoss):
    """Focal loss: ``alpha (1 - p)^gamma BCE(p, 1)`` and ``(1 - alpha) p^gamma BCE(p, 0)``.

    Source: "Focal Loss for Dense Object Detection", arXiv:1708.02002.

    Args:
        alpha: weight of positives; negatives have ``1 - alpha``.
        gamma: exponent that down-weights easy examples.
    """

    def __init__(self, alpha: float = 0.25, gamma: float = 2.0) -> None:
        super().__init__(1 - alpha, gamma)
        self.positive_weight = alpha

    def positives(self, logits: Tensor, pairs: MatchedPairs) -> Tensor:
        return self.positive_weight * focal_loss_of_negatives(-logits, self.gamma)


class VarifocalClassLoss(SigmoidClassLoss):
    """Varifocal loss: ``q BCE(p, q)``, and ``alpha p^gamma BCE(p, 0)`` of negatives.

    Source: "VarifocalNet", arXiv:2008.13367, as in "RT-DETR", arXiv:2304.08069, where ``p^gamma``
    is a weight without gradient.
    """

    def __init__(self, alpha: float = 0.75, gamma: float = 2.0) -> None:
        super().__init__(alpha, gamma)

    def positives(self, logits: Tensor, pairs: MatchedPairs) -> Tensor:
        quality = pairs.iou.to(logits.dtype)
        return quality * bce_with_logits(logits, quality)

    def negatives(self, logits: Tensor) -> Tensor:
        return focal_loss_of_negatives(logits, self.gamma, detach=True)


class MatchabilityClassLoss(VarifocalClassLoss):
    """Matchability-aware loss: ``BCE(p, q^gamma)``, and ``alpha p^gamma BCE(p, 0)`` of negatives.

    A matched query of low quality is trained harder than by the varifocal loss, which weighs it by
    its IoU. Source: "DEIM", arXiv:2412.04234; ``p^gamma`` is a weight without gradient.
    """

    def __init__(self, alpha: float = 1.0, gamma: float = 1.5) -> None:
        super().__init__(alpha, gamma)

    def positives(self, logits: Tensor, pairs: MatchedPairs) -> Tensor:
        return bce_with_logits(logits, pairs.iou.to(logits.dtype) ** self.gamma)


class QualityFocalClassLoss(SigmoidClassLoss):
    """Quality focal loss: ``|q - p|^gamma BCE(p, q)``, with ``q = 0`` for negatives.

    Source: "Generalized Focal Loss", arXiv:2006.04388.
    """

    def __init__(self, gamma: float = 2.0) -> None:
        super().__init__(1.0, gamma)

    def positives(self, logits: Tensor, pairs: MatchedPairs) -> Tensor:
        quality = pairs.iou.to(logits.dtype)
        return (quality - logits.sigmoid()).abs() ** self.gamma * bce_with_logits(logits, quality)


class IoUAwareClassLoss(SigmoidClassLoss):
    """IA-BCE: ``BCE(p, t)`` with ``t = exp(-rank / tau) p^mix q^(1 - mix)``, and ``p^gamma
    BCE(p, 0)`` of negatives.

    The rank of a pair is that of ``p^mix q^(1 - mix)`` among the pairs of its target, so it is 0
    wherever matching is one to one. No gradient flows through ``t``, nor does ``p^mix q^(1 - mix)``
    fall below 0.01.

    Source: "Align-DETR", arXiv:2304.07527.

    Args:
        mix: exponent of the score; 0 makes ``t`` the IoU.
        tau: after how many ranks ``t`` has fallen to ``1 / e``.
        gamma: exponent of the score of negatives.
    """

    def __init__(self, mix: float = 0.25, tau: float = 1.5, gamma: float = 2.0) -> None:
        super().__init__(1.0, gamma)
        self.mix = mix
        self.tau = tau

    def positives(self, logits: Tensor, pairs: MatchedPairs) -> Tensor:
        with torch.no_grad():
            quality = logits.sigmoid() ** self.mix * pairs.iou.to(logits.dtype) ** (1 - self.mix)
            quality = quality.clamp(min=0.01)
            target = (-pairs.rank(quality) / self.tau).exp() * quality
        return bce_with_logits(logits, target)


class SoftmaxClassLoss(nn.Module):
    """Cross-entropy over ``K`` classes and "no object", the last logit.

    It is the mean over all queries of all processes, in which those without a target weigh
    ``eos_coef``. Source: "End-to-End Object Detection with Transformers", arXiv:2005.12872.

    Args:
        eos_coef: weight of "no object".
    """

    no_object = True

    def __init__(self, eos_coef: float = 0.1) -> None:
        super().__init__()
        self.eos_coef = eos_coef

    def class_weight(self, num_classes: int) -> Tensor:
        """``(K + 1,)``; the criterion keeps it, under the name that published checkpoints have."""
        weight = torch.ones(num_classes + 1)
        weight[-1] = self.eos_coef
        return weight

    def forward(self, pairs: MatchedPairs, step: Step) -> dict[str, Tensor]:
        """Queries without a target answer for "no object"."""
        logits = at_least_float32(pairs.prediction.logits)
        target = logits.new_full(logits.shape[:2], logits.shape[-1] - 1, dtype=torch.long)
        target[pairs.image, pairs.query] = pairs.labels
        assert step.class_weight is not None  # the criterion asked for it
        weight = step.class_weight.to(logits.dtype)
        loss = F.cross_entropy(logits.flatten(0, 1), target.flatten(), weight, reduction="sum")
        # The sum of weights may be 0: no queries, or no targets with eos_coef=0.
        total, processes = sum_over_processes(weight[target].sum())
        least = torch.finfo(weight.dtype).tiny
        return {"loss_class": loss / (total / processes).clamp(min=least)}

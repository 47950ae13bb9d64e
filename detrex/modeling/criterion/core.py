"""The losses of DETR: one loop over everything that is predicted.

Source: "End-to-End Object Detection with Transformers", arXiv:2005.12872.

Letters: ``K`` classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from detrex.modeling.losses.box_losses import BoxGIoULoss, BoxL1Loss
from detrex.modeling.losses.class_losses import FocalClassLoss, SoftmaxClassLoss
from detrex.modeling.pairs import MatchedPairs, Step, match_pairs
from detrex.modeling.predictions import Matcher, Prediction, Targets, all_own_targets
from detrex.utils.processes import sum_over_processes

LOSSES = ("class", "boxes")
LOSS_CLASS_TYPES = ("ce_loss", "focal_loss")


class Criterion(nn.Module):
    """Matches predictions and targets, then lets each term compare the pairs.

    A term is a module ``term(pairs, step) -> {name: scalar}``: ``pairs`` are the
    :class:`~detrex.modeling.criterion.MatchedPairs` of one prediction, ``step`` has those of all
    (:class:`~detrex.modeling.criterion.Step`). It is asked for each prediction in turn: last layer,
    auxiliary layers, encoder, denoising; whatever it does not want to train it answers with ``{}``.

    Args:
        num_classes: classes, without "no object".
        matcher: finds the pairs of all predictions:
            ``matcher.match(predictions, targets) -> list[Indices]``.
        weight_dict: loss name -> weight, used by :meth:`weighted`. The weight of ``loss_bbox`` also
            holds for ``loss_bbox_0``, ``loss_bbox_dn`` and so on unless they have their own.
        losses: which of the usual losses to have: ``"class"``, ``"boxes"``.
        eos_coef, loss_class_type, alpha, gamma: the class loss in short, where ``class_loss`` is
            not given: ``"focal_loss"`` is :class:`.FocalClassLoss` with ``alpha`` and ``gamma``,
            ``"ce_loss"`` is :class:`.SoftmaxClassLoss` with ``eos_coef``.
        class_loss: the term of the classes (:mod:`detrex.modeling.losses.class_losses`).
        terms: all other terms; L1 and generalized IoU of boxes if not given.
    """

    empty_weight: Tensor | None

    def __init__(
        self,
        num_classes: int,
        matcher: Matcher,
        weight_dict: Mapping[str, float],
        losses: Sequence[str] = LOSSES,
        eos_coef: float = 0.1,
        loss_class_type: str = "focal_loss",
        alpha: float = 0.25,
        gamma: float = 2.0,
        class_loss: nn.Module | None = None,
        terms: Iterable[nn.Module] | None = None,
    ) -> None:
        super().__init__()
        if loss_class_type not in LOSS_CLASS_TYPES:
            raise ValueError(
                f"loss_class_type is {loss_class_type!r}, but must be one of {LOSS_CLASS_TYPES}."
            )
        unknown = [name for name in losses if name not in LOSSES]
        if unknown:
            raise ValueError(f"unknown losses {unknown}; there are {list(LOSSES)}.")
        if class_loss is None:
            softmax = loss_class_type == "ce_loss"
            class_loss = SoftmaxClassLoss(eos_coef) if softmax else FocalClassLoss(alpha, gamma)
        if terms is None:
            terms = [BoxL1Loss(), BoxGIoULoss()] if "boxes" in losses else []
        self.num_classes = num_classes
        self.matcher = matcher
        self.weight_dict = dict(weight_dict)
        self.losses: Sequence[str] = tuple(losses)
        self.class_loss = class_loss
        self.terms = nn.ModuleList(terms)
        # Kept here, as published checkpoints have it.
        weight = getattr(class_loss, "class_weight", lambda num_classes: None)(num_classes)
        self.register_buffer("empty_weight", weight)

    def forward(self, predictions: Sequence[Prediction], targets: Targets) -> dict[str, Tensor]:
        """The losses before weighting, scalars named ``loss_class``, ``loss_bbox_0``, ...

        Args:
            predictions: the last decoder layer's first.
            targets: per image ``labels (T,)`` and ``boxes (T, 4)``, normalized cxcywh, on the
                device of the predictions. They aren't written to; ``T = 0`` is fine.

        Raises:
            ValueError: there are logits of another number of classes.
        """
        self._check_classes(predictions)
        matches = self.matcher.match(predictions, targets)
        num_boxes = self.num_boxes(targets, predictions[0].boxes.device)
        own_targets = all_own_targets(predictions, targets)
        pairs = match_pairs(predictions, matches, own_targets, num_boxes)
        step = Step(pairs, targets, num_boxes, self.empty_weight)
        terms = [self.class_loss] if "class" in self.losses else []
        losses: dict[str, Tensor] = {}
        for own in pairs:
            found = losses_of(own, step, (*terms, *self.terms))
            losses |= {name + own.prediction.suffix: value for name, value in found.items()}
        return losses

    def _check_classes(self, predictions: Sequence[Prediction]) -> None:
        no_object = getattr(self.class_loss, "no_object", False)
        for p in predictions:
            known = p.supervision.class_agnostic
            if not known and p.logits.shape[-1] != self.num_classes + no_object:
                raise ValueError(
                    f"predictions have {p.logits.shape[-1]} logits, but the criterion expects "
                    f"{self.num_classes}{' and one for no object' if no_object else ''}: let the "
                    "heads and the criterion have the num_classes of the model."
                )

    def weighted(self, losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The losses times their weights; a loss without a weight stays as it is."""
        return {name: value * self._weight(name) for name, value in losses.items()}

    def _weight(self, name: str) -> float:
        """The weight of ``name``, or of what is left of it without some ``_suffix``."""
        stem = name
        while stem not in self.weight_dict and "_" in stem:
            stem = stem.rpartition("_")[0]
        return self.weight_dict.get(stem, 1.0)

    @staticmethod
    def num_boxes(targets: Targets, device: torch.device) -> Tensor:
        """Targets of all processes, at least 1, divided by the number of processes: a scalar.

        Distributed training averages gradients over processes, so those of these losses are then
        the gradients of one process that has all images.
        """
        # Filled in place: copying a number to a GPU would wait for it.
        count = torch.full((), float(sum(len(t["labels"]) for t in targets)), device=device)
        total, processes = sum_over_processes(count)
        return total.clamp(min=1) / processes


def losses_of(pairs: MatchedPairs, step: Step, terms: Iterable[nn.Module]) -> dict[str, Tensor]:
    """What all terms say of the pairs of one prediction.

    Raises:
        ValueError: two of them use one name.
    """
    found: dict[str, Tensor] = {}
    for term in terms:
        for name, value in term(pairs, step).items():
            if name in found:
                raise ValueError(
                    f"Two terms of the criterion have a loss {name!r}: give one another name."
                )
            found[name] = value
    return found

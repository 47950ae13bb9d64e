"""The criterion as code written for the public detrex calls and overrides it.

The core's :class:`~detrex.modeling.criterion.core.Criterion` takes lists of predictions. This one
takes dictionaries as well, and computes them by one method for each loss, which subclasses may
override; the arithmetic is that of the core's terms.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from detrex.modeling.criterion.core import LOSSES, Criterion, losses_of
from detrex.modeling.criterion.indices import source_indices, target_indices
from detrex.modeling.losses import functional
from detrex.modeling.pairs import MatchedPairs, Step
from detrex.modeling.predictions import Indices, Matcher, Prediction, Targets

Outputs = Mapping[str, Any]
"""``pred_logits (B, Q, K)`` and ``pred_boxes (B, Q, 4)`` of one layer, with anything else that a
loss needs. Letters: ``B`` images, ``Q`` queries, ``K`` classes."""

_OTHER_LAYERS = ("aux_outputs", "enc_outputs")


class SetCriterion(Criterion):
    """:class:`~detrex.modeling.criterion.core.Criterion`, whose arguments it takes, and on
    dictionaries of outputs the loops and methods of the public detrex.

    To add a loss in a subclass, name it in ``losses`` and extend :meth:`get_loss`. In new code
    ``class_loss`` and ``terms`` do it without a subclass (see the documentation's page on seams).
    """

    def __init__(
        self,
        num_classes: int,
        matcher: Matcher,
        weight_dict: Mapping[str, float],
        losses: Sequence[str] = LOSSES,
        eos_coef: float | None = 0.1,
        loss_class_type: str = "focal_loss",
        alpha: float = 0.25,
        gamma: float = 2.0,
        class_loss: nn.Module | None = None,
        terms: Iterable[nn.Module] | None = None,
    ) -> None:
        extended = type(self).get_loss is not SetCriterion.get_loss
        super().__init__(
            num_classes,
            matcher,
            weight_dict,
            [name for name in losses if name in LOSSES] if extended else losses,
            0.1 if eos_coef is None else eos_coef,
            loss_class_type,
            alpha,
            gamma,
            class_loss,
            terms,
        )
        self.losses = list(losses)
        self.eos_coef = eos_coef
        self.loss_class_type = loss_class_type
        self.alpha = alpha
        self.gamma = gamma

    def forward(  # type: ignore[override]
        self,
        outputs: Sequence[Prediction] | Outputs,
        targets: Targets,
        return_indices: bool = False,
    ) -> dict[str, Tensor] | tuple[dict[str, Tensor], list[Indices]]:
        """The losses before weighting, scalars named ``loss_class``, ``loss_bbox_0``, ...

        Args:
            outputs: predictions, or the dictionary of the last layer, which may have
                ``aux_outputs``, a list of such dictionaries, and ``enc_outputs``, one more.
            targets: per image ``labels (T,)`` and ``boxes (T, 4)``, normalized cxcywh.
            return_indices: also return the matches of each layer, the last decoder layer's at the
                end; for dictionaries only.
        """
        if not isinstance(outputs, Mapping):
            return super().forward(outputs, targets)
        last = {name: value for name, value in outputs.items() if name not in _OTHER_LAYERS}
        layers = {"": last}
        layers |= {f"_{i}": layer for i, layer in enumerate(outputs.get("aux_outputs", ()))}
        if "enc_outputs" in outputs:
            layers["_enc"] = outputs["enc_outputs"]
        num_boxes = self.num_boxes(targets, outputs["pred_boxes"].device)
        losses: dict[str, Tensor] = {}
        matches = []
        for suffix, layer in layers.items():
            indices = self.matcher(layer, targets)  # type: ignore[operator]
            matches.append(indices)
            for loss in self.losses:
                found = self.get_loss(loss, layer, targets, indices, num_boxes)
                losses |= {name + suffix: value for name, value in found.items()}
        return (losses, [*matches[1:], matches[0]]) if return_indices else losses

    def get_loss(
        self,
        loss: str,
        outputs: Outputs,
        targets: Targets,
        indices: Indices,
        num_boxes: float | Tensor,
        **kwargs: Any,
    ) -> dict[str, Tensor]:
        """The losses of one name out of ``losses``, of one layer; ``kwargs`` go to its method.

        Raises:
            ValueError: there is no such loss.
        """
        methods = {"class": self.loss_labels, "boxes": self.loss_boxes}
        if loss not in methods:
            raise ValueError(
                f"There is no loss {loss!r}, only {list(methods)}: override get_loss to add one."
            )
        return methods[loss](outputs, targets, indices, num_boxes, **kwargs)

    def loss_labels(
        self, outputs: Outputs, targets: Targets, indices: Indices, num_boxes: float | Tensor
    ) -> dict[str, Tensor]:
        """``loss_class``, by the criterion's ``class_loss``.

        Raises:
            ValueError: there are logits of another number of classes; one logit, of whether there
                is an object at all, is fine.
        """
        if outputs["pred_logits"].shape[-1] != 1:
            self._check_classes([Prediction(outputs["pred_logits"], outputs["pred_boxes"])])
        return losses_of(*self._pairs(outputs, targets, indices, num_boxes), [self.class_loss])

    def loss_boxes(
        self, outputs: Outputs, targets: Targets, indices: Indices, num_boxes: float | Tensor
    ) -> dict[str, Tensor]:
        """``loss_bbox`` and ``loss_giou``, or whatever the criterion's ``terms`` compute."""
        return losses_of(*self._pairs(outputs, targets, indices, num_boxes), self.terms)

    def _get_src_permutation_idx(self, indices: Indices) -> tuple[Tensor, Tensor]:
        """``(n,)`` image and query of all matched pairs."""
        return source_indices(indices)

    def _get_tgt_permutation_idx(self, indices: Indices) -> tuple[Tensor, Tensor]:
        """``(n,)`` image and target of all matched pairs."""
        return target_indices(indices)

    def _pairs(
        self, outputs: Outputs, targets: Targets, indices: Indices, num_boxes: float | Tensor
    ) -> tuple[MatchedPairs, Step]:
        """The matched pairs of one layer, as the core's terms see them."""
        boxes = outputs["pred_boxes"]
        image, query = (i.to(boxes.device) for i in self._get_src_permutation_idx(indices))
        of_image, target = (i.to(boxes.device) for i in self._get_tgt_permutation_idx(indices))
        counts = torch.tensor([0, *(len(t["labels"]) for t in targets)], device=boxes.device)
        target = counts.cumsum(0)[of_image] + target
        extras = {name: value for name, value in outputs.items() if isinstance(value, Tensor)}
        pairs = MatchedPairs(
            Prediction(outputs["pred_logits"], boxes, extras=extras),  # type: ignore[arg-type]
            image,
            query,
            target,
            torch.cat([t["labels"] for t in targets])[target],
            torch.cat([t["boxes"] for t in targets])[target],
            targets,
            torch.as_tensor(num_boxes, device=boxes.device),
        )
        return pairs, Step([pairs], targets, pairs.num_boxes, self.empty_weight)


def sigmoid_focal_loss(
    inputs: Tensor,
    targets: Tensor,
    num_boxes: float | Tensor,
    alpha: float = 0.25,
    gamma: float = 2.0,
) -> Tensor:
    """Focal loss of all logits, its mean over the second axis, summed and divided by ``num_boxes``.

    Source: "Focal Loss for Dense Object Detection", arXiv:1708.02002.

    Args:
        inputs: ``(B, Q, K)`` logits.
        targets: as large, in [0, 1].
        num_boxes: what the sum is divided by.
        alpha: share of the positive targets; negative for equal shares.
        gamma: exponent that down-weights easy examples.
    """
    loss = functional.sigmoid_focal_loss(
        inputs, targets, alpha=alpha, gamma=gamma, reduction="none"
    )
    return loss.mean(1).sum() / num_boxes

"""What is compared: the matched queries of a prediction next to their targets.

Letters: ``B`` images, ``Q`` queries, ``n`` matched pairs of all images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from detrex.layers.box_ops import box_cxcywh_to_xyxy, elementwise_box_iou
from detrex.modeling.predictions import Indices, Prediction, Targets
from detrex.utils import at_least_float32


@dataclass
class MatchedPairs:
    """The pairs of one prediction. Properties are computed when a term first reads them.

    Attributes:
        prediction: whose queries they are.
        image, query: ``(n,)`` where the query is.
        target: ``(n,)`` its target, counted over the targets of all images.
        labels: ``(n,)`` classes of the targets.
        boxes: ``(n, 4)`` boxes of the targets, normalized cxcywh.
        targets: per image those that the prediction is compared with.
        num_boxes: what sums over pairs are divided by, a scalar.
    """

    prediction: Prediction
    image: Tensor
    query: Tensor
    target: Tensor
    labels: Tensor
    boxes: Tensor
    targets: Targets
    num_boxes: Tensor

    @cached_property
    def predicted_boxes(self) -> Tensor:
        """``(n, 4)`` boxes of the queries, normalized cxcywh, in single precision at least."""
        with torch.enable_grad():  # whoever asks first: it is kept for the losses of boxes
            return at_least_float32(self.prediction.boxes)[self.image, self.query]

    @cached_property
    def target_boxes(self) -> Tensor:
        """``(n, 4)`` boxes of the targets, in the dtype of :attr:`predicted_boxes`."""
        return self.boxes.to(self.predicted_boxes.dtype)

    @cached_property
    def iou(self) -> Tensor:
        """``(n,)`` overlap of query and target in [0, 1], without gradient."""
        predicted = at_least_float32(self.prediction.boxes.detach())[self.image, self.query]
        target = self.boxes.to(predicted.dtype)
        return elementwise_box_iou(box_cxcywh_to_xyxy(predicted), box_cxcywh_to_xyxy(target))

    def predicted(self, name: str) -> Tensor:
        """``(n, ...)`` what the prediction's extras have of the queries under this name.

        Raises:
            ValueError: it has nothing of this name.
        """
        if name not in self.prediction.extras:
            raise ValueError(
                f"A loss asks for {name!r}, but the prediction has only logits, boxes and "
                f"{sorted(self.prediction.extras)}: have the decoder's predictor return it."
            )
        extra: Tensor = self.prediction.extras[name]  # type: ignore[literal-required]
        return extra[self.image, self.query]

    def rank(self, quality: Tensor) -> Tensor:
        """``(n,)`` places of the pairs among those of the same target, from 0 for the highest
        ``quality (n,)``: all 0 unless several queries answer for one target."""
        order = quality.argsort(descending=True, stable=True)
        order = order[self.target[order].argsort(stable=True)]  # by target, then by quality
        target = self.target[order]
        place = torch.arange(len(order), device=order.device)
        first = torch.ones_like(target, dtype=torch.bool)
        first[1:] = target[1:] != target[:-1]
        start = torch.where(first, place, 0).cummax(0).values if len(order) else place
        return torch.empty_like(order).scatter(0, order, place - start)

    def of(self, name: str) -> Tensor:
        """``(n, ...)`` whatever else the targets have, ``"masks"`` for example. Where sizes
        differ between images, each dimension is padded with zeros at its end.

        Raises:
            ValueError: targets have nothing of this name.
        """
        if any(name not in target for target in self.targets):
            raise ValueError(
                f"A loss asks for {name!r}, but targets have only {sorted(self.targets[0])}: load "
                "annotations that have it, or leave that loss out of model.criterion."
            )
        rows = [target[name] for target in self.targets]  # type: ignore[literal-required]
        sizes = [max(sides) for sides in zip(*(r.shape[1:] for r in rows), strict=True)]
        padded = [
            F.pad(r, [x for i, side in reversed(list(enumerate(sizes, 1)))
                      for x in (0, side - r.shape[i])])
            for r in rows
        ]  # fmt: skip
        return torch.cat(padded)[self.target]


@dataclass(frozen=True)
class Step:
    """What a term may know beyond one prediction.

    Attributes:
        pairs: of all predictions of the step, the last decoder layer's first.
        targets: those of the batch.
        num_boxes: targets of all processes, as :meth:`.Criterion.num_boxes` counts them.
        class_weight: ``(K,)`` weights of classes, for class losses that have them.
    """

    pairs: Sequence[MatchedPairs]
    targets: Targets
    num_boxes: Tensor
    class_weight: Tensor | None = None

    @property
    def last(self) -> MatchedPairs:
        """The last decoder layer's pairs, the teacher of self-distillation."""
        return self.pairs[0]


def match_pairs(
    predictions: Sequence[Prediction],
    matches: Sequence[Indices],
    targets: Sequence[Targets],
    num_boxes: Tensor,
) -> list[MatchedPairs]:
    """Collects matches (on the CPU) and their targets, with one copy to the predictions' device.

    Args:
        predictions, matches: one for each.
        targets: of each prediction; made ready once where several have the same object.
        num_boxes: targets of the step.
    """
    rows = [_rows(indices, own) for indices, own in zip(matches, targets, strict=True)]
    device = predictions[0].boxes.device
    on_device = torch.cat(rows, 1).to(device, non_blocking=True)
    distinct = {id(own): own for own in targets}
    labels = {key: torch.cat([t["labels"] for t in own]) for key, own in distinct.items()}
    boxes = {key: torch.cat([t["boxes"] for t in own]) for key, own in distinct.items()}
    parts = on_device.split([r.shape[1] for r in rows], 1)
    return [
        MatchedPairs(
            prediction,
            image,
            query,
            target,
            labels[id(own)][target],
            boxes[id(own)][target],
            own,
            num_boxes * prediction.supervision.num_boxes_scale,
        )
        for prediction, (image, query, target), own in zip(predictions, parts, targets, strict=True)
    ]


def _rows(indices: Indices, targets: Targets) -> Tensor:
    """``(3, n)``: image, query and position of the target among those of all images."""
    rows, offset = [], 0
    for image, ((query, target), own) in enumerate(zip(indices, targets, strict=True)):
        rows.append(torch.stack((torch.full_like(query, image), query, target + offset)))
        offset += len(own["labels"])
    return torch.cat(rows, 1)

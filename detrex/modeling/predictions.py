"""One record for everything that is supervised: last, auxiliary, encoder and training-only queries.

Letters: ``B`` images, ``Q`` queries, ``K`` classes, ``T`` targets of an image, ``n`` bins of a
distribution.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypedDict, cast

import torch
from torch import Tensor


class Boxed(TypedDict):
    """What every target of an image has."""

    labels: Tensor
    """``(T,)`` int64."""
    boxes: Tensor
    """``(T, 4)``, normalized cxcywh."""


class Target(Boxed, total=False):
    """The objects of an image. It is open: further tensors, with a row for each object, travel with
    it to whatever loss or cost asks for them."""

    masks: Tensor
    """``(T, H, W)`` boolean, of the image without padding."""


Targets = list[Target]
"""The targets of each image of a batch."""

Indices = list[tuple[Tensor, Tensor]]
"""Per image the matched queries and, in the same order, their targets; both int64."""


def map_targets(targets: Targets, change: Callable[[str, Tensor], Tensor]) -> Targets:
    """``change(name, tensor)`` of every tensor of every target, masks and others included."""
    changed = [{name: change(name, rows) for name, rows in t.items()} for t in targets]  # type: ignore[arg-type]
    return cast(Targets, changed)


@dataclass(frozen=True)
class Supervision:
    """What some queries are trained for, said where they are made.

    Attributes:
        targets: their own; None for those of the batch.
        indices: fixed matches; None to have them found.
        num_boxes_scale: multiplies the number of targets that losses are divided by, for targets
            that repeat (the number of denoising groups, for example).
        class_agnostic: they tell objects from background only; every target counts as class 0.
        num_groups: they are that many equal groups, each matched with all targets.
    """

    targets: Targets | None = None
    indices: Indices | None = None
    num_boxes_scale: float = 1.0
    class_agnostic: bool = False
    num_groups: int = 1

    def of(self, targets: Targets) -> Targets:
        """What the queries are compared with, given the targets of the batch."""
        own = targets if self.targets is None else self.targets
        if self.class_agnostic:
            zero = lambda name, rows: torch.zeros_like(rows) if name == "labels" else rows  # noqa: E731
            own = map_targets(own, zero)
        return own


MATCHED = Supervision()
"""Of queries that are matched with the targets of the batch, as most are. The model passes it on by
name, since torch.compile neither builds frozen records nor knows them as defaults."""

OBJECTNESS = Supervision(class_agnostic=True)
"""Of proposals that tell objects from background."""


class Extras(TypedDict, total=False):
    """What a predictor may say of each query beyond class and box. It is open: other names do as
    well, as long as the second axis counts queries."""

    masks: Tensor
    """``(B, Q, H, W)`` logits."""
    distributions: Tensor
    """``(B, Q, 4, n)`` logits of the distance of each side."""
    priors: Tensor
    """``(B, Q, 4)``, normalized cxcywh, that the boxes were predicted from."""
    quality: Tensor
    """``(B, Q)`` logits of how well the box fits."""


@dataclass
class Prediction:
    """What one decoder layer (or the encoder, or a training-only query group) predicts.

    Attributes:
        logits: ``(B, Q, K)``.
        boxes: ``(B, Q, 4)``, normalized cxcywh.
        suffix: ends the names of the losses: ``""`` for the last layer, ``"_0"`` and on for
            auxiliary ones, ``"_enc"``, ``"_dn"``, ``"_dn_0"``, ...
        supervision: what it is trained for.
        auxiliary: of a decoder layer before the last.
        extras: what else is predicted.
    """

    logits: Tensor
    boxes: Tensor
    suffix: str = ""
    supervision: Supervision = MATCHED
    auxiliary: bool = False
    extras: Extras = field(default_factory=dict)  # type: ignore[assignment]


class Matcher(Protocol):
    """Whatever decides which query answers for which target."""

    def match(self, predictions: Sequence[Prediction], targets: Targets) -> list[Indices]:
        """The matches of each prediction; ``targets`` are those of the batch."""


def all_own_targets(predictions: Sequence[Prediction], targets: Targets) -> list[Targets]:
    """What each prediction is compared with; one object wherever it is the same.

    What is made of targets can then be made once for all layers, by their ``id``.
    """
    known: dict[tuple[int, bool], Targets] = {}
    kinds = [p.supervision for p in predictions]
    keys = [(id(kind.targets), kind.class_agnostic) for kind in kinds]
    for key, kind in zip(keys, kinds, strict=True):
        if key not in known:
            known[key] = kind.of(targets)
    return [known[key] for key in keys]

"""One record for everything that is supervised: last, auxiliary, encoder and training-only queries.

Letters: ``B`` images, ``Q`` queries, ``K`` classes, ``T`` targets of an image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

Targets = list[dict[str, Tensor]]
"""Per image ``{"labels": (T,) int64, "boxes": (T, 4) normalized cxcywh}``."""

Indices = list[tuple[Tensor, Tensor]]
"""Per image the matched queries and, in the same order, their targets; both int64."""


@dataclass
class Prediction:
    """What one decoder layer (or the encoder, or a training-only query group) predicts.

    Attributes:
        logits: ``(B, Q, K)``.
        boxes: ``(B, Q, 4)``, normalized cxcywh.
        suffix: ends the names of the losses: ``""`` for the last layer, ``"_0"`` and on for
            auxiliary ones, ``"_enc"``, ``"_dn"``, ``"_dn_0"``, ...
        targets: its own targets; None for those of the batch.
        indices: fixed matches; None to have them found.
        num_boxes_scale: multiplies the number of targets that losses are divided by, for targets
            that repeat (the number of denoising groups, for example).
        class_agnostic: tells objects from background only; every target counts as class 0.
        num_groups: the queries are that many equal groups, each matched with all targets.
        auxiliary: of a decoder layer before the last.
    """

    logits: Tensor
    boxes: Tensor
    suffix: str = ""
    targets: Targets | None = None
    indices: Indices | None = None
    num_boxes_scale: float = 1.0
    class_agnostic: bool = False
    num_groups: int = 1
    auxiliary: bool = False

    def own_targets(self, targets: Targets) -> Targets:
        """What it is to be compared with, given the targets of the batch."""
        own = targets if self.targets is None else self.targets
        if self.class_agnostic:
            own = [{**t, "labels": torch.zeros_like(t["labels"])} for t in own]
        return own


class Matcher(Protocol):
    """Whatever decides which query answers for which target."""

    def match(self, predictions: Sequence[Prediction], targets: Targets) -> list[Indices]:
        """The matches of each prediction; ``targets`` are those of the batch."""


def all_own_targets(predictions: Sequence[Prediction], targets: Targets) -> list[Targets]:
    """What each prediction is compared with; one object wherever it is the same.

    What is made of targets can then be made once for all layers, by their ``id``.
    """
    known: dict[tuple[int, bool], Targets] = {}
    keys = [(id(p.targets), p.class_agnostic) for p in predictions]
    for key, prediction in zip(keys, predictions, strict=True):
        if key not in known:
            known[key] = prediction.own_targets(targets)
    return [known[key] for key in keys]


def predictions_from_outputs(outputs: Mapping[str, Any]) -> list[Prediction]:
    """The dictionaries of DETR code as a list: last layer, auxiliary layers, encoder.

    Args:
        outputs: ``pred_logits`` and ``pred_boxes``; optionally ``aux_outputs``, a list of such
            dictionaries, and ``enc_outputs``, one more.
    """
    layers = {f"_{i}": layer for i, layer in enumerate(outputs.get("aux_outputs", ()))}
    suffixed = {"": outputs, **layers}
    if "enc_outputs" in outputs:
        suffixed["_enc"] = outputs["enc_outputs"]
    return [
        Prediction(o["pred_logits"], o["pred_boxes"], suffix, auxiliary=suffix in layers)
        for suffix, o in suffixed.items()
    ]

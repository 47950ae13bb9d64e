"""What a decoder asks at the end of each layer: the predictor (seam 4).

A predictor maps ``(layer, x, anchors, memory, state)`` to ``(LayerOutput, next anchors, next
state)``. ``layer`` counts from 0, ``x (B, Q, C)`` is what the layer made of the queries,
``anchors`` are those that it was given, ``state`` is whatever the predictor returned after the
layer before, None in the first.

Letters: ``B`` batch, ``Q`` queries, ``C`` channels, ``K`` classes.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any, cast

import torch.nn.functional as F
from torch import Tensor, nn

from detrex.modeling.heads import BoxHead
from detrex.modeling.memory import Memory
from detrex.modeling.predictions import Extras
from detrex.utils import at_least_float32, inverse_sigmoid


@dataclass
class LayerOutput:
    """What one decoder layer predicts for all its queries."""

    logits: Tensor
    """``(B, Q, K)``."""
    boxes: Tensor
    """``(B, Q, 4)``, normalized cxcywh."""
    extras: Extras = field(default_factory=dict)  # type: ignore[assignment]
    """Whatever else, each ``(B, Q, ...)``: masks, distributions."""

    def split(self, sizes: list[int]) -> list[LayerOutput]:
        """Splits the output into consecutive groups of queries of the given sizes."""
        if len(sizes) == 1:
            return [self]
        tensors = {"logits": self.logits, "boxes": self.boxes, **self.extras}
        parts = {name: cast(Tensor, rows).split(sizes, 1) for name, rows in tensors.items()}
        groups = [{name: rows[i] for name, rows in parts.items()} for i in range(len(sizes))]
        return [LayerOutput(g.pop("logits"), g.pop("boxes"), cast(Extras, g)) for g in groups]


def shift(anchors: Tensor | None, delta: Tensor) -> Tensor:
    """Moves anchors ``(B, Q, 2 or 4)`` in [0, 1] by ``delta (B, Q, 4)`` in logits.

    A 2-d anchor fixes the center alone; without anchors ``delta`` is the box.
    """
    if anchors is None:
        return at_least_float32(delta).sigmoid()
    base = inverse_sigmoid(anchors)
    return (delta + F.pad(base, (0, 4 - base.shape[-1]))).sigmoid()


class BoxPredictor(nn.Module):
    """Class and box of each query, from heads that are copied for each layer.

    It predicts on ``norm(x)`` and refines on ``x``: a layer's boxes are relative to its anchors,
    and the anchors of the next layer are detached. The state is the base of the next layer's boxes
    where that is to be differentiated, as with ``look_forward_twice``.

    Args:
        num_layers: of the decoder.
        class_embed: head for the logits.
        bbox_embed: head for the boxes.
        norm: applied before the heads; nothing if not given.
        refine: move the anchors after each layer.
        look_forward_twice: let the loss of a layer also reach the box head of the layer before it
            (DINO, arXiv:2203.03605).
        share_heads: one pair of heads for all layers instead of a copy for each.
    """

    def __init__(
        self,
        num_layers: int,
        class_embed: nn.Module,
        bbox_embed: nn.Module,
        norm: nn.Module | None = None,
        refine: bool = False,
        look_forward_twice: bool = False,
        share_heads: bool = False,
    ) -> None:
        super().__init__()
        num_heads = 1 if share_heads else num_layers
        self.class_embed = nn.ModuleList(copy.deepcopy(class_embed) for _ in range(num_heads))
        self.bbox_embed = nn.ModuleList(copy.deepcopy(bbox_embed) for _ in range(num_heads))
        self.norm = nn.Identity() if norm is None else norm
        self.num_layers = num_layers
        self.refine = refine
        self.look_forward_twice = look_forward_twice
        self.share_heads = share_heads

    def reset_parameters(self) -> None:
        """Only the first layer guesses a size: later ones start from the boxes before them."""
        for later in self.bbox_embed[1:]:
            if isinstance(later, BoxHead):
                later.size_bias = 0.0
                later.reset_parameters()

    def forward(
        self,
        layer: int,
        x: Tensor,
        anchors: Tensor | None,
        memory: Memory,
        state: Tensor | None = None,
    ) -> tuple[LayerOutput, Tensor | None, Any]:
        head = 0 if self.share_heads else layer
        out = self.norm(x)
        logits = self.class_embed[head](out)
        boxes = shift(anchors if state is None else state, self.bbox_embed[head](out))
        if not self.refine or layer + 1 == self.num_layers:
            return LayerOutput(logits, boxes), anchors, None
        refined = shift(anchors, self.bbox_embed[head](x))
        state = refined if self.look_forward_twice else None
        return LayerOutput(logits, boxes), refined.detach(), state

"""The decoder loop, the same for all DETRs.

Letters: ``B`` batch, ``Q`` queries, ``C`` channels, ``N`` layers, ``K`` classes.
"""

from __future__ import annotations

import copy
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detrex.layers import BaseTransformerLayer
from detrex.utils import at_least_float32, inverse_sigmoid

from .memory import Memory
from .queries import Queries


def shift(anchors: Tensor | None, delta: Tensor) -> Tensor:
    """Move anchors ``(B, Q, 2 or 4)`` in [0, 1] by ``delta (B, Q, 4)`` in logits.

    A 2-d anchor fixes the center alone; without anchors ``delta`` is the box.
    """
    if anchors is None:
        return at_least_float32(delta).sigmoid()
    base = inverse_sigmoid(anchors)
    return (delta + F.pad(base, (0, 4 - base.shape[-1]))).sigmoid()


class Decoder(nn.Module):
    """Predict on ``norm(x)``, refine on ``x``, and hand the refined anchors to the next layer.

    Args:
        layer: a transformer layer that takes the keyword arguments below; copied.
        num_layers: number of copies ``N``.
        query_pos: gives the queries a position in each layer (seam 2).
        class_embed: head for the logits.
        bbox_embed: head for the boxes.
        norm: applied before the heads; nothing if not given.
        refine: update the anchors after each layer.
        look_forward_twice: let the loss of a layer also reach the box head of the layer before it
            (DINO, 2203.03605).
        share_heads: one pair of heads for all layers instead of a copy for each.
    """

    def __init__(
        self,
        layer: nn.Module,
        num_layers: int,
        query_pos: nn.Module,
        class_embed: nn.Module,
        bbox_embed: nn.Module,
        norm: nn.Module | None = None,
        refine: bool = False,
        look_forward_twice: bool = False,
        share_heads: bool = False,
    ):
        super().__init__()
        num_heads = 1 if share_heads else num_layers
        self.layers = nn.ModuleList(copy.deepcopy(layer) for _ in range(num_layers))
        self.query_pos = query_pos
        self.class_embed = nn.ModuleList(copy.deepcopy(class_embed) for _ in range(num_heads))
        self.bbox_embed = nn.ModuleList(copy.deepcopy(bbox_embed) for _ in range(num_heads))
        self.norm = nn.Identity() if norm is None else norm
        self.refine = refine
        self.look_forward_twice = look_forward_twice
        self.share_heads = share_heads

    def forward(self, queries: Queries, memory: Memory) -> tuple[Tensor, Tensor]:
        """Logits ``(N, B, Q, K)`` and boxes ``(N, B, Q, 4)``, normalized cxcywh."""
        x, anchors, mask = queries.content, queries.anchors, queries.mask()
        base = anchors
        logits, boxes = [], []
        for i, layer in enumerate(self.layers):
            pos = self.query_pos(i, x, queries.pos, anchors)
            x = layer(
                x,
                key=memory.tokens,
                value=memory.tokens,
                query_pos=pos.embed,
                query_sine_embed=pos.sine,
                key_pos=memory.pos,
                attn_masks=[mask, None],
                key_padding_mask=memory.padding,
                reference_points=None if anchors is None else memory.per_level(anchors),
                spatial_shapes=memory.shapes,
                is_first_layer=i == 0,
            )
            head = 0 if self.share_heads else i
            out = self.norm(x)
            logits.append(self.class_embed[head](out))
            boxes.append(shift(base, self.bbox_embed[head](out)))
            if self.refine and i + 1 < len(self.layers):
                refined = shift(anchors, self.bbox_embed[head](x))
                anchors = refined.detach()
                base = refined if self.look_forward_twice else anchors
        return torch.stack(logits), torch.stack(boxes)


class ConditionalDecoder(Decoder):
    """A decoder whose cross-attention uses the learned position in the first layer alone, where
    the content says nothing yet; later layers have no projection for it.

    Source: "Conditional DETR", 2108.06152. Arguments as for :class:`Decoder`; ``layer`` is a
    :func:`~detrex.modeling.transformer.conditional_decoder_layer`.
    """

    def __init__(self, layer: nn.Module, num_layers: int, *args, **kwargs):
        super().__init__(layer, num_layers, *args, **kwargs)
        for later in self.layers[1:]:
            cross_attention = cast(BaseTransformerLayer, later).attentions[1]
            cross_attention.register_module("query_pos_proj", None)

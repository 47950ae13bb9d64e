"""Seam 2: what position a query has in each decoder layer.

Each class maps ``(layer index, content (B, Q, C), learned position, anchors)`` to a
:class:`QueryPos`. Letters: ``B`` batch, ``Q`` queries, ``C`` channels.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from detrex.layers import MLP, get_sine_pos_embed


class QueryPos(NamedTuple):
    """Positions of the queries in one layer."""

    embed: Tensor | None
    """``(B, Q, C)``, added to the queries."""
    sine: Tensor | None = None
    """``(B, Q, C)``, compared with the positions of the keys by conditional cross-attention."""


class FixedPosition(nn.Module):
    """The learned position, the same in every layer (DETR, Deformable-DETR)."""

    def forward(
        self, layer: int, content: Tensor, pos: Tensor | None, anchors: Tensor | None
    ) -> QueryPos:
        return QueryPos(pos)


class AnchorPosition(nn.Module):
    """The position follows from the anchor box, which moves from layer to layer.

    Source: "DAB-DETR", 2201.12329 (``scaled``) and "DINO", 2203.03605 (not scaled).

    Args:
        embed_dim: channels of the queries; even.
        scaled: after the first layer, scale the position by a function of the content.
    """

    def __init__(self, embed_dim: int, scaled: bool = False):
        super().__init__()
        self.ref_point_head = MLP(2 * embed_dim, embed_dim, embed_dim, 2)
        self.query_scale = MLP(embed_dim, embed_dim, embed_dim, 2) if scaled else None

    def forward(
        self, layer: int, content: Tensor, pos: Tensor | None, anchors: Tensor | None
    ) -> QueryPos:
        if anchors is None:
            raise ValueError("AnchorPosition needs queries with anchors, such as LearnedAnchors.")
        embed = self.ref_point_head(get_sine_pos_embed(anchors, content.shape[-1] // 2))
        if layer > 0 and self.query_scale is not None:
            embed = embed * self.query_scale(content)
        return QueryPos(embed)

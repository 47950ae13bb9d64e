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

    Source: "DAB-DETR", arXiv:2201.12329 (``scaled``) and "DINO", arXiv:2203.03605 (not scaled).

    Args:
        embed_dim: channels of the queries; even.
        scaled: after the first layer, scale the position by a function of the content.
    """

    def __init__(self, embed_dim: int, scaled: bool = False) -> None:
        super().__init__()
        self.ref_point_head = MLP(2 * embed_dim, embed_dim, embed_dim, 2)
        self.query_scale = MLP(embed_dim, embed_dim, embed_dim, 2) if scaled else None

    def forward(
        self, layer: int, content: Tensor, pos: Tensor | None, anchors: Tensor | None
    ) -> QueryPos:
        if anchors is None:
            raise ValueError("AnchorPosition needs queries with anchors, such as LearnedAnchors.")
        sine = get_sine_pos_embed(anchors, content.shape[-1] // 2).to(content.dtype)
        embed = self.ref_point_head(sine)
        if layer > 0 and self.query_scale is not None:
            embed = embed * self.query_scale(content)
        return QueryPos(embed)


class ConditionalPosition(nn.Module):
    """The sine embedding of the anchor, for conditional cross-attention, next to a position.

    After the first layer a function of the content scales the sine embedding. With ``modulated``
    the position follows from the anchor box, as in :class:`AnchorPosition`, and the two axes of the
    sine embedding also weigh by how the width and height that the content asks for compare with
    those of the anchor; otherwise the position is the learned one.

    Source: "Conditional DETR", arXiv:2108.06152, and "DAB-DETR", arXiv:2201.12329 (``modulated``).

    Args:
        embed_dim: channels ``C`` of the queries; divisible by 4.
        modulated: anchors are boxes; otherwise points will do.
    """

    def __init__(self, embed_dim: int, modulated: bool = False) -> None:
        super().__init__()
        self.query_scale = MLP(embed_dim, embed_dim, embed_dim, 2)
        self.ref_point_head = MLP(2 * embed_dim, embed_dim, embed_dim, 2) if modulated else None
        self.ref_anchor_head = MLP(embed_dim, embed_dim, 2, 2) if modulated else None

    def forward(
        self, layer: int, content: Tensor, pos: Tensor | None, anchors: Tensor | None
    ) -> QueryPos:
        if anchors is None:
            raise ValueError("ConditionalPosition needs queries with anchors: set `anchored`.")
        if self.ref_point_head is not None and anchors.shape[-1] != 4:
            raise ValueError("ConditionalPosition(modulated=True) needs boxes: LearnedAnchors.")
        channels = content.shape[-1]
        sine = get_sine_pos_embed(anchors, channels // 2).to(content.dtype)
        if self.ref_point_head is not None:
            pos = self.ref_point_head(sine)
        sine = sine[..., :channels]  # of y, then of x
        if layer > 0:
            sine = sine * self.query_scale(content)
        if self.ref_anchor_head is not None:
            size = anchors[..., 2:].clamp(min=1e-6)  # an anchor may have shrunk to nothing
            ratio = self.ref_anchor_head(content).sigmoid() / size  # of width, of height
            ratio = ratio.to(content.dtype).flip(-1)[..., None]
            sine = (sine.unflatten(-1, (2, -1)) * ratio).flatten(-2)
        return QueryPos(pos, sine)

"""Attention with separate positions and its residual connection.

Letters: ``B`` batch, ``Q`` queries, ``S`` keys, ``C`` channels, ``M`` heads, ``D`` channels of a
head. True in a mask forbids; a mask of numbers is added to the scores instead.

Keywords that an attention has no use for are ignored, since layers written for the public detrex
give all of theirs to every attention; :class:`~detrex.layers.transformer.BaseTransformerLayer`
looks after misspelled ones.
"""

from __future__ import annotations

from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def _add(x: Tensor, pos: Tensor | None) -> Tensor:
    return x if pos is None else x + pos


class MultiheadAttention(nn.Module):
    """:class:`torch.nn.MultiheadAttention` with positions and a residual connection.

    Args:
        embed_dim: channels of queries, keys and values.
        num_heads: heads; divides ``embed_dim``.
        attn_drop: dropout of the attention weights.
        proj_drop: dropout of the result, before the residual is added.
        batch_first: whether tensors are ``(B, Q, C)``; otherwise ``(Q, B, C)``.
        kwargs: further options of :class:`torch.nn.MultiheadAttention`.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        batch_first: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        self.embed_dim = embed_dim
        self.num_heads = num_heads
        self.batch_first = batch_first
        self.attn = nn.MultiheadAttention(
            embed_dim, num_heads, dropout=attn_drop, batch_first=batch_first, **kwargs
        )
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(
        self,
        query: Tensor,
        key: Tensor | None = None,
        value: Tensor | None = None,
        identity: Tensor | None = None,
        query_pos: Tensor | None = None,
        key_pos: Tensor | None = None,
        attn_mask: Tensor | None = None,
        key_padding_mask: Tensor | None = None,
        **ignored: Any,
    ) -> Tensor:
        """Attends from ``query + query_pos`` to ``key + key_pos``.

        ``key`` defaults to ``query``, ``value`` to ``key``, ``identity`` to ``query``; without
        ``key_pos`` keys get ``query_pos`` if the shapes agree. ``attn_mask`` is ``(Q, S)`` or
        ``(B * M, Q, S)``, ``key_padding_mask`` ``(B, S)``.
        """
        key = query if key is None else key
        value = key if value is None else value
        identity = query if identity is None else identity
        if key_pos is None and query_pos is not None and query_pos.shape == key.shape:
            key_pos = query_pos
        if attn_mask is not None and attn_mask.is_floating_point() and key_padding_mask is not None:
            key_padding_mask = _additive(key_padding_mask, attn_mask.dtype)
        out, _ = self.attn(
            _add(query, query_pos),
            _add(key, key_pos),
            value,
            key_padding_mask=key_padding_mask,
            need_weights=False,
            attn_mask=attn_mask,
        )
        return identity + self.proj_drop(out)


def _additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask to add to scores: minus infinity where it is True, or as it is if it has numbers."""
    if mask.is_floating_point():
        return mask.to(dtype)
    return torch.zeros_like(mask, dtype=dtype).masked_fill(mask, float("-inf"))


def _merge_masks(
    attn_mask: Tensor | None, key_padding_mask: Tensor | None, num_heads: int, dtype: torch.dtype
) -> Tensor | None:
    """Both masks as one for the scores ``(B, M, Q, S)``: boolean (True attends) or additive."""
    masks = []
    if attn_mask is not None:
        per_head = attn_mask.ndim == 3
        masks.append(attn_mask.unflatten(0, (-1, num_heads)) if per_head else attn_mask)
    if key_padding_mask is not None:
        masks.append(key_padding_mask[:, None, None])
    if not masks:
        return None
    if all(mask.dtype == torch.bool for mask in masks):
        return ~reduce(torch.logical_or, masks)
    return reduce(torch.add, [_additive(mask, dtype) for mask in masks])


class _ConditionalAttention(nn.Module):
    """What the two conditional attentions share: heads, masks, output and residual."""

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        batch_first: bool = False,
    ) -> None:
        super().__init__()
        if embed_dim % num_heads:
            raise ValueError(f"embed_dim {embed_dim} is not divisible by num_heads {num_heads}.")
        self.embed_dim = embed_dim
        self.num_heads = num_heads
        self.weight_drop = nn.Dropout(attn_drop)  # a module, so that whoever turns all off finds it
        self.scale = (embed_dim // num_heads) ** -0.5
        self.batch_first = batch_first
        self.query_content_proj = nn.Linear(embed_dim, embed_dim)
        self.query_pos_proj = nn.Linear(embed_dim, embed_dim)
        self.key_content_proj = nn.Linear(embed_dim, embed_dim)
        self.key_pos_proj = nn.Linear(embed_dim, embed_dim)
        self.value_proj = nn.Linear(embed_dim, embed_dim)
        self.out_proj = nn.Linear(embed_dim, embed_dim)
        self.proj_drop = nn.Dropout(proj_drop)

    @property
    def attn_drop(self) -> float:
        """The dropout of the attention weights."""
        return self.weight_drop.p

    @attn_drop.setter
    def attn_drop(self, p: float) -> None:
        self.weight_drop.p = p

    def heads(self, x: Tensor) -> Tensor:
        """``(B, Q, C)`` or ``(Q, B, C)`` -> ``(B, M, Q, D)``."""
        x = x.unflatten(-1, (self.num_heads, -1))
        return x.transpose(1, 2) if self.batch_first else x.permute(1, 2, 0, 3)

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, padding: Tensor | None
    ) -> Tensor:
        """Per-head tensors -> the projected result in the layout of the inputs."""
        out = F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=_merge_masks(mask, padding, self.num_heads, q.dtype),
            dropout_p=self.weight_drop.p if self.training else 0.0,
        )
        order = (0, 2, 1, 3) if self.batch_first else (2, 0, 1, 3)
        return self.proj_drop(self.out_proj(out.permute(order).flatten(-2)))


class ConditionalSelfAttention(_ConditionalAttention):
    """Self-attention with projections of their own for content and position.

    Source: "Conditional DETR", arXiv:2108.06152. Arguments as for :class:`MultiheadAttention`.
    """

    def forward(
        self,
        query: Tensor,
        key: Tensor | None = None,
        value: Tensor | None = None,
        identity: Tensor | None = None,
        query_pos: Tensor | None = None,
        key_pos: Tensor | None = None,
        attn_mask: Tensor | None = None,
        key_padding_mask: Tensor | None = None,
        **ignored: Any,
    ) -> Tensor:
        """Attends from ``query`` to itself; ``query_pos`` (same shape) is required.

        ``key``, ``value`` and ``key_pos`` are ignored.
        """
        if query_pos is None:
            raise ValueError("Conditional self-attention needs query_pos.")
        q = self.query_content_proj(query) + self.query_pos_proj(query_pos)
        k = self.key_content_proj(query) + self.key_pos_proj(query_pos)
        q, k, v = (self.heads(x) for x in (q, k, self.value_proj(query)))
        out = self.attend(q, k, v, attn_mask, key_padding_mask)
        return (query if identity is None else identity) + out


class ConditionalCrossAttention(_ConditionalAttention):
    """Cross-attention whose scores are content with content plus position with position.

    Source: "Conditional DETR", arXiv:2108.06152. Arguments as for :class:`MultiheadAttention`.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        batch_first: bool = False,
    ) -> None:
        super().__init__(embed_dim, num_heads, attn_drop, proj_drop, batch_first)
        self.query_pos_sine_proj = nn.Linear(embed_dim, embed_dim)

    def forward(
        self,
        query: Tensor,
        key: Tensor | None = None,
        value: Tensor | None = None,
        identity: Tensor | None = None,
        query_pos: Tensor | None = None,
        key_pos: Tensor | None = None,
        query_sine_embed: Tensor | None = None,
        is_first_layer: bool = False,
        attn_mask: Tensor | None = None,
        key_padding_mask: Tensor | None = None,
        **ignored: Any,
    ) -> Tensor:
        """Attends from ``query`` to ``key``.

        Args:
            query, query_pos: content and learned position of the queries.
            query_sine_embed: ``C`` numbers for the position of each query's anchor.
            key, value, key_pos: content and position of the keys.
            is_first_layer: content says nothing yet in the first layer of a decoder, so
                positions are added to it there.
        """
        if key is None or key_pos is None or query_sine_embed is None:
            raise ValueError("Conditional cross-attention needs key, key_pos and query_sine_embed.")
        q, k = self.query_content_proj(query), self.key_content_proj(key)
        k_pos = self.key_pos_proj(key_pos)
        if is_first_layer:
            if query_pos is None:
                raise ValueError("Conditional cross-attention needs query_pos in the first layer.")
            q, k = q + self.query_pos_proj(query_pos), k + k_pos
        q_pos = self.query_pos_sine_proj(query_sine_embed)
        out = self.attend(
            torch.cat((self.heads(q), self.heads(q_pos)), -1),
            torch.cat((self.heads(k), self.heads(k_pos)), -1),
            self.heads(self.value_proj(key if value is None else value)),
            attn_mask,
            key_padding_mask,
        )
        return (query if identity is None else identity) + out

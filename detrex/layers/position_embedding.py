"""Positions as vectors: of pixels (for the encoder) and of points and boxes (for queries)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from detrex.utils.errors import InvalidArgument


def _sine(position: Tensor, num_feats: int, temperature: float) -> Tensor:
    """Sines and cosines of falling frequency, interleaved: ``(...) -> (..., num_feats)``.

    The wavelengths have single precision whatever ``position`` has, as in the published models.
    """
    exponent = torch.arange(num_feats, device=position.device) // 2 * 2 / num_feats
    phase = position[..., None] / (temperature**exponent).to(position.dtype)
    return torch.stack((phase[..., 0::2].sin(), phase[..., 1::2].cos()), -1).flatten(-2)


def get_sine_pos_embed(
    pos_tensor: Tensor,
    num_pos_feats: int = 128,
    temperature: float = 10000,
    exchange_xy: bool = True,
) -> Tensor:
    """Sine embedding of normalized points or boxes.

    Args:
        pos_tensor: ``(..., n)`` coordinates in [0, 1].
        num_pos_feats: numbers per coordinate.
        temperature: ratio of the longest to the shortest wave.
        exchange_xy: embed y before x (as the DETR family does), the rest in order.

    Returns:
        ``(..., n * num_pos_feats)`` in the dtype of ``pos_tensor``.
    """
    if exchange_xy:
        order = [1, 0, *range(2, pos_tensor.shape[-1])]
        pos_tensor = pos_tensor[..., order]
    return _sine(pos_tensor * (2 * math.pi), num_pos_feats, temperature).flatten(-2)


class PositionEmbeddingSine(nn.Module):
    """Sine embedding of each cell of an image, counted within its unpadded part.

    Source: "End-to-End Object Detection with Transformers", arXiv:2005.12872.

    Args:
        num_pos_feats: numbers per axis; the embedding is twice as wide.
        temperature: ratio of the longest to the shortest wave; one number or (y, x).
        scale: length of the normalized axis.
        eps: keeps the division defined.
        offset: added to the cell numbers 1, 2, ...; -0.5 puts them at centers.
        normalize: whether the axes run from 0 to ``scale`` whatever the image size.
    """

    def __init__(
        self,
        num_pos_feats: int = 64,
        temperature: float | tuple[float, float] = 10000,
        scale: float = 2 * math.pi,
        eps: float = 1e-6,
        offset: float = 0.0,
        normalize: bool = False,
    ) -> None:
        super().__init__()
        self.num_pos_feats = num_pos_feats
        self.temperature = temperature
        if not isinstance(scale, (int, float)):
            raise InvalidArgument(f"scale is {scale!r}, but must be a number.")
        self.scale = scale
        self.eps = eps
        self.offset = offset
        self.normalize = normalize

    def forward(
        self, mask: Tensor, dtype: torch.dtype = torch.float32, padded: bool = True
    ) -> Tensor:
        """``(B, H, W)`` padding mask, True on padding -> ``(B, 2 * num_pos_feats, H, W)``.

        Computed in single precision whatever ``dtype``, as the published models have it. With
        ``padded=False``, if nothing is, one column and one row stand for all.
        """
        valid = ~mask
        along = (valid, valid) if padded else (valid[:, :, :1], valid[:, :1])
        temperature = self.temperature
        temps = temperature if isinstance(temperature, (tuple, list)) else (temperature,) * 2
        embedded = []
        for axis, line, temp in zip((1, 2), along, temps, strict=True):
            count = line.cumsum(axis, dtype=torch.float32)
            if self.normalize:
                total = count.narrow(axis, -1, 1)
                count = (count + self.offset) / (total + self.eps) * self.scale
            sine = _sine(count, self.num_pos_feats, temp).to(dtype)
            embedded.append(sine.expand(*mask.shape, -1))
        return torch.cat(embedded, -1).permute(0, 3, 1, 2)


def sine_position_embedding(embed_dim: int, **kwargs: Any) -> PositionEmbeddingSine:
    """A :class:`PositionEmbeddingSine` for tokens of ``embed_dim``, an even number.

    ``kwargs`` are those of :class:`PositionEmbeddingSine` but for ``num_pos_feats``.
    """
    if embed_dim % 4:
        raise ValueError(f"Sine positions need an embed_dim divisible by 4, got {embed_dim}.")
    return PositionEmbeddingSine(num_pos_feats=embed_dim // 2, **kwargs)


class PositionEmbeddingLearned(nn.Module):
    """A learned vector per row and per column.

    Args:
        num_pos_feats: numbers per axis; the embedding is twice as wide.
        row_num_embed: the most rows an image may have.
        col_num_embed: the most columns.
    """

    def __init__(
        self, num_pos_feats: int = 256, row_num_embed: int = 50, col_num_embed: int = 50
    ) -> None:
        super().__init__()
        self.row_embed = nn.Embedding(row_num_embed, num_pos_feats)
        self.col_embed = nn.Embedding(col_num_embed, num_pos_feats)
        self.num_pos_feats = num_pos_feats
        nn.init.uniform_(self.row_embed.weight)
        nn.init.uniform_(self.col_embed.weight)

    def forward(
        self, mask: Tensor, dtype: torch.dtype | None = None, padded: bool = True
    ) -> Tensor:
        """``(B, H, W)`` padding mask -> ``(B, 2 * num_pos_feats, H, W)``, columns first.

        Whether anything is ``padded`` makes no difference.
        """
        b, h, w = mask.shape
        if h > self.row_embed.num_embeddings or w > self.col_embed.num_embeddings:
            raise ValueError(
                f"The feature map has {h} rows and {w} columns, the learned position embedding "
                f"{self.row_embed.num_embeddings} and {self.col_embed.num_embeddings}: "
                "raise row_num_embed and col_num_embed."
            )
        col = self.col_embed.weight[None, :w].expand(h, -1, -1)
        row = self.row_embed.weight[:h, None].expand(-1, w, -1)
        embed = torch.cat((col, row), -1).permute(2, 0, 1)
        return embed[None].expand(b, -1, -1, -1).to(dtype or embed.dtype)

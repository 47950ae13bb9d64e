"""Parts of plain transformers that attend within windows, by the public detrex's names.

Windows are timm's; learned positions are resized as :class:`~detrex.modeling.backbone.ViTDet` does.
All maps have their channels last.

Letters: B batch, C channels, H height, W width, S side of a window, L length of a table.
"""

from __future__ import annotations

from functools import lru_cache
from math import isqrt

import numpy as np
import torch
from scipy.interpolate import make_interp_spline
from scipy.optimize import brentq
from timm.models import vision_transformer_sam
from torch import Tensor, nn
from torch.nn import functional as F

from detrex.modeling.backbone.vitdet import resize_positions

__all__ = [
    "PatchEmbed",
    "add_decomposed_rel_pos",
    "get_abs_pos",
    "get_rel_pos",
    "window_partition",
    "window_unpartition",
]

# Between these the code that BEiT is fine-tuned with looks for the ratio of its series.
_RATIOS = (1.01, 1.5)


class PatchEmbed(nn.Module):
    """Images (B, in_chans, H, W) -> patches (B, H', W', embed_dim), by a convolution."""

    def __init__(
        self,
        kernel_size: tuple[int, int] = (16, 16),
        stride: tuple[int, int] = (16, 16),
        padding: tuple[int, int] = (0, 0),
        in_chans: int = 3,
        embed_dim: int = 768,
    ) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_chans, embed_dim, kernel_size, stride, padding)

    def forward(self, x: Tensor) -> Tensor:
        """Embed the patches."""
        return self.proj(x).permute(0, 2, 3, 1)


def window_partition(x: Tensor, window_size: int) -> tuple[Tensor, tuple[int, int]]:
    """Cut a map (B, H, W, C) into windows (B * number, S, S, C), row by row.

    Zeros follow the last row and column where the sides don't divide by ``window_size``; the second
    result is height and width with them.
    """
    return vision_transformer_sam.window_partition(x, window_size)


def window_unpartition(
    windows: Tensor, window_size: int, pad_hw: tuple[int, int], hw: tuple[int, int]
) -> Tensor:
    """Undo :func:`window_partition`: ``pad_hw`` is its second result, ``hw`` the map's size."""
    return vision_transformer_sam.window_unpartition(windows, window_size, hw, pad_hw)


def get_rel_pos(q_size: int, k_size: int, rel_pos: Tensor, interp_type: str = "vitdet") -> Tensor:
    """Embeddings of the distances along one axis: (q_size, k_size, C).

    Args:
        q_size, k_size: places of queries and of keys; the smaller grid is spread over the larger.
        rel_pos: (L, C) for the distances from ``-(L // 2)`` to ``L // 2``.
        interp_type: how a table for other distances is resized. ``"vitdet"`` stretches it
            linearly (arXiv:2203.16527). ``"beit"`` keeps near distances near: the rows stand at
            distances that grow by a geometric series, and a cubic spline goes through them, which
            is how BEiT (arXiv:2106.08254) is fine-tuned on larger images.

    Raises:
        ValueError: for another ``interp_type``.
    """
    length = 2 * max(q_size, k_size) - 1
    if interp_type not in ("vitdet", "beit"):
        raise ValueError(f'interp_type is "vitdet" or "beit", not {interp_type!r}.')
    if len(rel_pos) != length and interp_type == "vitdet":
        rel_pos = F.interpolate(rel_pos.T[None], size=length, mode="linear")[0].T
    elif len(rel_pos) != length:
        spline = torch.from_numpy(_geometric_spline(len(rel_pos), int(length)))
        rel_pos = spline.to(rel_pos) @ rel_pos
    q_step, k_step = max(k_size / q_size, 1.0), max(q_size / k_size, 1.0)
    q_places = torch.arange(q_size, device=rel_pos.device) * q_step
    k_places = torch.arange(k_size, device=rel_pos.device) * k_step
    distances = q_places[:, None] - k_places + (k_size - 1) * k_step
    return rel_pos[distances.long()]


@lru_cache
def _geometric_spline(source: int, target: int) -> np.ndarray:
    """Matrix (target, source) from a table's rows to those of a resized one.

    A cubic spline is linear in the values that it goes through, so that one matrix serves all
    channels and lets gradients pass. The distances of the rows are 0, 1, 1 + q, 1 + q + q^2 ... to
    both sides, with the ``q`` that puts the last row at the last distance wanted.
    """
    half = source // 2

    def reach(q: float) -> float:
        return (q**half - 1) / (q - 1) - target // 2

    low, high = _RATIOS
    q = low if reach(low) >= 0 else high if reach(high) <= 0 else brentq(reach, low, high)
    distances = np.cumsum(q ** np.arange(half))
    rows = np.concatenate([-distances[::-1], [0.0], distances])
    spline = make_interp_spline(rows, np.eye(source), k=min(3, source - 1))
    return spline(np.arange(target) - float(target // 2))


def decomposed_rel_pos(
    q: Tensor,
    rel_pos_h: Tensor,
    rel_pos_w: Tensor,
    q_size: tuple[int, int],
    k_size: tuple[int, int],
    interp_type: str = "vitdet",
) -> Tensor:
    """What :func:`add_decomposed_rel_pos` adds: (B, queries, keys)."""
    rows = get_rel_pos(q_size[0], k_size[0], rel_pos_h, interp_type)
    columns = get_rel_pos(q_size[1], k_size[1], rel_pos_w, interp_type)
    q = q.unflatten(1, q_size)
    rows = torch.einsum("bhwc,hkc->bhwk", q, rows)
    columns = torch.einsum("bhwc,wkc->bhwk", q, columns)
    return (rows[..., :, None] + columns[..., None, :]).flatten(3).flatten(1, 2)


def add_decomposed_rel_pos(
    attn: Tensor,
    q: Tensor,
    rel_pos_h: Tensor,
    rel_pos_w: Tensor,
    q_size: tuple[int, int],
    k_size: tuple[int, int],
    interp_type: str = "vitdet",
) -> Tensor:
    """Add learned relative positions, one table per axis, to attention logits (arXiv:2112.01526).

    Args:
        attn: (B, queries, keys).
        q: the queries, not scaled: (B, queries, C).
        rel_pos_h, rel_pos_w: (L, C) each.
        q_size, k_size: height and width of the queries' and the keys' map.
        interp_type: see :func:`get_rel_pos`.
    """
    return attn + decomposed_rel_pos(q, rel_pos_h, rel_pos_w, q_size, k_size, interp_type)


def get_abs_pos(abs_pos: Tensor, has_cls_token: bool, hw: tuple[int, int]) -> Tensor:
    """Learned positions, resized to a map: (1, L, C) -> (1, H, W, C).

    Args:
        abs_pos: of a square map, row by row.
        has_cls_token: whether the first one is that of a class token, which is left out.
        hw: H, W.

    Raises:
        ValueError: if the positions are not those of a square.
    """
    if has_cls_token:
        abs_pos = abs_pos[:, 1:]
    side = isqrt(abs_pos.shape[1])
    if side * side != abs_pos.shape[1]:
        raise ValueError(
            f"The positions of {abs_pos.shape[1]} patches are not those of a square map; "
            "has has_cls_token the right value?"
        )
    return resize_positions(abs_pos.unflatten(1, (side, side)), hw)

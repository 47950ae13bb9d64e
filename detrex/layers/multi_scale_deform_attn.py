"""Multi-scale deformable attention: each query reads a few points of each feature level.

Source: "Deformable DETR", 2010.04159. Letters: ``B`` batch, ``Q`` queries, ``S`` tokens of all
levels, ``M`` heads, ``D`` channels of a head, ``L`` levels, ``P`` points of a head per level.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .ms_deform_attn import ms_deform_attn, pytorch_kernels

Shapes = Sequence[tuple[int, int]] | Tensor


def _shape_list(spatial_shapes: Shapes) -> list[tuple[int, int]]:
    """Level sizes as integers; a tensor costs one copy to the host."""
    if isinstance(spatial_shapes, Tensor):
        spatial_shapes = spatial_shapes.tolist()
    return [(int(h), int(w)) for h, w in spatial_shapes]


def multi_scale_deformable_attn_pytorch(
    value: Tensor,
    value_spatial_shapes: Shapes,
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> Tensor:
    """Weighted sum of bilinear samples, in plain PyTorch.

    Args:
        value: ``(B, S, M, D)``, the levels one after another.
        value_spatial_shapes: ``L`` pairs (height, width).
        sampling_locations: ``(B, Q, M, L, P, 2)`` as (x, y); 0 and 1 are the borders of the level,
            beyond them the map is zero.
        attention_weights: ``(B, Q, M, L, P)``.

    Returns:
        ``(B, Q, M * D)`` in the dtype of ``value``. Samples are taken in the wider of the dtypes of
        values and locations: locations in half precision would miss by whole cells of a large map.
    """
    shapes = [size for shape in _shape_list(value_spatial_shapes) for size in shape]
    return pytorch_kernels.forward(value, shapes, sampling_locations, attention_weights)


class MultiScaleDeformableAttention(nn.Module):
    """Deformable attention with its projections and residual.

    Args:
        embed_dim: channels ``C`` of queries and values.
        num_heads: heads; divides ``embed_dim``.
        num_levels: feature levels.
        num_points: points of a head in each level.
        img2col_step: accepted for old configs, without effect.
        dropout: dropout of the result, before the residual is added.
        batch_first: whether tensors are ``(B, Q, C)``; otherwise ``(Q, B, C)``.
    """

    def __init__(
        self,
        embed_dim: int = 256,
        num_heads: int = 8,
        num_levels: int = 4,
        num_points: int = 4,
        img2col_step: int = 64,
        dropout: float = 0.1,
        batch_first: bool = False,
    ):
        super().__init__()
        if embed_dim % num_heads:
            raise ValueError(f"embed_dim {embed_dim} is not divisible by num_heads {num_heads}.")
        self.embed_dim = embed_dim
        self.num_heads = num_heads
        self.num_levels = num_levels
        self.num_points = num_points
        self.batch_first = batch_first
        self.dropout = nn.Dropout(dropout)
        self.sampling_offsets = nn.Linear(embed_dim, num_heads * num_levels * num_points * 2)
        self.attention_weights = nn.Linear(embed_dim, num_heads * num_levels * num_points)
        self.value_proj = nn.Linear(embed_dim, embed_dim)
        self.output_proj = nn.Linear(embed_dim, embed_dim)
        self.init_weights()

    def init_weights(self) -> None:
        """Each head starts to look into a direction of its own, point i at i cells' distance."""
        angle = torch.arange(self.num_heads) * (2 * math.pi / self.num_heads)
        direction = torch.stack((angle.cos(), angle.sin()), -1)
        direction = direction / direction.abs().amax(-1, keepdim=True)
        distance = torch.arange(1, self.num_points + 1)
        offsets = direction[:, None, None] * distance[:, None]  # M 1 P 2
        offsets = offsets.expand(-1, self.num_levels, -1, -1)
        nn.init.zeros_(self.sampling_offsets.weight)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(offsets.flatten())
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.zeros_(self.attention_weights.bias)
        for projection in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(projection.weight)
            nn.init.zeros_(projection.bias)

    reset_parameters = init_weights

    def forward(
        self,
        query: Tensor,
        key: Tensor | None = None,
        value: Tensor | None = None,
        identity: Tensor | None = None,
        query_pos: Tensor | None = None,
        key_padding_mask: Tensor | None = None,
        reference_points: Tensor | None = None,
        spatial_shapes: Shapes | None = None,
        level_start_index: Tensor | None = None,
        **kwargs,
    ) -> Tensor:
        """Reads ``value`` around the reference points.

        Args:
            query: ``(B, Q, C)``.
            key: not used; attention weights come from the query alone.
            value: ``(B, S, C)``; ``query`` if not given.
            identity: what the result is added to; ``query`` if not given.
            query_pos: ``(B, Q, C)``, added to the query.
            key_padding_mask: ``(B, S)``, True on padding, which then reads as zero.
            reference_points: ``(B, Q, L, 2)`` points, or ``(B, Q, L, 4)`` boxes as cxcywh, relative
                to each (padded) level.
            spatial_shapes: ``L`` pairs (height, width).
            level_start_index: not used; it follows from ``spatial_shapes``.

        Returns:
            ``(B, Q, C)``.
        """
        if reference_points is None or spatial_shapes is None:
            raise ValueError("deformable attention needs reference_points and spatial_shapes.")
        value = query if value is None else value
        identity = query if identity is None else identity
        if query_pos is not None:
            query = query + query_pos
        if not self.batch_first:
            query, value = query.transpose(0, 1), value.transpose(0, 1)
        shapes = _shape_list(spatial_shapes)
        if sum(h * w for h, w in shapes) != value.shape[1]:
            raise ValueError(f"{value.shape[1]} tokens don't fill levels of sizes {shapes}.")

        value = self.value_proj(value)
        if key_padding_mask is not None:
            value = value.masked_fill(key_padding_mask[..., None], 0.0)
        value = value.unflatten(-1, (self.num_heads, -1))
        offsets, weights = self._offsets_and_weights(query)
        locations = self._locations(offsets, reference_points, shapes)
        out = ms_deform_attn(value, shapes, locations, weights)
        out = self.output_proj(out)
        if not self.batch_first:
            out = out.transpose(0, 1)
        return self.dropout(out) + identity

    def _offsets_and_weights(self, query: Tensor) -> tuple[Tensor, Tensor]:
        """``(B, Q, M, L * P * 2)`` and, in single precision at least, ``(B, Q, M, L, P)``, by one
        matrix product."""
        layers = self.sampling_offsets, self.attention_weights
        both = F.linear(
            query,
            torch.cat([layer.weight for layer in layers]),
            torch.cat([layer.bias for layer in layers]),
        )
        split = both.split([layer.out_features for layer in layers], -1)
        offsets, weights = (x.unflatten(-1, (self.num_heads, -1)) for x in split)
        weights = weights.softmax(-1, torch.promote_types(weights.dtype, torch.float32))
        return offsets, weights.unflatten(-1, (self.num_levels, self.num_points))

    def _locations(
        self, offsets: Tensor, reference: Tensor, shapes: list[tuple[int, int]]
    ) -> Tensor:
        """Where to read: ``(B, Q, M, L, P, 2)`` relative to each level."""
        if reference.shape[-1] == 2:  # offsets count cells
            unit = 1 / reference.new_tensor([(w, h) for h, w in shapes])
        elif reference.shape[-1] == 4:  # offsets count half boxes, shared among the points
            unit = reference[:, :, None, :, 2:] * (0.5 / self.num_points)
        else:
            raise ValueError(f"reference points have 2 or 4 numbers, not {reference.shape[-1]}.")
        # In rows like the offsets: broadcast over pairs of numbers it takes three times as long.
        center, unit = (
            x[..., None, :].expand(*x.shape[:-2], self.num_levels, self.num_points, 2).flatten(-3)
            for x in (reference[:, :, None, :, :2], unit)
        )
        locations = torch.addcmul(center, offsets, unit)
        return locations.unflatten(-1, (self.num_levels, self.num_points, 2))

"""Multi-scale deformable attention: each query reads a few points of each feature level.

Source: "Deformable DETR", arXiv:2010.04159.

Letters: ``B`` batch, ``Q`` queries, ``S`` tokens of all levels, ``C`` channels, ``M`` heads, ``D``
channels of a head, ``L`` levels, ``N`` points of a head in all levels, ``P`` points of a head in
each level where all levels have as many.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detrex.layers.ms_deform_attn import ms_deform_attn, pytorch_kernels
from detrex.layers.ms_deform_attn.op import is_exporting

Shapes = Sequence[tuple[int, int]] | Tensor


def _shape_list(spatial_shapes: Shapes) -> list[tuple[int, int]]:
    """Level sizes as numbers, symbolic ones as they are; a tensor costs one copy to the host."""
    if isinstance(spatial_shapes, Tensor):
        spatial_shapes = spatial_shapes.tolist()
    return [(h, w) for h, w in spatial_shapes]


def _widths_and_heights(shapes: Sequence[tuple[int, int]], like: Tensor) -> Tensor:
    """``(L, 2)`` in the dtype and on the device of ``like``."""
    if torch.compiler.is_compiling():  # a tensor of a list would take symbolic sizes as constants
        sizes = [like.new_full((), size) for h, w in shapes for size in (w, h)]
        return torch.stack(sizes).unflatten(0, (-1, 2))
    return like.new_tensor([(w, h) for h, w in shapes])


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
    points = attention_weights.shape[-1]
    levels = [x for shape in _shape_list(value_spatial_shapes) for x in (*shape, points)]
    in_a_row = sampling_locations.flatten(3, 4), attention_weights.flatten(3, 4)
    return pytorch_kernels.forward(value, levels, *in_a_row)


class MultiScaleDeformableAttnFunction:
    """:func:`~detrex.layers.ms_deform_attn.ms_deform_attn` as the public detrex calls it."""

    @staticmethod
    def apply(
        value: Tensor,
        value_spatial_shapes: Shapes,
        value_level_start_index: Tensor,
        sampling_locations: Tensor,
        attention_weights: Tensor,
        im2col_step: int = 64,
    ) -> Tensor:
        """As :func:`multi_scale_deformable_attn_pytorch`, by the fastest kernel for the device.

        ``value_level_start_index`` follows from the shapes, and no kernel works in steps: both are
        of no use here.
        """
        shapes = _shape_list(value_spatial_shapes)
        return ms_deform_attn(value, shapes, sampling_locations, attention_weights)


class MultiScaleDeformableAttention(nn.Module):
    """Deformable attention with its projections and residual.

    Args:
        embed_dim: channels ``C`` of queries and values.
        num_heads: heads; divides ``embed_dim``.
        num_levels: feature levels.
        num_points: points of a head in each level: one number, or one per level (RT-DETRv2,
            arXiv:2407.17140).
        img2col_step: accepted for old configs, without effect.
        dropout: dropout of the result, before the residual is added.
        batch_first: whether tensors are ``(B, Q, C)``; otherwise ``(Q, B, C)``.
    """

    im2col_step = 64
    """For copies of this class's ``forward`` that hand it to a kernel; ours have no such steps."""

    def __init__(
        self,
        embed_dim: int = 256,
        num_heads: int = 8,
        num_levels: int = 4,
        num_points: int | Sequence[int] = 4,
        img2col_step: int = 64,
        dropout: float = 0.1,
        batch_first: bool = False,
    ) -> None:
        super().__init__()
        if embed_dim % num_heads:
            raise ValueError(f"embed_dim {embed_dim} is not divisible by num_heads {num_heads}.")
        self.embed_dim = embed_dim
        self.num_heads = num_heads
        self.num_levels = num_levels
        self.num_points = num_points
        self.points = (num_points,) * num_levels if isinstance(num_points, int) else (*num_points,)
        """Points of a head by level."""
        if len(self.points) != num_levels or min(self.points, default=0) < 1:
            raise ValueError(
                f"num_points is {num_points}: give one positive number, or one for each of the "
                f"{num_levels} levels."
            )
        self.even = len(set(self.points)) == 1
        self.batch_first = batch_first
        self.dropout = nn.Dropout(dropout)
        self.sampling_offsets = nn.Linear(embed_dim, num_heads * sum(self.points) * 2)
        self.attention_weights = nn.Linear(embed_dim, num_heads * sum(self.points))
        self.value_proj = nn.Linear(embed_dim, embed_dim)
        self.output_proj = nn.Linear(embed_dim, embed_dim)
        self.init_weights()

    def init_weights(self) -> None:
        """Each head starts to look into a direction of its own, point i of a level at i cells'
        distance."""
        angle = torch.arange(self.num_heads) * (2 * math.pi / self.num_heads)
        direction = torch.stack((angle.cos(), angle.sin()), -1)
        direction = direction / direction.abs().amax(-1, keepdim=True)
        distance = torch.cat([torch.arange(1, count + 1) for count in self.points])
        offsets = direction[:, None] * distance[:, None]  # M N 2
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
        **ignored: Any,
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
            ignored: what layers written for the public detrex give to every attention.

        Returns:
            ``(B, Q, C)``.
        """
        if reference_points is None or spatial_shapes is None:
            raise ValueError("Deformable attention needs reference_points and spatial_shapes.")
        value = query if value is None else value
        identity = query if identity is None else identity
        if query_pos is not None:
            query = query + query_pos
        if not self.batch_first:
            query, value = query.transpose(0, 1), value.transpose(0, 1)
        shapes = _shape_list(spatial_shapes)
        if not is_exporting() and sum(h * w for h, w in shapes) != value.shape[1]:
            raise ValueError(f"{value.shape[1]} tokens don't fill levels of sizes {shapes}.")

        value = self.value_proj(value)
        if key_padding_mask is not None:
            value = value.masked_fill(key_padding_mask[..., None], 0.0)
        value = value.unflatten(-1, (self.num_heads, -1))
        offsets, weights = self._offsets_and_weights(query)
        locations = self._locations(offsets, reference_points, shapes)
        out = ms_deform_attn(value, shapes, locations, weights, self.points)
        out = self.output_proj(out)
        if not self.batch_first:
            out = out.transpose(0, 1)
        return self.dropout(out) + identity

    def _offsets_and_weights(self, query: Tensor) -> tuple[Tensor, Tensor]:
        """``(B, Q, M, N * 2)`` and, in single precision at least, ``(B, Q, M, N)``, by one matrix
        product."""
        layers = self.sampling_offsets, self.attention_weights
        both = F.linear(
            query,
            torch.cat([layer.weight for layer in layers]),
            torch.cat([layer.bias for layer in layers]),
        )
        split = both.split([layer.out_features for layer in layers], -1)
        offsets, weights = (x.unflatten(-1, (self.num_heads, -1)) for x in split)
        return offsets, weights.softmax(-1, torch.promote_types(weights.dtype, torch.float32))

    def _locations(
        self, offsets: Tensor, reference: Tensor, shapes: list[tuple[int, int]]
    ) -> Tensor:
        """Where to read: ``(B, Q, M, N, 2)`` relative to each level."""
        if reference.shape[-1] == 2:  # offsets count cells
            unit = 1 / _widths_and_heights(shapes, reference)
        elif reference.shape[-1] == 4:  # offsets count half boxes, shared among a level's points
            boxes = reference[:, :, None, :, 2:]
            if self.even:
                unit = boxes * (0.5 / self.points[0])
            else:
                counts = zip(boxes.unbind(-2), self.points, strict=True)
                unit = torch.stack([box * (0.5 / count) for box, count in counts], -2)
        else:
            raise ValueError(f"Reference points have 2 or 4 numbers, not {reference.shape[-1]}.")
        center, unit = self._per_point(reference[:, :, None, :, :2]), self._per_point(unit)
        return torch.addcmul(center, offsets, unit).unflatten(-1, (-1, 2))

    def _per_point(self, pairs: Tensor) -> Tensor:
        """``(..., L, 2)``, repeated for the points of each level -> ``(..., N * 2)``.

        In rows like the offsets: broadcast over pairs of numbers it takes three times as long.
        """
        if self.even:  # faster than level by level
            points = self.points[0]
            return pairs[..., None, :].expand(*pairs.shape[:-1], points, 2).flatten(-3)
        repeated = [
            level[..., None, :].expand(*level.shape[:-1], count, 2)
            for level, count in zip(pairs.unbind(-2), self.points, strict=True)
        ]
        return torch.cat(repeated, -2).flatten(-2)

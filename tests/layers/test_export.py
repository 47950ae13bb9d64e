"""Layers exported with symbolic height, width and batch compute the same at other sizes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from reference_recipe import fill_with_recipe
from torch import Tensor, nn
from torch.export import Dim, export
from torch.testing import assert_close

from detrex.layers import (
    FFN,
    BaseTransformerLayer,
    ConditionalCrossAttention,
    ConditionalSelfAttention,
    MultiheadAttention,
    MultiScaleDeformableAttention,
    PositionEmbeddingSine,
    get_sine_pos_embed,
)

MAP = {0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC}
SIZES = [(1, (3, 9), (5, 2)), (4, (8, 5), (3, 3))]


def maps(batch: int, *sizes: tuple[int, int], channels: int = 16) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(batch, channels, h, w, generator=generator) for h, w in sizes]


def check(module: nn.Module, example: list[Tensor], others: list[list[Tensor]], dims: Any) -> None:
    """Exports and compares at the example's sizes and at others."""
    fill_with_recipe(module)
    module.eval()
    program = export(module, tuple(example), dynamic_shapes=dims).module()
    for inputs in (example, *others):
        assert_close(program(*inputs), module(*inputs), rtol=1e-6, atol=1e-6)


class DeformableEncoder(nn.Module):
    """One encoder layer on feature maps, whose sizes it takes from their shapes."""

    def __init__(self, boxes: bool, num_points: int | tuple[int, ...]) -> None:
        super().__init__()
        attention = MultiScaleDeformableAttention(16, 4, 2, num_points, batch_first=True)
        order = ("self_attn", "norm", "ffn", "norm")
        self.layer = BaseTransformerLayer(attention, FFN(16, 24), nn.LayerNorm(16), order)
        self.position = PositionEmbeddingSine(8, normalize=True)
        self.boxes = boxes

    def forward(self, *features: Tensor) -> Tensor:
        masks = [x[:, 0] > 1.5 for x in features]
        pos = [self.position(mask).flatten(2) for mask in masks]
        tokens = torch.cat([x.flatten(2) for x in features], -1).transpose(1, 2)
        reference = tokens[:, :, None, : 4 if self.boxes else 2].sigmoid().expand(-1, -1, 2, -1)
        return self.layer(
            tokens,
            query_pos=torch.cat(pos, -1).transpose(1, 2),
            query_key_padding_mask=torch.cat([mask.flatten(1) for mask in masks], 1),
            reference_points=reference,
            spatial_shapes=[tuple(x.shape[-2:]) for x in features],
            is_first_layer=True,
        )


@pytest.mark.parametrize("boxes", [False, True])
@pytest.mark.parametrize("num_points", [2, (3, 1)])
def test_deformable_encoder_layer(boxes, num_points):
    """Plain PyTorch is exported without being asked for."""
    module = DeformableEncoder(boxes, num_points)
    others = [maps(*sizes) for sizes in SIZES]
    check(module, maps(2, (6, 7), (4, 5)), others, {"features": (MAP, MAP)})


class FullAttention(nn.Module):
    """A decoder layer of full attention to a feature map, with a padding mask."""

    def __init__(self, conditional: bool) -> None:
        super().__init__()
        kinds = (
            (ConditionalSelfAttention, ConditionalCrossAttention)
            if conditional
            else (MultiheadAttention, MultiheadAttention)
        )
        order = ("self_attn", "norm", "cross_attn", "norm", "ffn", "norm")
        attentions = [kind(16, 4, batch_first=True) for kind in kinds]
        self.layer = BaseTransformerLayer(attentions, FFN(16, 24), nn.LayerNorm(16), order)
        self.position = PositionEmbeddingSine(8, normalize=True)
        self.queries = nn.Embedding(5, 2)

    def forward(self, feature: Tensor) -> Tensor:
        mask = feature[:, 0] > 1.5
        tokens = feature.flatten(2).transpose(1, 2)
        points = self.queries.weight.sigmoid().expand(feature.shape[0], -1, -1)
        sine = get_sine_pos_embed(points, 8)
        return self.layer(
            torch.zeros_like(sine),
            tokens,
            tokens,
            query_pos=sine,
            query_sine_embed=sine,
            key_pos=self.position(mask).flatten(2).transpose(1, 2),
            key_padding_mask=mask.flatten(1),
            is_first_layer=True,
        )


@pytest.mark.parametrize("conditional", [False, True])
def test_full_attention(conditional):
    others = [maps(batch, size) for batch, size, _ in SIZES]
    check(FullAttention(conditional), maps(2, (6, 7)), others, (MAP,))


class Positions(nn.Module):
    """The sine embedding of a mask."""

    def __init__(self, padded: bool, normalize: bool) -> None:
        super().__init__()
        self.embed = PositionEmbeddingSine(8, normalize=normalize)
        self.padded = padded

    def forward(self, mask: Tensor) -> Tensor:
        return self.embed(mask, padded=self.padded)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("normalize", [False, True])
def test_sine_positions(padded, normalize):
    """To the last bit, and without a condition on sizes."""
    masks = [
        torch.zeros(b, h, w, dtype=torch.bool) for b, h, w in ((2, 6, 7), (1, 3, 9), (3, 8, 2))
    ]
    for mask in masks if padded else ():
        mask[0, -1:], mask[0, :, -1:] = True, True
    module = Positions(padded, normalize)
    dims = ({0: Dim.DYNAMIC, 1: Dim.DYNAMIC, 2: Dim.DYNAMIC},)
    program = export(module, (masks[0],), dynamic_shapes=dims).module()
    for mask in masks:
        assert torch.equal(program(mask), module(mask))


class Points(nn.Module):
    """The sine embedding of points."""

    def forward(self, points: Tensor) -> Tensor:
        return get_sine_pos_embed(points, 8)


def test_sine_of_points():
    points = [torch.rand(b, q, 4) for b, q in ((2, 3), (1, 5), (4, 2))]
    dims = ({0: Dim.DYNAMIC, 1: Dim.DYNAMIC},)
    program = export(Points(), (points[0],), dynamic_shapes=dims).module()
    for inputs in points:
        assert torch.equal(program(inputs), Points()(inputs))

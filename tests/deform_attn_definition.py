"""Multi-scale deformable attention by its definition, and inputs to compare with it."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def slow_core(value, shapes, locations, weights) -> Tensor:
    """The definition, point by point: bilinear interpolation of cells with centers at i + 0.5."""
    b, _, m, d = value.shape
    _, q, _, _, p, _ = locations.shape
    out = value.new_zeros(b, q, m, d)
    start = 0
    for level, (h, w) in enumerate(shapes):
        cells = value[:, start : start + h * w].unflatten(1, (h, w))
        start += h * w
        for index in torch.cartesian_prod(*(torch.arange(n) for n in (b, q, m, p))).tolist():
            image, query, head, point = index
            x, y = locations[image, query, head, level, point] * torch.tensor([w, h]) - 0.5
            weight = weights[image, query, head, level, point]
            for row in (math.floor(y), math.floor(y) + 1):
                for col in (math.floor(x), math.floor(x) + 1):
                    if 0 <= row < h and 0 <= col < w:
                        share = (1 - abs(x - col)) * (1 - abs(y - row))
                        out[image, query, head] += weight * share * cells[image, row, col, head]
    return out.flatten(2)


def random_inputs(
    b=2, q=3, m=2, d=3, shapes=((3, 2), (1, 1)), p=2, dtype=torch.float64
) -> tuple[Tensor, tuple[tuple[int, int], ...], Tensor, Tensor]:
    """Values, locations (some beyond the border) and weights, all random."""
    tokens = sum(h * w for h, w in shapes)
    generator = torch.Generator().manual_seed(0)
    value = torch.randn(b, tokens, m, d, generator=generator, dtype=dtype)
    locations = torch.rand(b, q, m, len(shapes), p, 2, generator=generator, dtype=dtype)
    weights = torch.rand(b, q, m, len(shapes), p, generator=generator, dtype=dtype)
    return value, shapes, locations * 1.6 - 0.3, weights

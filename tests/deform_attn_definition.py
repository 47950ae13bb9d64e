"""Multi-scale deformable attention by its definition, and inputs to compare with it."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def slow_core(value, shapes, locations, weights, points=None) -> Tensor:
    """The definition, point by point: bilinear interpolation of cells with centers at i + 0.5.

    With ``points`` the points of all levels lie in a row, so many of each level.
    """
    b, _, m, d = value.shape
    q = locations.shape[1]
    if points is None:
        by_level = list(zip(locations.unbind(3), weights.unbind(3), strict=True))
    else:
        by_level = list(zip(locations.split(points, 3), weights.split(points, 3), strict=True))
    out = value.new_zeros(b, q, m, d)
    start = 0
    for (h, w), (level_locations, level_weights) in zip(shapes, by_level, strict=True):
        cells = value[:, start : start + h * w].unflatten(1, (h, w))
        start += h * w
        for index in torch.cartesian_prod(*(torch.arange(n) for n in level_weights.shape)).tolist():
            image, query, head, point = index
            x, y = level_locations[image, query, head, point] * torch.tensor([w, h]) - 0.5
            weight = level_weights[image, query, head, point]
            for row in (math.floor(y), math.floor(y) + 1):
                for col in (math.floor(x), math.floor(x) + 1):
                    if 0 <= row < h and 0 <= col < w:
                        share = (1 - abs(x - col)) * (1 - abs(y - row))
                        out[image, query, head] += weight * share * cells[image, row, col, head]
    return out.flatten(2)


def random_inputs(b=2, q=3, m=2, d=3, shapes=((3, 2), (1, 1)), p=2, dtype=torch.float64) -> tuple:
    """Values, shapes, locations (some beyond the border) and weights, all random.

    With a tuple ``p`` of points per level, the points of all levels lie in a row, and the tuple is
    the fifth of the results.
    """
    tokens = sum(h * w for h, w in shapes)
    generator = torch.Generator().manual_seed(0)
    value = torch.randn(b, tokens, m, d, generator=generator, dtype=dtype)
    row = (len(shapes), p) if isinstance(p, int) else (sum(p),)
    locations = torch.rand(b, q, m, *row, 2, generator=generator, dtype=dtype)
    weights = torch.rand(b, q, m, *row, generator=generator, dtype=dtype)
    inputs = value, shapes, locations * 1.6 - 0.3, weights
    return inputs if isinstance(p, int) else (*inputs, p)

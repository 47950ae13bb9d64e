"""Multi-scale deformable attention in plain PyTorch: for every device, and for export.

Letters as in :mod:`detrex.layers.ms_deform_attn.op`.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def forward(value: Tensor, levels: Sequence[int], locations: Tensor, weights: Tensor) -> Tensor:
    """``(B, S, M, D)``, ``L`` times height, width and number of points, ``(B, Q, M, N, 2)``,
    ``(B, Q, M, N)`` -> ``(B, Q, M * D)`` in the dtype of ``value``. Samples are taken in the
    widest of the dtypes."""
    narrow = value.dtype
    wide = functools.reduce(torch.promote_types, (locations.dtype, weights.dtype), narrow)
    value, locations, weights = (x.to(wide) for x in (value, locations, weights))
    b, _, m, d = value.shape
    q = locations.shape[1]
    sizes, points = list(zip(levels[::3], levels[1::3], strict=True)), list(levels[2::3])
    cells = value.permute(0, 2, 3, 1).flatten(0, 1).split([h * w for h, w in sizes], -1)
    grids = (2 * locations - 1).transpose(1, 2).split(points, 3)
    shares = weights.transpose(1, 2).split(points, 3)
    out = value.new_zeros(b * m, d, q)
    for (h, w), level, grid, share in zip(sizes, cells, grids, shares, strict=True):
        sampled = F.grid_sample(
            level.reshape(b * m, d, h, w),
            grid.flatten(0, 1),
            mode="bilinear",
            padding_mode="zeros",
            align_corners=False,
        )  # BM D Q P
        out = out + (sampled * share.flatten(0, 1)[:, None]).sum(-1)
    return out.to(narrow).reshape(b, m * d, q).transpose(1, 2).contiguous()

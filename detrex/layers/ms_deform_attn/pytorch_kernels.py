"""Multi-scale deformable attention in plain PyTorch: for every device, and for export."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def forward(value: Tensor, shapes: Sequence[int], locations: Tensor, weights: Tensor) -> Tensor:
    """``(B, S, M, D)``, ``L`` heights and widths, ``(B, Q, M, L, P, 2)``, ``(B, Q, M, L, P)`` ->
    ``(B, Q, M * D)`` in the dtype of ``value``. Samples are taken in the widest of the dtypes."""
    narrow = value.dtype
    wide = functools.reduce(torch.promote_types, (locations.dtype, weights.dtype), narrow)
    value, locations, weights = (x.to(wide) for x in (value, locations, weights))
    b, _, m, d = value.shape
    q = locations.shape[1]
    sizes = list(zip(shapes[::2], shapes[1::2], strict=True))
    grids = (2 * locations - 1).permute(0, 2, 3, 1, 4, 5).flatten(0, 1)  # BM L Q P 2
    weights = weights.permute(0, 2, 3, 1, 4).flatten(0, 1)  # BM L Q P
    levels = value.permute(0, 2, 3, 1).flatten(0, 1).split([h * w for h, w in sizes], -1)
    out = value.new_zeros(b * m, d, q)
    for level, (h, w) in enumerate(sizes):
        sampled = F.grid_sample(
            levels[level].reshape(b * m, d, h, w),
            grids[:, level],
            mode="bilinear",
            padding_mode="zeros",
            align_corners=False,
        )  # BM D Q P
        out = out + (sampled * weights[:, level, None]).sum(-1)
    return out.to(narrow).reshape(b, m * d, q).transpose(1, 2).contiguous()

"""Noise on boxes, for queries that should find the true boxes again.

Letters: ``N`` boxes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from detrex.layers.box_ops import box_cxcywh_to_xyxy, box_xyxy_to_cxcywh


def noisy_centers_and_sizes(boxes: Tensor, scale: float) -> Tensor:
    """Moves centers by up to ``scale`` times half the size and changes sizes by up to ``scale``
    times themselves. Source: "DN-DETR", arXiv:2203.01305.

    Args:
        boxes: ``(..., 4)`` normalized cxcywh; the result lies in [0, 1].
        scale: 0 to 1.
    """
    reach = torch.cat((boxes[..., 2:] / 2, boxes[..., 2:]), -1)
    noise = (2 * torch.rand_like(boxes) - 1) * scale
    return (boxes + noise * reach).clamp(0, 1)


def noisy_corners(boxes: Tensor, scale: float, negative: Tensor) -> Tensor:
    """Moves each corner by up to ``scale`` times half the size, and by once to twice that for
    negative queries. Source: "DINO", arXiv:2203.03605.

    Args:
        boxes: ``(..., N, 4)`` normalized cxcywh; corners of the result lie in [0, 1].
        negative: ``(N,)`` 1 where a query is negative, else 0.
        scale: of the noise.
    """
    half = boxes[..., 2:].repeat(*[1] * (boxes.ndim - 1), 2) / 2
    sign = 2.0 * torch.randint_like(boxes, 2) - 1
    noise = sign * (torch.rand_like(boxes) + negative[:, None]) * scale
    corners = (box_cxcywh_to_xyxy(boxes) + noise * half).clamp(0, 1)
    return box_xyxy_to_cxcywh(corners)

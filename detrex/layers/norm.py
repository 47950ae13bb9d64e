"""Normalization over channels in either memory order."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class LayerNorm(nn.LayerNorm):
    """Layer normalization over the channels of images.

    Args:
        normalized_shape: the number of channels.
        eps: added to the variance.
        channel_last: True for ``(..., C)`` inputs, False for ``(B, C, H, W)``.
    """

    def __init__(self, normalized_shape: int, eps: float = 1e-6, channel_last: bool = True) -> None:
        super().__init__(normalized_shape, eps=eps)
        self.channel_last = channel_last

    def forward(self, x: Tensor) -> Tensor:
        if self.channel_last:
            return super().forward(x)
        normalized = F.layer_norm(
            x.movedim(1, -1), self.normalized_shape, self.weight, self.bias, self.eps
        )
        return normalized.movedim(-1, 1)

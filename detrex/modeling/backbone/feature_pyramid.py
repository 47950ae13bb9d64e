"""Several scales from the single one of a plain transformer (ViTDet, arXiv:2203.16527).

Letters: B batch, C channels, H height, W width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

from detectron2.layers import get_norm
from torch import Tensor, nn

__all__ = ["FeaturePyramid"]


class FeaturePyramid(nn.Module):
    """One map (B, in_channels, H, W) -> {name: (B, out_channels, H_i, W_i)}, finest first.

    Each level is made from the same map: transposed convolutions for finer ones, max-pooling for
    coarser ones, then a 1x1 and a 3x3 convolution. The map is normalized first, because timm
    returns what a transformer's blocks give without the norm that follows the last of them.

    Args:
        in_channels, in_stride: of the map.
        out_strides: of the levels; each is ``in_stride`` times or divided by a power of two, up to
            four. A level is called ``p`` and the binary logarithm of its stride, rounded.
        out_channels: of every level.

    Raises:
        ValueError: for a stride that cannot be made, naming those that can.
    """

    def __init__(
        self,
        in_channels: int,
        in_stride: int,
        out_strides: Sequence[int],
        out_channels: int = 256,
    ) -> None:
        super().__init__()
        possible = [in_stride / 4, in_stride / 2, in_stride, in_stride * 2, in_stride * 4]
        for stride in out_strides:
            if stride not in possible:
                whole = [int(choice) for choice in possible if choice == int(choice)]
                raise ValueError(
                    f"A pyramid on maps of stride {in_stride} has no level of stride {stride}; "
                    f"its strides are {whole}."
                )
        self.norm = _norm(in_channels)
        self.levels = nn.ModuleDict()
        self.strides: dict[str, int] = {}
        for stride in sorted(set(out_strides)):
            name = f"p{round(math.log2(stride))}"
            self.strides[name] = stride
            self.levels[name] = _level(in_channels, out_channels, in_stride / stride)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.norm(x)
        return {name: level(x) for name, level in self.levels.items()}


def _norm(channels: int) -> nn.Module:
    """LayerNorm over the channels of a map."""
    return cast(nn.Module, get_norm("LN", channels))


def _level(in_channels: int, out_channels: int, scale: float) -> nn.Sequential:
    """Resize by ``scale`` (a power of two), then project."""
    layers: list[nn.Module] = []
    width = in_channels
    while scale > 1:
        if layers:
            layers += [_norm(width), nn.GELU()]
        layers.append(nn.ConvTranspose2d(width, width // 2, kernel_size=2, stride=2))
        width, scale = width // 2, scale / 2
    while scale < 1:
        layers.append(nn.MaxPool2d(kernel_size=2, stride=2))
        scale *= 2
    layers += [
        nn.Conv2d(width, out_channels, kernel_size=1, bias=False),
        _norm(out_channels),
        nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1, bias=False),
        _norm(out_channels),
    ]
    return nn.Sequential(*layers)

"""The block of a ResNet whose 3x3 convolution is deformable; the others are detectron2's.

Letters: B batch, C channels, H height, W width; G deformable groups.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from detectron2.layers import Conv2d
from detectron2.modeling.backbone import resnet
from torch import Tensor, nn
from torchvision.ops import deform_conv2d

__all__ = ["DeformBottleneckBlock", "DeformConv"]


class DeformConv(nn.Module):
    """A convolution with its norm, moved to the places that offsets say.

    Its kernel is torchvision's, since detectron2's needs a compiled extension in some packages.

    Args:
        conv: the plain convolution; its weight, its norm and its geometry are taken over.
    """

    def __init__(self, conv: Conv2d) -> None:
        super().__init__()
        self.weight = conv.weight
        self.bias = conv.bias
        self.norm = conv.norm
        self.geometry = {
            "stride": conv.stride,
            "padding": conv.padding,
            "dilation": conv.dilation,
        }

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value}" for name, value in self.geometry.items())

    def forward(self, x: Tensor, offset: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, C, H, W), offsets (B, 18G, H', W'), mask (B, 9G, H', W') -> (B, C', H', W')."""
        x = deform_conv2d(x, offset, self.weight, self.bias, mask=mask, **self.geometry)
        return x if self.norm is None else self.norm(x)


class DeformBottleneckBlock(resnet.BottleneckBlock):
    """A bottleneck whose 3x3 convolution is deformable (arXiv:1703.06211, arXiv:1811.11168).

    Offsets start at zero, where the unmodulated block equals ``BottleneckBlock``.

    Args:
        deform_modulated: also predict a weight in (0, 1) for each tap (version 2 of the paper).
        deform_num_groups: groups of channels with offsets of their own.
        others: as in ``BottleneckBlock``.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        bottleneck_channels: int,
        deform_modulated: bool = False,
        deform_num_groups: int = 1,
        **others: Any,
    ) -> None:
        super().__init__(
            in_channels, out_channels, bottleneck_channels=bottleneck_channels, **others
        )
        self.deform_modulated = deform_modulated
        values_per_tap = 3 if deform_modulated else 2
        self.conv2_offset = Conv2d(
            bottleneck_channels,
            values_per_tap * 9 * deform_num_groups,
            kernel_size=3,
            stride=self.conv2.stride,
            padding=self.conv2.padding,
            dilation=self.conv2.dilation,
        )
        for parameter in self.conv2_offset.parameters():
            nn.init.zeros_(parameter)
        self.conv2 = DeformConv(self.conv2)  # type: ignore[assignment]

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, out_channels, H/stride, W/stride)."""
        out = F.relu_(self.conv1(x))
        out = F.relu_(self._convolve_deformed(out))
        out = self.conv3(out)
        shortcut = x if self.shortcut is None else self.shortcut(x)
        return F.relu_(out + shortcut)

    def _convolve_deformed(self, x: Tensor) -> Tensor:
        offset = self.conv2_offset(x)  # B, 18G or 27G, H, W: two coordinates per tap first
        if not self.deform_modulated:
            return self.conv2(x, offset)
        taps = offset.shape[1] // 3
        offset, weight = offset.split((2 * taps, taps), dim=1)
        return self.conv2(x, offset, weight.sigmoid())

"""The stem and the blocks of a ResNet, with detectron2's parameter names.

Shape letters: B batch, C channels, H height, W width; G deformable groups.
"""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
import torchvision
from detectron2.layers import CNNBlockBase, Conv2d, get_norm
from torch import Tensor, nn

__all__ = ["BasicBlock", "BasicStem", "BottleneckBlock", "DeformBottleneckBlock", "Norm"]

Norm = str | Callable[[int], nn.Module] | None


def _conv(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    norm: Norm,
    *,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
) -> Conv2d:
    """A bias-free convolution that keeps the size (up to its stride), with its norm inside."""
    conv = Conv2d(
        in_channels,
        out_channels,
        kernel_size=kernel_size,
        stride=stride,
        padding=dilation * (kernel_size // 2),
        dilation=dilation,
        groups=groups,
        bias=False,
        norm=get_norm(norm, out_channels),
    )
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return conv


def _projection(in_channels: int, out_channels: int, stride: int, norm: Norm) -> Conv2d | None:
    """The 1x1 convolution of a shortcut, or None where the identity fits."""
    if in_channels == out_channels:
        return None
    return _conv(in_channels, out_channels, 1, norm, stride=stride)


class BasicStem(CNNBlockBase):
    """7x7 convolution, ReLU and 3x3 max-pooling: (B, in_channels, H, W) -> (B, C, H/4, W/4).

    Args:
        in_channels: channels of the image.
        out_channels: channels of the output.
        norm: a name or a callable that ``detectron2.layers.get_norm`` takes.
    """

    def __init__(self, in_channels: int = 3, out_channels: int = 64, norm: Norm = "BN") -> None:
        super().__init__(in_channels, out_channels, 4)
        self.conv1 = _conv(in_channels, out_channels, 7, norm, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu_(self.conv1(x))
        return F.max_pool2d(x, kernel_size=3, stride=2, padding=1)


class BasicBlock(CNNBlockBase):
    """The block of ResNet-18 and 34: two 3x3 convolutions beside a shortcut.

    Args:
        in_channels, out_channels: widths; a projection is built where they differ.
        stride: of the first convolution and of the projection.
        norm: as in :class:`BasicStem`.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, stride: int = 1, norm: Norm = "BN"
    ) -> None:
        super().__init__(in_channels, out_channels, stride)
        self.shortcut = _projection(in_channels, out_channels, stride, norm)
        self.conv1 = _conv(in_channels, out_channels, 3, norm, stride=stride)
        self.conv2 = _conv(out_channels, out_channels, 3, norm)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv2(F.relu_(self.conv1(x)))
        shortcut = x if self.shortcut is None else self.shortcut(x)
        return F.relu_(out + shortcut)


class BottleneckBlock(CNNBlockBase):
    """The block of ResNet-50 and deeper: 1x1, 3x3 and 1x1 convolutions beside a shortcut.

    Args:
        in_channels, out_channels: widths; a projection is built where they differ.
        bottleneck_channels: width of the 3x3 convolution.
        stride: of the block.
        num_groups: groups of the 3x3 convolution (ResNeXt: 32).
        norm: as in :class:`BasicStem`.
        stride_in_1x1: where the stride sits: in the first 1x1 (weights by MSRA) or in the 3x3
            (weights by torchvision and timm).
        dilation: of the 3x3 convolution.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        bottleneck_channels: int,
        stride: int = 1,
        num_groups: int = 1,
        norm: Norm = "BN",
        stride_in_1x1: bool = False,
        dilation: int = 1,
    ) -> None:
        super().__init__(in_channels, out_channels, stride)
        self.stride_in_1x1 = stride_in_1x1
        stride_1x1, stride_3x3 = (stride, 1) if stride_in_1x1 else (1, stride)
        self.shortcut = _projection(in_channels, out_channels, stride, norm)
        self.conv1 = _conv(in_channels, bottleneck_channels, 1, norm, stride=stride_1x1)
        self.conv2 = self._spatial_conv(
            bottleneck_channels, norm, stride=stride_3x3, dilation=dilation, groups=num_groups
        )
        self.conv3 = _conv(bottleneck_channels, out_channels, 1, norm)

    def _spatial_conv(self, channels: int, norm: Norm, **geometry: int) -> nn.Module:
        return _conv(channels, channels, 3, norm, **geometry)

    def _mix_space(self, x: Tensor) -> Tensor:
        return self.conv2(x)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu_(self.conv1(x))
        out = F.relu_(self._mix_space(out))
        shortcut = x if self.shortcut is None else self.shortcut(x)
        return F.relu_(self.conv3(out) + shortcut)


class DeformConv(torchvision.ops.DeformConv2d):
    """A deformable convolution with its norm inside: keys ``weight`` and ``norm.*``."""

    def __init__(self, channels: int, norm: Norm, *, stride: int, dilation: int, groups: int):
        super().__init__(
            channels,
            channels,
            3,
            stride=stride,
            padding=dilation,
            dilation=dilation,
            groups=groups,
            bias=False,
        )
        self.norm = get_norm(norm, channels)
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor, offset: Tensor, mask: Tensor | None = None) -> Tensor:
        x = super().forward(x, offset, mask)
        return x if self.norm is None else self.norm(x)


class DeformBottleneckBlock(BottleneckBlock):
    """A bottleneck whose 3x3 convolution is deformable (arXiv:1703.06211, arXiv:1811.11168).

    Offsets start at zero, where the unmodulated block equals :class:`BottleneckBlock`.

    Args:
        deform_modulated: also predict a weight in (0, 1) for each tap (version 2 of the paper).
        deform_num_groups: groups of channels with offsets of their own.
        others: as in :class:`BottleneckBlock`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        bottleneck_channels: int,
        stride: int = 1,
        num_groups: int = 1,
        norm: Norm = "BN",
        stride_in_1x1: bool = False,
        dilation: int = 1,
        deform_modulated: bool = False,
        deform_num_groups: int = 1,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            bottleneck_channels=bottleneck_channels,
            stride=stride,
            num_groups=num_groups,
            norm=norm,
            stride_in_1x1=stride_in_1x1,
            dilation=dilation,
        )
        self.deform_modulated = deform_modulated
        values_per_tap = 3 if deform_modulated else 2
        self.conv2_offset = Conv2d(
            bottleneck_channels,
            values_per_tap * 9 * deform_num_groups,
            kernel_size=3,
            stride=1 if stride_in_1x1 else stride,
            padding=dilation,
            dilation=dilation,
        )
        for parameter in self.conv2_offset.parameters():
            nn.init.zeros_(parameter)

    def _spatial_conv(self, channels: int, norm: Norm, **geometry: int) -> nn.Module:
        return DeformConv(channels, norm, **geometry)

    def _mix_space(self, x: Tensor) -> Tensor:
        offset = self.conv2_offset(x)  # B, 18G or 27G, H, W: two coordinates per tap first
        if not self.deform_modulated:
            return self.conv2(x, offset)
        taps = offset.shape[1] // 3
        offset, weight = offset.split((2 * taps, taps), dim=1)
        return self.conv2(x, offset, weight.sigmoid())

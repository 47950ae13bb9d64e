"""Building blocks of convolutional networks."""

from __future__ import annotations

from collections.abc import Callable

from detectron2.layers import weight_init
from detectron2.layers.batch_norm import FrozenBatchNorm2d, get_norm
from detectron2.layers.wrappers import Conv2d
from torch import Tensor, nn

__all__ = ["CNNBlockBase", "DepthwiseSeparableConv2d"]

Norm = str | Callable[[int], nn.Module] | None


class CNNBlockBase(nn.Module):
    """A block of a convolutional network: (B, C_in, H, W) -> (B, C_out, H/stride, W/stride).

    Attributes:
        in_channels: C_in.
        out_channels: C_out.
        stride: the factor by which the block shrinks its input.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.stride = stride

    def freeze(self) -> CNNBlockBase:
        """Take the parameters out of training and make each BatchNorm a FrozenBatchNorm2d."""
        for parameter in self.parameters():
            parameter.requires_grad = False
        FrozenBatchNorm2d.convert_frozen_batchnorm(self)
        return self


class DepthwiseSeparableConv2d(nn.Module):
    """A convolution per channel, then a 1x1 convolution over the channels (Xception).

    Args:
        in_channels: C_in.
        out_channels: C_out.
        kernel_size: of the convolution per channel.
        padding: of the convolution per channel.
        dilation: of the convolution per channel.
        norm1: norm after the convolution per channel, as of ``get_norm``.
        activation1: activation after it.
        norm2: norm after the 1x1 convolution.
        activation2: activation after it.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        padding: int = 1,
        dilation: int = 1,
        *,
        norm1: Norm = None,
        activation1: Callable[[Tensor], Tensor] | None = None,
        norm2: Norm = None,
        activation2: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.depthwise = Conv2d(
            in_channels,
            in_channels,
            kernel_size=kernel_size,
            padding=padding,
            dilation=dilation,
            groups=in_channels,
            bias=not norm1,
            norm=get_norm(norm1, in_channels),
            activation=activation1,
        )
        self.pointwise = Conv2d(
            in_channels,
            out_channels,
            kernel_size=1,
            bias=not norm2,
            norm=get_norm(norm2, out_channels),
            activation=activation2,
        )
        weight_init.c2_msra_fill(self.depthwise)
        weight_init.c2_msra_fill(self.pointwise)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) -> (B, C_out, H', W')."""
        return self.pointwise(self.depthwise(x))

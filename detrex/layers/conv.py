"""A convolution followed by a norm and an activation."""

from __future__ import annotations

from torch import Tensor, nn


class ConvNormAct(nn.Module):
    """Convolution, then ``norm_layer``, then ``activation``; either may be None.

    Args:
        in_channels: channels of the input ``(B, C, H, W)``.
        out_channels: channels of the output.
        kernel_size: side of the kernel.
        stride: step of the kernel.
        padding: zeros on every side; half the kernel if not given, which keeps the size.
        dilation: spacing of the kernel.
        groups: groups of channels.
        bias: whether the convolution has a bias.
        norm_layer: a built norm over ``out_channels``.
        activation: a built activation.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        stride: int = 1,
        padding: int | None = None,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
        norm_layer: nn.Module | None = None,
        activation: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if padding is None:
            padding = dilation * (kernel_size - 1) // 2
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias
        )
        self.norm = norm_layer
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if self.norm is not None:
            x = self.norm(x)
        if self.activation is not None:
            x = self.activation(x)
        return x


class ConvNorm(ConvNormAct):
    """:class:`ConvNormAct` by the name for what has no activation."""

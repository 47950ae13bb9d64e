"""Atrous spatial pyramid pooling (arXiv:1802.02611)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from detectron2.layers import weight_init
from detectron2.layers.batch_norm import get_norm
from detectron2.layers.blocks import DepthwiseSeparableConv2d, Norm
from detectron2.layers.wrappers import Conv2d
from torch import Tensor, nn

__all__ = ["ASPP"]


class ASPP(nn.Module):
    """Sees a map at several scales: by a 1x1 convolution, three dilated ones, and pooling.

    Args:
        in_channels: C_in.
        out_channels: C_out.
        dilations: of the three 3x3 convolutions.
        norm: as of ``get_norm``.
        activation: applied after each convolution; modules are copied.
        pool_kernel_size: (height, width) of the pooling; default: the whole map.
        dropout: probability of dropping outputs in training.
        use_depthwise_separable_conv: for the dilated convolutions.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        dilations: Sequence[int],
        *,
        norm: Norm,
        activation: Callable[[Tensor], Tensor],
        pool_kernel_size: tuple[int, int] | None = None,
        dropout: float = 0.0,
        use_depthwise_separable_conv: bool = False,
    ) -> None:
        super().__init__()
        if len(dilations) != 3:
            raise AssertionError(f"ASPP takes three dilations, not {dilations}.")

        def conv(channels: int, size: int, dilation: int, norm: Norm) -> Conv2d:
            layer = Conv2d(
                channels,
                out_channels,
                kernel_size=size,
                padding=size // 2 * dilation,
                dilation=dilation,
                bias=not norm,
                norm=get_norm(norm, out_channels),
                activation=copy.deepcopy(activation),
            )
            weight_init.c2_xavier_fill(layer)
            return layer

        def separable(dilation: int) -> DepthwiseSeparableConv2d:
            return DepthwiseSeparableConv2d(
                in_channels,
                out_channels,
                padding=dilation,
                dilation=dilation,
                norm1=norm,
                activation1=copy.deepcopy(activation),
                norm2=norm,
                activation2=copy.deepcopy(activation),
            )

        self.pool_kernel_size = pool_kernel_size
        self.dropout = dropout
        self.convs = nn.ModuleList([conv(in_channels, 1, 1, norm)])
        for dilation in dilations:
            use_separable = use_depthwise_separable_conv
            self.convs.append(
                separable(dilation) if use_separable else conv(in_channels, 3, dilation, norm)
            )
        if pool_kernel_size is None:
            # One value per image and channel is nothing to normalize.
            pooling = [nn.AdaptiveAvgPool2d(1), conv(in_channels, 1, 1, None)]
        else:
            pooling = [nn.AvgPool2d(pool_kernel_size, stride=1), conv(in_channels, 1, 1, norm)]
        self.convs.append(nn.Sequential(*pooling))
        self.project = conv(5 * out_channels, 1, 1, norm)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) -> (B, C_out, H, W).

        Raises:
            ValueError: H and W do not divide by ``pool_kernel_size``.
        """
        size = x.shape[-2:]
        pool = self.pool_kernel_size
        if pool is not None and (size[0] % pool[0] or size[1] % pool[1]):
            raise ValueError(
                f"A map of {tuple(size)} does not divide by the pool_kernel_size {pool}."
            )
        maps = [conv(x) for conv in self.convs]
        maps[-1] = F.interpolate(maps[-1], size=size, mode="bilinear", align_corners=False)
        return F.dropout(self.project(torch.cat(maps, dim=1)), self.dropout, self.training)

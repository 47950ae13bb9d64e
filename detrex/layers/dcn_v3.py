"""Deformable convolution, version 3: each position reads a few weighted points around itself.

Source: "InternImage", arXiv:2211.05778. The names and arguments are those of the public detrex.

The operator is deformable attention to a single level: positions are queries, groups are heads, and
the points of a kernel are those of a head. So :func:`~detrex.layers.ms_deform_attn.ms_deform_attn`
computes it, with its kernels for CPU and GPU, its gradients, and plain PyTorch for export. On one
core it takes a fourth (13 x 17 positions, 512 channels) to a ninth (100 x 136, 64) of the time of
``grid_sample``, with and without gradients (``benchmarks/dcnv3.py``).

Letters: ``B`` batch, ``H`` and ``W`` height and width of the input, ``Y`` and ``X`` of the output,
``C`` channels, ``G`` groups, ``K`` points of a kernel.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detrex.layers.ms_deform_attn import ms_deform_attn, pytorch_kernels
from detrex.layers.ms_deform_attn.op import is_exporting

__all__ = [
    "CenterFeatureScaleModule",
    "DCNv3",
    "DCNv3Function",
    "DCNv3_pytorch",
    "build_act_layer",
    "build_norm_layer",
    "dcnv3_core_pytorch",
    "to_channels_first",
    "to_channels_last",
]

Pair = tuple[int, int]
"""Of the vertical and the horizontal direction."""


class to_channels_first(nn.Module):
    """``(B, H, W, C)`` -> ``(B, C, H, W)``, as a layer of a sequence."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 3, 1, 2)


class to_channels_last(nn.Module):
    """``(B, C, H, W)`` -> ``(B, H, W, C)``, as a layer of a sequence."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1)


def build_norm_layer(
    dim: int,
    norm_layer: str,
    in_format: str = "channels_last",
    out_format: str = "channels_last",
    eps: float = 1e-6,
) -> nn.Sequential:
    """A norm between two layouts of maps.

    Where in the sequence the norm is, parameters are named by, depends on the layouts.

    Args:
        dim: channels.
        norm_layer: ``"LN"`` over the channels of each position, or ``"BN"``, batch norm.
        in_format: layout of the input, ``"channels_first"`` or ``"channels_last"``.
        out_format: layout of the output.
        eps: added to the variance by ``"LN"``.

    Raises:
        ValueError: there is no such norm.
    """
    if norm_layer not in ("LN", "BN"):
        raise ValueError(f"There is no norm_layer {norm_layer!r}; there are 'LN' and 'BN'.")
    of_positions = norm_layer == "LN"
    norm = nn.LayerNorm(dim, eps=eps) if of_positions else nn.BatchNorm2d(dim)
    inside = "channels_last" if of_positions else "channels_first"
    layers: list[nn.Module] = []
    change = {"channels_first": to_channels_first, "channels_last": to_channels_last}
    if in_format != inside:
        layers.append(change[inside]())
    layers.append(norm)
    if out_format != inside:
        layers.append(change[out_format]())
    return nn.Sequential(*layers)


def build_act_layer(act_layer: str) -> nn.Module:
    """``"ReLU"``, ``"SiLU"`` or ``"GELU"``.

    Raises:
        ValueError: it is another name.
    """
    layers = {"ReLU": nn.ReLU, "SiLU": nn.SiLU, "GELU": nn.GELU}
    if act_layer not in layers:
        raise ValueError(f"There is no act_layer {act_layer!r}; there are {', '.join(layers)}.")
    return layers[act_layer]()


class _Geometry(NamedTuple):
    """What points a convolution reads, in the order that upstream has its arguments in."""

    kernel_h: int
    kernel_w: int
    stride_h: int
    stride_w: int
    pad_h: int
    pad_w: int
    dilation_h: int
    dilation_w: int
    group: int
    group_channels: int
    offset_scale: float

    @property
    def num_points(self) -> int:
        """``K``."""
        return self.kernel_h * self.kernel_w

    def axes(self) -> tuple[tuple[int, int, int, int], ...]:
        """Kernel, stride, pad and dilation, of the vertical and of the horizontal axis."""
        return self[:8:2], self[1:8:2]

    def output_size(self, size: Pair) -> Pair:
        """``(Y, X)`` for ``(H, W)``."""
        y, x = (
            (side + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1
            for side, (kernel, stride, pad, dilation) in zip(size, self.axes(), strict=True)
        )
        return y, x

    def points(self, size: Pair, like: Tensor) -> tuple[Tensor, Tensor]:
        """Where kernels read if their offsets are zero, ``(Y * X, K * 2)``, and how far an offset
        of one reaches, ``(K * 2,)``. Both are relative to ``(H, W)``, as (x, y)."""
        coordinates, units = [], []
        sides = zip(size, self.output_size(size), self.axes(), strict=True)
        for side, count, (kernel, stride, pad, dilation) in sides:
            middle = dilation * (kernel - 1) // 2
            center = torch.arange(count, dtype=like.dtype, device=like.device) * stride
            step = torch.arange(kernel, dtype=like.dtype, device=like.device) * dilation - middle
            center = center + (middle - pad + 0.5)
            coordinates.append((center[:, None] + step * self.offset_scale) / side)
            units.append(like.new_full((), self.offset_scale) / side)
        y, x = coordinates  # Y kernel_h, X kernel_w
        y, x = torch.broadcast_tensors(y[:, None, None, :], x[None, :, :, None])
        unit = torch.stack(units[::-1]).repeat(self.num_points)
        return torch.stack((x, y), -1).flatten(2).flatten(0, 1), unit


def _check(input: Tensor, offset: Tensor, mask: Tensor, geometry: _Geometry, out: Pair) -> None:
    """Points are read in rows, so tensors of other shapes could fit by accident.

    Raises:
        ValueError: shapes don't fit together.
    """
    group, channels = geometry.group, geometry.group_channels
    if input.shape[-1] != group * channels:
        raise ValueError(
            f"An input {tuple(input.shape)} doesn't have {group} groups of {channels} channels."
        )
    points = group * geometry.num_points
    of_offset, of_mask = ((input.shape[0], *out, count) for count in (2 * points, points))
    if offset.shape != of_offset or mask.shape != of_mask:
        raise ValueError(
            f"For an input {tuple(input.shape)}, offset has the shape {of_offset} and mask "
            f"{of_mask}, not {tuple(offset.shape)} and {tuple(mask.shape)}."
        )


def _sum_samples(
    input: Tensor, offset: Tensor, mask: Tensor, geometry: _Geometry, plain: bool
) -> Tensor:
    """The convolution as deformable attention, in plain PyTorch or by what is fastest."""
    batch, height, width, _ = input.shape
    out, points = geometry.output_size((height, width)), geometry.num_points
    if not is_exporting():
        _check(input, offset, mask, geometry, out)
    offset = offset.to(torch.promote_types(offset.dtype, torch.float32))
    grid, unit = geometry.points((height, width), offset)
    rows = (batch, out[0] * out[1], geometry.group)
    # Broadcast over rows, not over pairs of numbers, which takes several times as long.
    locations = torch.addcmul(grid[:, None], offset.reshape(*rows, 2 * points), unit)
    locations, weights = locations.unflatten(-1, (points, 2)), mask.reshape(*rows, points)
    value = input.reshape(batch, height * width, geometry.group, geometry.group_channels)
    if plain:
        summed = pytorch_kernels.forward(value, [height, width, points], locations, weights)
    else:
        summed = ms_deform_attn(value, [(height, width)], locations, weights, [points])
    return summed.unflatten(1, out)


def dcnv3_core_pytorch(
    input: Tensor,
    offset: Tensor,
    mask: Tensor,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    group: int,
    group_channels: int,
    offset_scale: float,
) -> Tensor:
    """Weighted sums of bilinear samples, in plain PyTorch.

    Args:
        input: ``(B, H, W, C)``; beyond its borders it is zero.
        offset: ``(B, Y, X, G * K * 2)`` as (x, y), in pixels before ``offset_scale``. The points of
            a kernel are counted column by column.
        mask: ``(B, Y, X, G * K)``, the weights; DCNv3 takes their softmax over ``K`` before.
        kernel_h, kernel_w: points of the kernel, ``K`` together.
        stride_h, stride_w: pixels between positions.
        pad_h, pad_w: pixels beyond each border that kernels cover.
        dilation_h, dilation_w: pixels between points.
        group: ``G``.
        group_channels: ``C / G``.
        offset_scale: factor of the kernel's extent, offsets included.

    Returns:
        ``(B, Y, X, C)`` in the dtype of ``input``. Points and weights have single precision at
        least.

    Raises:
        ValueError: shapes don't fit together.
    """
    geometry = _Geometry(
        *(kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w),
        *(group, group_channels, offset_scale),
    )
    return _sum_samples(input, offset, mask, geometry, plain=True)


class DCNv3Function:
    """The same by the fastest implementation for the device, called as an autograd function."""

    @staticmethod
    def apply(input: Tensor, offset: Tensor, mask: Tensor, *arguments: Any) -> Tensor:
        """Arguments and result of :func:`dcnv3_core_pytorch`, by position.

        One more argument, ``im2col_step``, may follow and has no effect.
        """
        geometry = _Geometry(*arguments[: len(_Geometry._fields)])
        return _sum_samples(input, offset, mask, geometry, plain=False)


class CenterFeatureScaleModule(nn.Module):
    """How much of the result is each position's own feature, by group (InternImage-H)."""

    def forward(
        self,
        query: Tensor,
        center_feature_scale_proj_weight: Tensor,
        center_feature_scale_proj_bias: Tensor,
    ) -> Tensor:
        """``(B, H, W, C)``, ``(G, C)``, ``(G,)`` -> ``(B, H, W, G)`` between 0 and 1."""
        weight, bias = center_feature_scale_proj_weight, center_feature_scale_proj_bias
        return F.linear(query, weight, bias).sigmoid()


class DCNv3(nn.Module):
    """Deformable convolution v3 with its projections: ``(B, H, W, C)`` -> ``(B, Y, X, C)``.

    A depthwise convolution says at each position where its groups read and with what weights. With
    a ``stride``, or a ``pad`` other than what keeps the size, it has its positions where the
    deformable one has them.

    Args:
        channels: ``C``.
        kernel_size: points of the kernel's sides.
        dw_kernel_size: side of the depthwise convolution's kernel; ``kernel_size`` if not given.
        stride: pixels between positions.
        pad: pixels beyond each border that kernels cover.
        dilation: pixels between points.
        group: ``G``, groups of channels that read alike; divides ``channels``.
        offset_scale: factor of the kernel's extent, offsets included.
        act_layer: activation of the depthwise convolution, for :func:`build_act_layer`.
        norm_layer: its norm, for :func:`build_norm_layer`.
        center_feature_scale: mix each position's own feature into the result.

    Raises:
        ValueError: arguments don't fit together.
    """

    def __init__(
        self,
        channels: int = 64,
        kernel_size: int = 3,
        dw_kernel_size: int | None = None,
        stride: int = 1,
        pad: int = 1,
        dilation: int = 1,
        group: int = 4,
        offset_scale: float = 1.0,
        act_layer: str = "GELU",
        norm_layer: str = "LN",
        center_feature_scale: bool = False,
    ) -> None:
        super().__init__()
        if channels % group:
            raise ValueError(f"channels {channels} are not divisible by group {group}.")
        self.channels = channels
        self.kernel_size = kernel_size
        self.dw_kernel_size = kernel_size if dw_kernel_size is None else dw_kernel_size
        self.stride = stride
        self.pad = pad
        self.dilation = dilation
        self.group = group
        self.group_channels = channels // group
        self.offset_scale = offset_scale
        self.center_feature_scale = center_feature_scale
        self.dw_conv = nn.Sequential(
            nn.Conv2d(
                channels, channels, self.dw_kernel_size, stride, self._dw_padding(), groups=channels
            ),
            build_norm_layer(channels, norm_layer, "channels_first", "channels_last"),
            build_act_layer(act_layer),
        )
        points = group * kernel_size**2
        self.offset = nn.Linear(channels, points * 2)
        self.mask = nn.Linear(channels, points)
        self.input_proj = nn.Linear(channels, channels)
        self.output_proj = nn.Linear(channels, channels)
        if center_feature_scale:
            self.center_feature_scale_proj_weight = nn.Parameter(torch.zeros(group, channels))
            self.center_feature_scale_proj_bias = nn.Parameter(torch.zeros(group))
            self.center_feature_scale_module = CenterFeatureScaleModule()
        self._reset_parameters()

    def _dw_padding(self) -> int:
        """Padding that centers the depthwise convolution where the deformable one is."""
        ahead = self.dilation * (self.kernel_size - 1)
        padding, odd = divmod(self.dw_kernel_size - 1 - ahead + 2 * self.pad, 2)
        if odd or padding < 0:
            raise ValueError(
                f"A depthwise convolution of dw_kernel_size {self.dw_kernel_size} has no center "
                f"where one of kernel_size {self.kernel_size}, dilation {self.dilation} and pad "
                f"{self.pad} has it; take a larger pad, or both sizes odd."
            )
        keeps_size = self.stride == 1 and 2 * self.pad == ahead
        if self.center_feature_scale and not keeps_size:
            raise ValueError(
                "center_feature_scale mixes the input into the result, so stride is 1 and pad "
                f"keeps the size, not {self.stride} and {self.pad}."
            )
        return padding

    def _reset_parameters(self) -> None:
        """Start as a convolution that averages its points, without offsets."""
        for layer in (self.offset, self.mask):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        for layer in (self.input_proj, self.output_proj):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    reset_parameters = _reset_parameters

    def forward(self, input: Tensor) -> Tensor:
        """``(B, H, W, C)`` -> ``(B, Y, X, C)``."""
        value = self.input_proj(input)
        query = self.dw_conv(input.permute(0, 3, 1, 2))
        weights = self.mask(query).unflatten(-1, (self.group, -1))
        weights = weights.softmax(-1, torch.promote_types(weights.dtype, torch.float32))
        sides = (self.kernel_size, self.stride, self.pad, self.dilation)
        x = DCNv3Function.apply(
            *(value, self.offset(query), weights.flatten(-2)),
            *(number for side in sides for number in (side, side)),
            *(self.group, self.group_channels, self.offset_scale),
        )
        if self.center_feature_scale:
            share = self.center_feature_scale_module(
                query, self.center_feature_scale_proj_weight, self.center_feature_scale_proj_bias
            )
            x = torch.lerp(x, value, share.repeat_interleave(self.group_channels, -1))
        return self.output_proj(x)


DCNv3_pytorch = DCNv3
"""The same module: what computes it is chosen where it runs."""

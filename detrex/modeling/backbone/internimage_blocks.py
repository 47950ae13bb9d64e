"""The parts of :class:`~detrex.modeling.backbone.InternImage` (arXiv:2211.05778).

Maps have their channels last: what most of the work is, norms and linear layers, wants them so.

Letters: ``B`` batch, ``H`` and ``W`` height and width, ``C`` channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from timm.layers import DropPath
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from detrex.layers.dcn_v3 import DCNv3, DCNv3_pytorch, build_act_layer, build_norm_layer
from detrex.modeling.backbone.checkpointing import contexts

CORE_OPS = {"DCNv3": DCNv3, "DCNv3_pytorch": DCNv3_pytorch}
"""By name. Both are one module, which chooses its kernels where it runs."""


def core_op_class(name: Any) -> Any:
    """The class of a name; a class is taken as it is."""
    if not isinstance(name, str):
        return name
    if name not in CORE_OPS:
        raise ValueError(f"There is no core_op {name!r}; there are {', '.join(CORE_OPS)}.")
    return CORE_OPS[name]


class StemLayer(nn.Module):
    """Images ``(B, in_chans, H, W)`` -> maps ``(B, H / 4, W / 4, out_chans)``, rounded up."""

    def __init__(
        self,
        in_chans: int = 3,
        out_chans: int = 96,
        act_layer: str = "GELU",
        norm_layer: str = "BN",
    ) -> None:
        super().__init__()
        half = out_chans // 2
        self.conv1 = nn.Conv2d(in_chans, half, 3, stride=2, padding=1)
        self.norm1 = build_norm_layer(half, norm_layer, "channels_first", "channels_first")
        self.act = build_act_layer(act_layer)
        self.conv2 = nn.Conv2d(half, out_chans, 3, stride=2, padding=1)
        self.norm2 = build_norm_layer(out_chans, norm_layer, "channels_first", "channels_last")

    def forward(self, x: Tensor) -> Tensor:
        return self.norm2(self.conv2(self.act(self.norm1(self.conv1(x)))))


class DownsampleLayer(nn.Module):
    """``(B, H, W, C)`` -> ``(B, H / 2, W / 2, 2 * C)``, rounded up."""

    def __init__(self, channels: int, norm_layer: str = "LN") -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1, bias=False)
        self.norm = build_norm_layer(2 * channels, norm_layer, "channels_first", "channels_last")

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x.permute(0, 3, 1, 2)))


class MLPLayer(nn.Module):
    """Feed-forward network of two layers: ``(..., in_features)`` -> ``(..., out_features)``."""

    def __init__(
        self,
        in_features: int,
        hidden_features: int | None = None,
        out_features: int | None = None,
        act_layer: str = "GELU",
        drop: float = 0.0,
    ) -> None:
        super().__init__()
        self.fc1 = nn.Linear(in_features, hidden_features or in_features)
        self.act = build_act_layer(act_layer)
        self.fc2 = nn.Linear(hidden_features or in_features, out_features or in_features)
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.fc2(self.drop(self.act(self.fc1(x)))))


class InternImageLayer(nn.Module):
    """Deformable convolution and feed-forward network, each with a residual: ``(B, H, W, C)``.

    Args:
        core_op: ``"DCNv3"`` or ``"DCNv3_pytorch"``, which are one, or a class with the arguments of
            :class:`~detrex.layers.dcn_v3.DCNv3`.
        channels: ``C``.
        groups: groups of the convolution.
        mlp_ratio: hidden channels of the feed-forward network, in ``channels``.
        drop: dropout in the feed-forward network.
        drop_path: how often a sample goes by the residual alone, in training.
        act_layer: activation.
        norm_layer: ``"LN"`` or ``"BN"``.
        post_norm: normalize what is added, not what is read.
        layer_scale: where factors of what is added start; None for none.
        offset_scale: of the convolution.
        with_cp: keep the input alone for the backward pass, and compute the layer again.
        dw_kernel_size: of the convolution's depthwise one.
        res_post_norm: normalize both what is read and what is added.
        center_feature_scale: of the convolution.
    """

    def __init__(
        self,
        core_op: Any,
        channels: int,
        groups: int,
        mlp_ratio: float = 4.0,
        drop: float = 0.0,
        drop_path: float = 0.0,
        act_layer: str = "GELU",
        norm_layer: str = "LN",
        post_norm: bool = False,
        layer_scale: float | None = None,
        offset_scale: float = 1.0,
        with_cp: bool = False,
        dw_kernel_size: int | None = None,
        res_post_norm: bool = False,
        center_feature_scale: bool = False,
    ) -> None:
        super().__init__()
        self.channels = channels
        self.groups = groups
        self.mlp_ratio = mlp_ratio
        self.with_cp = with_cp
        self.post_norm = post_norm
        self.res_post_norm = res_post_norm and not post_norm
        self.layer_scale = layer_scale is not None
        self.norm1 = build_norm_layer(channels, norm_layer)
        self.dcn = core_op_class(core_op)(
            channels=channels,
            kernel_size=3,
            dw_kernel_size=dw_kernel_size,
            stride=1,
            pad=1,
            dilation=1,
            group=groups,
            offset_scale=offset_scale,
            act_layer=act_layer,
            norm_layer=norm_layer,
            center_feature_scale=center_feature_scale,
        )
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()
        self.norm2 = build_norm_layer(channels, norm_layer)
        hidden = int(channels * mlp_ratio)
        self.mlp = MLPLayer(channels, hidden, act_layer=act_layer, drop=drop)
        if layer_scale is not None:
            self.gamma1 = nn.Parameter(torch.full((channels,), float(layer_scale)))
            self.gamma2 = nn.Parameter(torch.full((channels,), float(layer_scale)))
        if self.res_post_norm:
            self.res_post_norm1 = build_norm_layer(channels, norm_layer)
            self.res_post_norm2 = build_norm_layer(channels, norm_layer)

    def forward(self, x: Tensor) -> Tensor:
        if self.with_cp and self.training and torch.is_grad_enabled():
            unrecorded = partial(contexts, self)
            return checkpoint(self._compute, x, use_reentrant=False, context_fn=unrecorded)
        return self._compute(x)

    def _compute(self, x: Tensor) -> Tensor:
        for i, (norm, layer) in enumerate(((self.norm1, self.dcn), (self.norm2, self.mlp)), 1):
            added = norm(layer(x)) if self.post_norm else layer(norm(x))
            if self.res_post_norm:
                added = getattr(self, f"res_post_norm{i}")(added)
            if self.layer_scale:
                added = getattr(self, f"gamma{i}") * added
            x = x + self.drop_path(added)
        return x


class InternImageBlock(nn.Module):
    """One level of the network: layers, a norm, and what makes the next level's input.

    Args:
        core_op: as all that is not said here, for :class:`InternImageLayer`.
        channels: ``C``.
        depth: number of layers.
        groups: groups of the convolutions.
        downsample: whether another level follows.
        drop_path: for all layers, or for each.
        post_norm_block_ids: layers with another LayerNorm behind them.
        arguments: the others of :class:`InternImageLayer`.
    """

    def __init__(
        self,
        core_op: Any,
        channels: int,
        depth: int,
        groups: int,
        downsample: bool = True,
        *,
        drop_path: float | Sequence[float] = 0.0,
        norm_layer: str = "LN",
        post_norm: bool = False,
        post_norm_block_ids: Sequence[int] | None = None,
        center_feature_scale: bool = False,
        **arguments: Any,
    ) -> None:
        super().__init__()
        rates = [drop_path] * depth if isinstance(drop_path, int | float) else list(drop_path)
        self.post_norm_block_ids = [] if post_norm_block_ids is None else list(post_norm_block_ids)
        if not set(self.post_norm_block_ids) <= set(range(depth)):
            raise ValueError(
                f"post_norm_block_ids {self.post_norm_block_ids} count layers from 0, and there "
                f"are {depth}."
            )
        self.blocks = nn.ModuleList(
            InternImageLayer(
                core_op,
                channels,
                groups,
                drop_path=rate,
                norm_layer=norm_layer,
                post_norm=post_norm,
                center_feature_scale=center_feature_scale,
                **arguments,
            )
            for rate in rates
        )
        self.norm: nn.Module = nn.Identity()
        if not post_norm or center_feature_scale:
            self.norm = build_norm_layer(channels, "LN")
        if self.post_norm_block_ids:
            self.post_norms = nn.ModuleList(
                build_norm_layer(channels, "LN") for _ in self.post_norm_block_ids
            )
        self.downsample = DownsampleLayer(channels, norm_layer) if downsample else None

    def forward(self, x: Tensor, return_wo_downsample: bool = False) -> Any:
        """``(B, H, W, C)`` -> the next level's input, ``(B, H / 2, W / 2, 2 * C)``.

        Args:
            x: this level's input.
            return_wo_downsample: return the pair of that and this level's output,
                ``(B, H, W, C)``.
        """
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in self.post_norm_block_ids:
                x = self.post_norms[self.post_norm_block_ids.index(index)](x)
        x = self.norm(x)
        next_level = x if self.downsample is None else self.downsample(x)
        return (next_level, x) if return_wo_downsample else next_level

"""InternImage: a network of large deformable convolutions, built like a transformer.

Source: "InternImage", arXiv:2211.05778. The names and arguments are those of the public detrex, and
so are those of parameters. What computes is :mod:`detrex.layers.dcn_v3`.

Letters: ``B`` batch, ``H`` and ``W`` height and width.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from detectron2.modeling import Backbone
from torch import Tensor, nn

from detrex.layers.dcn_v3 import DCNv3, build_act_layer, build_norm_layer
from detrex.modeling.backbone.arguments import as_channels_first, check_images
from detrex.modeling.backbone.internimage_blocks import (
    DownsampleLayer,
    InternImageBlock,
    InternImageLayer,
    MLPLayer,
    StemLayer,
    core_op_class,
)
from detrex.modeling.backbone.pixels import IMAGENET_RGB, PixelProperties

__all__ = [
    "DownsampleLayer",
    "InternImage",
    "InternImageBlock",
    "InternImageLayer",
    "MLPLayer",
    "StemLayer",
    "build_act_layer",
    "build_norm_layer",
]


class InternImage(PixelProperties, Backbone):
    """``(B, 3, H, W)`` -> maps ``p0`` to ``p3`` of stride 4 to 32, of any size.

    The published networks have post-norms, ``layer_scale`` 1 and, from T to L, ``channels`` 64, 80,
    112, 160 in groups of 16; T has pre-norms, and an ``offset_scale`` of 2 comes with L and XL. H
    has ``res_post_norm``, ``center_feature_scale``, a ``dw_kernel_size`` of 5 and more norms in
    its third level.

    Args:
        core_op: ``"DCNv3"`` or ``"DCNv3_pytorch"``. They are one: what computes is chosen by
            device at run time (:mod:`detrex.layers.ms_deform_attn`).
        channels: of the first level; each other one has twice those of the one before.
        depths: number of layers in each level.
        groups: groups of the convolutions in each level; divide its channels.
        mlp_ratio: hidden channels of feed-forward networks, in channels of their level.
        drop_rate: dropout of the first level's input, and in feed-forward networks.
        drop_path_rate: how often a sample goes by the residual alone, in training.
        drop_path_type: ``"linear"``, from 0 in the first layer to the rate in the last, or
            ``"uniform"``.
        act_layer: activation, ``"GELU"``, ``"ReLU"`` or ``"SiLU"``.
        norm_layer: ``"LN"`` or ``"BN"``. Norms between layers are LayerNorms in any case.
        layer_scale: where factors of what layers add start; None for none.
        offset_scale: factor of the extent of kernels.
        post_norm: layers normalize what they add, not what they read. Without it, or with
            ``center_feature_scale``, a LayerNorm ends each level.
        with_cp: keep the inputs of layers alone for the backward pass, and compute the layers
            again: less memory for a third more time. Outputs and gradients are the same.
        dw_kernel_size: side of the depthwise convolutions' kernels, 3 if not given.
        level2_post_norm: whether ``level2_post_norm_block_ids`` counts.
        level2_post_norm_block_ids: layers of the third level with another LayerNorm behind them.
        res_post_norm: without ``post_norm``, layers normalize what they add, too.
        center_feature_scale: mix each position's own feature into the convolutions' results.
        out_indices: levels to return. What they don't depend on isn't computed, and is frozen.
        init_cfg: without effect; weights come by ``train.init_checkpoint``.

    Raises:
        ValueError: arguments don't fit together.
    """

    def __init__(
        self,
        core_op: str = "DCNv3",
        channels: int = 64,
        depths: Sequence[int] = (4, 4, 18, 4),
        groups: Sequence[int] = (4, 8, 16, 32),
        mlp_ratio: float = 4.0,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.2,
        drop_path_type: str = "linear",
        act_layer: str = "GELU",
        norm_layer: str = "LN",
        layer_scale: float | None = None,
        offset_scale: float = 1.0,
        post_norm: bool = False,
        with_cp: bool = False,
        dw_kernel_size: int | None = None,
        level2_post_norm: bool = False,
        level2_post_norm_block_ids: Sequence[int] | None = None,
        res_post_norm: bool = False,
        center_feature_scale: bool = False,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        init_cfg: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if init_cfg is not None:
            warnings.warn(
                "InternImage loads no weights by init_cfg; name them by train.init_checkpoint.",
                stacklevel=2,
            )
        self._describe(channels, depths, groups, out_indices)
        self.patch_embed = StemLayer(3, channels, act_layer, norm_layer)
        self.pos_drop = nn.Dropout(drop_rate)
        rates = iter(_drop_path_rates(drop_path_rate, drop_path_type, sum(depths)))
        self.levels = nn.ModuleList(
            InternImageBlock(
                core_op_class(core_op),
                channels * 2**level,
                depth,
                groups[level],
                downsample=level < len(depths) - 1,
                drop_path=[next(rates) for _ in range(depth)],
                post_norm_block_ids=(
                    level2_post_norm_block_ids if level2_post_norm and level == 2 else None
                ),
                mlp_ratio=mlp_ratio,
                drop=drop_rate,
                act_layer=act_layer,
                norm_layer=norm_layer,
                post_norm=post_norm,
                layer_scale=layer_scale,
                offset_scale=offset_scale,
                with_cp=with_cp,
                dw_kernel_size=dw_kernel_size,
                res_post_norm=res_post_norm,
                center_feature_scale=center_feature_scale,
            )
            for level, depth in enumerate(depths)
        )
        self.apply(self._init_weights)
        self.apply(self._init_deform_weights)
        self._freeze_unused()

    def _describe(
        self, channels: int, depths: Sequence[int], groups: Sequence[int], indices: Sequence[int]
    ) -> None:
        """Names, channels and strides of the outputs."""
        count = len(depths)
        if len(groups) != count:
            raise ValueError(f"There are {len(groups)} groups for {count} depths; give one each.")
        if not indices or not set(indices) <= set(range(count)):
            raise ValueError(
                f"out_indices {list(indices)} are to be some of the levels 0 to {count - 1}."
            )
        self.out_indices = sorted(set(indices))
        self._out_features = [f"p{level}" for level in self.out_indices]
        self._out_feature_channels = {f"p{i}": channels * 2**i for i in self.out_indices}
        self._out_feature_strides = {f"p{i}": 4 * 2**i for i in self.out_indices}
        self._pixels = IMAGENET_RGB

    def _init_weights(self, module: nn.Module) -> None:
        """Start of a linear layer; norms and convolutions start as torch's."""
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)

    def _init_deform_weights(self, module: nn.Module) -> None:
        """Start of a deformable convolution, without offsets."""
        if isinstance(module, DCNv3):
            module._reset_parameters()

    def _freeze_unused(self) -> None:
        """Nothing waits for gradients that no output gives it."""
        last = self.out_indices[-1]
        for unused in (*self.levels[last + 1 :], self.levels[last].downsample):
            if unused is not None:
                unused.requires_grad_(False)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Levels by name, in ascending order.

        Raises:
            ValueError: ``x`` is not a batch of images.
        """
        check_images(x)
        x = self.pos_drop(self.patch_embed(x))
        maps = {}
        for index in range(self.out_indices[-1] + 1):
            x, level = self.levels[index](x, return_wo_downsample=True)
            if index in self.out_indices:
                maps[f"p{index}"] = as_channels_first(level, channels_last=True)
        return maps


def _drop_path_rates(rate: float, kind: str, count: int) -> list[float]:
    if kind == "uniform":
        return [rate] * count
    if kind == "linear":
        return [rate * layer / max(count - 1, 1) for layer in range(count)]
    raise ValueError(f"drop_path_type is 'linear' or 'uniform', not {kind!r}.")

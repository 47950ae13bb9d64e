"""What EVA and EVA-02 share: a plain transformer whose blocks attend within windows or globally.

ViTDet (arXiv:2203.16527) is the layout, around the blocks of EVA (arXiv:2211.07636) and EVA-02
(arXiv:2303.11331). :class:`~detrex.modeling.backbone.ViTDet` and
:class:`~detrex.modeling.backbone.TimmBackbone` are the plain transformers that detrex recommends;
these have the names and arguments of the public detrex.

Letters: B batch, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from detectron2.layers import CNNBlockBase, Conv2d, get_norm
from detectron2.modeling import Backbone
from fvcore.nn.weight_init import c2_msra_fill
from timm.layers import DropPath
from torch import Tensor, nn

from detrex.modeling.backbone.checkpointing import run_checkpointed
from detrex.modeling.backbone.utils import (
    PatchEmbed,
    get_abs_pos,
    window_partition,
    window_unpartition,
)

__all__ = ["LAYER_NORM", "PlainViT", "ResBottleneckBlock", "WindowBlock", "drop_path_rates"]

LAYER_NORM = partial(nn.LayerNorm, eps=1e-6)
"""The norm that all of the published networks have."""


class ResBottleneckBlock(CNNBlockBase):
    """A residual block of 1x1, 3x3 and 1x1 convolutions that starts as the identity.

    ViTDet's way to carry information between windows. (B, in_channels, H, W) -> the same.

    Args:
        in_channels, out_channels: equal, as the input is added.
        bottleneck_channels: of the 3x3 convolution.
        norm: of each convolution, as :func:`detectron2.layers.get_norm` takes it. There has to be
            one: the scale of the last, which starts at zero, makes the block start as the identity.
        act_layer: called without arguments.

    Raises:
        ValueError: if the channels differ, or without a norm.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        bottleneck_channels: int,
        norm: str | Callable[[int], nn.Module] = "LN",
        act_layer: Callable[[], nn.Module] = nn.GELU,
    ) -> None:
        super().__init__(in_channels, out_channels, 1)
        if in_channels != out_channels:
            raise ValueError(
                f"ResBottleneckBlock adds its input of {in_channels} channels to an output of "
                f"{out_channels}; give the same number for both."
            )
        if not norm:
            raise ValueError('ResBottleneckBlock needs a norm to start as the identity, say "LN".')
        widths = (in_channels, bottleneck_channels, bottleneck_channels, out_channels)
        for i, kernel in enumerate((1, 3, 1)):
            convolution = Conv2d(widths[i], widths[i + 1], kernel, padding=kernel // 2, bias=False)
            c2_msra_fill(convolution)
            self.add_module(f"conv{i + 1}", convolution)
            self.add_module(f"norm{i + 1}", get_norm(norm, widths[i + 1]))
            if i < 2:
                self.add_module(f"act{i + 1}", act_layer())
        for parameter in self.get_submodule("norm3").parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """Add what the convolutions give to a map with its channels first."""
        y = x
        for layer in self.children():
            y = layer(y)
        return x + y


class WindowBlock(nn.Module):
    """Attention within windows, or over the whole map, and a network for each place.

    (B, H, W, C) -> the same; both parts are residual and see normalized input.

    Args:
        dim: C.
        attn: (B, H, W, C) -> the same.
        mlp: on the last axis.
        drop_path: probability to skip a part in training, by image.
        norm_layer: called with C.
        window_size: side of the windows; 0 for the whole map.
        use_residual_block: end with a :class:`ResBottleneckBlock` with ``act_layer``.
        gammas: scale what the parts add by ``gamma_1`` and ``gamma_2``, (C,) each, which start at
            one: they come with a checkpoint.
    """

    gamma_1: nn.Parameter | None
    gamma_2: nn.Parameter | None

    def __init__(
        self,
        dim: int,
        attn: nn.Module,
        mlp: nn.Module,
        drop_path: float,
        norm_layer: Callable[[int], nn.Module],
        window_size: int,
        use_residual_block: bool,
        act_layer: Callable[[], nn.Module] = nn.GELU,
        gammas: bool = False,
    ) -> None:
        super().__init__()
        self.norm1 = norm_layer(dim)
        self.attn = attn
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()
        self.norm2 = norm_layer(dim)
        self.mlp = mlp
        self.window_size = window_size
        self.use_residual_block = use_residual_block
        if use_residual_block:
            self.residual = ResBottleneckBlock(dim, dim, dim // 2, act_layer=act_layer)
        for name in ("gamma_1", "gamma_2"):
            self.register_parameter(name, nn.Parameter(torch.ones(dim)) if gammas else None)

    def forward(self, x: Tensor) -> Tensor:
        """One block on a map with its channels last."""
        y = self._attend(self.norm1(x))
        x = x + self.drop_path(y if self.gamma_1 is None else self.gamma_1 * y)
        y = self.mlp(self.norm2(x))
        x = x + self.drop_path(y if self.gamma_2 is None else self.gamma_2 * y)
        if self.use_residual_block:
            x = self.residual(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return x

    def _attend(self, x: Tensor) -> Tensor:
        if self.window_size == 0:
            return self.attn(x)
        windows, padded = window_partition(x, self.window_size)
        return window_unpartition(
            self.attn(windows), self.window_size, padded, (x.shape[1], x.shape[2])
        )


class PlainViT(Backbone):
    """Patches, learned positions and ``blocks``: (B, in_chans, H, W) -> one map.

    A subclass fills ``blocks``, an empty list, and then calls ``self.apply(self._init_weights)``.

    Args:
        patch_size: side of the patches, the stride of the map.
        in_chans: of the images.
        embed_dim: channels of the map.
        use_abs_pos: add learned positions, resized to the map.
        pretrain_img_size: pixels a side that they were trained for.
        pretrain_use_cls_token: whether the first of them is a class token's, which is not used.
        use_act_checkpoint: in training, keep the inputs of blocks alone for the backward pass and
            compute the rest again.
        out_feature: name of the map.
    """

    def __init__(
        self,
        patch_size: int,
        in_chans: int,
        embed_dim: int,
        use_abs_pos: bool,
        pretrain_img_size: int,
        pretrain_use_cls_token: bool,
        use_act_checkpoint: bool,
        out_feature: str,
    ) -> None:
        super().__init__()
        self.pretrain_use_cls_token = pretrain_use_cls_token
        self.use_act_checkpoint = use_act_checkpoint
        side = (patch_size, patch_size)
        self.patch_embed = PatchEmbed(side, side, in_chans=in_chans, embed_dim=embed_dim)
        self.pos_embed: nn.Parameter | None = None
        if use_abs_pos:
            length = (pretrain_img_size // patch_size) ** 2 + pretrain_use_cls_token
            self.pos_embed = nn.Parameter(torch.zeros(1, length, embed_dim))
            nn.init.trunc_normal_(self.pos_embed, std=0.02)
        self.blocks = nn.ModuleList()
        self._out_features = [out_feature]
        self._out_feature_channels = {out_feature: embed_dim}
        self._out_feature_strides = {out_feature: patch_size}

    def _init_weights(self, module: nn.Module) -> None:
        """Start a linear layer or a norm; others keep what they have."""
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            module.reset_parameters()

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """The last block's output by its name, channels first."""
        x = self.patch_embed(x)
        if self.pos_embed is not None:
            size = (x.shape[1], x.shape[2])
            x = x + get_abs_pos(self.pos_embed, self.pretrain_use_cls_token, size)
        if self.use_act_checkpoint and self.training:
            x = run_checkpointed(self.blocks, x)
        else:
            for block in self.blocks:
                x = block(x)
        return {self._out_features[0]: x.permute(0, 3, 1, 2).contiguous()}


def drop_path_rates(last: float, depth: int) -> list[float]:
    """From zero in the first block evenly up to ``last`` in the last one (arXiv:1603.09382)."""
    return [last * i / max(depth - 1, 1) for i in range(depth)]

"""Plain transformers for detection (arXiv:2203.16527).

Letters: B batch, C channels, H height, W width, both in patches, S side of a window, M heads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from detectron2.layers import CNNBlockBase, Conv2d, get_norm, weight_init
from detectron2.modeling.backbone.backbone import Backbone
from detectron2.modeling.backbone.simple_pyramid import SimpleFeaturePyramid
from detectron2.modeling.backbone.utils import (
    Mlp,
    PatchEmbed,
    decomposed_rel_pos,
    get_abs_pos,
    init_weights,
    window_partition,
    window_unpartition,
)
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torchvision.ops import StochasticDepth

__all__ = ["SimpleFeaturePyramid", "ViT", "get_vit_lr_decay_rate"]

Norm = Callable[[int], nn.Module]


class _Attention(nn.Module):
    """Attention among all cells of a map, with relative positions by rows and by columns.

    Args:
        channels: C.
        num_heads: M.
        qkv_bias: whether queries, keys and values have one.
        rel_pos_size: height and width of the maps that the tables are made for; None: no relative
            positions.
        rel_pos_zero_init: start the tables with zeros.
    """

    def __init__(
        self,
        channels: int,
        num_heads: int,
        qkv_bias: bool,
        rel_pos_size: tuple[int, int] | None,
        rel_pos_zero_init: bool,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(channels, 3 * channels, bias=qkv_bias)
        self.proj = nn.Linear(channels, channels)
        self.use_rel_pos = rel_pos_size is not None
        if rel_pos_size is not None:
            height, width = (
                nn.Parameter(torch.zeros(2 * size - 1, channels // num_heads))
                for size in rel_pos_size
            )
            self.rel_pos_h, self.rel_pos_w = height, width
            if not rel_pos_zero_init:
                nn.init.trunc_normal_(self.rel_pos_h, std=0.02)
                nn.init.trunc_normal_(self.rel_pos_w, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> the same shape."""
        size = (x.shape[1], x.shape[2])
        qkv = self.qkv(x.flatten(1, 2)).unflatten(-1, (3, self.num_heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        bias = None
        if self.use_rel_pos:
            bias = decomposed_rel_pos(
                q.flatten(0, 1), self.rel_pos_h, self.rel_pos_w, size, size
            ).unflatten(0, (-1, self.num_heads))
        attended = F.scaled_dot_product_attention(q, k, v, bias)
        return self.proj(attended.transpose(1, 2).flatten(2).unflatten(1, size))


class ResBottleneckBlock(CNNBlockBase):
    """A residual block of three convolutions, which starts as the identity.

    Args:
        in_channels, out_channels: of its input and output.
        bottleneck_channels: of the 3 x 3 convolution.
        norm: as of ``get_norm``.
        act_layer: makes the activations.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        bottleneck_channels: int,
        norm: str | Norm = "LN",
        act_layer: Callable[[], nn.Module] = nn.GELU,
    ) -> None:
        super().__init__(in_channels, out_channels, 1)
        widths = (in_channels, bottleneck_channels, bottleneck_channels, out_channels)
        for i, size in enumerate((1, 3, 1)):
            conv = Conv2d(widths[i], widths[i + 1], size, padding=size // 2, bias=False)
            weight_init.c2_msra_fill(conv)
            self.add_module(f"conv{i + 1}", conv)
            self.add_module(f"norm{i + 1}", get_norm(norm, widths[i + 1]))
            if i < 2:
                self.add_module(f"act{i + 1}", act_layer())
        last = self.get_submodule("norm3")
        if isinstance(last.weight, Tensor) and isinstance(last.bias, Tensor):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, out_channels, H, W)."""
        out = x
        for layer in self.children():
            out = layer(out)
        return x + out


class _Block(nn.Module):
    """Attention, within windows or not, a feed-forward network and convolutions if asked for."""

    def __init__(
        self,
        attention: _Attention,
        mlp: Mlp,
        norms: tuple[nn.Module, nn.Module],
        drop_path: float,
        window_size: int,
        residual: ResBottleneckBlock | None,
    ) -> None:
        super().__init__()
        self.norm1 = norms[0]
        self.attn = attention
        self.drop_path = StochasticDepth(drop_path, "row")
        self.norm2 = norms[1]
        self.mlp = mlp
        self.window_size = window_size
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> the same shape."""
        x = x + self.drop_path(self._attend(self.norm1(x)))
        x = x + self.drop_path(self.mlp(self.norm2(x)))
        if self.residual is not None:
            x = self.residual(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return x

    def _attend(self, x: Tensor) -> Tensor:
        if self.window_size == 0:
            return self.attn(x)
        windows, padded = window_partition(x, self.window_size)
        size = (x.shape[1], x.shape[2])
        return window_unpartition(self.attn(windows), self.window_size, padded, size)


class ViT(Backbone):
    """(B, in_chans, height, width) -> one map of stride ``patch_size``, which no norm follows.

    Pixels that make no whole patch, at the right and the bottom, are left out. Positions, absolute
    and relative ones, are resized to the map.

    Args:
        img_size: side of the images that relative positions across whole maps are made for.
        patch_size: side of a patch.
        in_chans: channels of images.
        embed_dim: channels of the map.
        depth: number of blocks.
        num_heads: heads of each block.
        mlp_ratio: hidden channels of feed-forward networks, as a multiple of the others.
        qkv_bias: whether queries, keys and values have a bias.
        drop_path_rate: of the last block (arXiv:1603.09382); it rises linearly from 0.
        norm_layer: makes a norm of so many channels.
        act_layer: makes the activation of feed-forward networks and of convolutions.
        use_abs_pos: add learned positions ``pos_embed``.
        use_rel_pos: attend by learned relative positions, too.
        rel_pos_zero_init: start these with zeros.
        window_size: side of a window, in patches.
        window_block_indexes: blocks that attend within windows; the others attend to everything.
        residual_block_indexes: blocks with convolutions behind them.
        use_act_checkpoint: compute blocks again in the backward pass instead of keeping their
            values.
        pretrain_img_size: side of the images that ``pos_embed`` was trained for.
        pretrain_use_cls_token: whether ``pos_embed`` starts with the position of a class token.
        out_feature: name of the map.

    Raises:
        ValueError: blocks should attend within windows of no size, or there are no such blocks.
    """

    def __init__(
        self,
        img_size: int = 1024,
        patch_size: int = 16,
        in_chans: int = 3,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        drop_path_rate: float = 0.0,
        norm_layer: Norm = nn.LayerNorm,
        act_layer: Callable[[], nn.Module] = nn.GELU,
        use_abs_pos: bool = True,
        use_rel_pos: bool = False,
        rel_pos_zero_init: bool = True,
        window_size: int = 0,
        window_block_indexes: Sequence[int] = (),
        residual_block_indexes: Sequence[int] = (),
        use_act_checkpoint: bool = False,
        pretrain_img_size: int = 224,
        pretrain_use_cls_token: bool = True,
        out_feature: str = "last_feat",
    ) -> None:
        super().__init__()
        _check_blocks("window_block_indexes", window_block_indexes, depth)
        _check_blocks("residual_block_indexes", residual_block_indexes, depth)
        if window_size <= 0 and len(window_block_indexes) > 0:
            raise ValueError(
                f"The blocks {list(window_block_indexes)} attend within windows, but window_size "
                f"is {window_size}; the published models have 14."
            )
        self.pretrain_use_cls_token = pretrain_use_cls_token
        self.use_act_checkpoint = use_act_checkpoint
        patch = (patch_size, patch_size)
        self.patch_embed = PatchEmbed(patch, patch, in_chans=in_chans, embed_dim=embed_dim)
        self.pos_embed: nn.Parameter | None = None
        if use_abs_pos:
            positions = (pretrain_img_size // patch_size) ** 2 + int(pretrain_use_cls_token)
            table = torch.empty(1, positions, embed_dim)
            self.pos_embed = nn.Parameter(nn.init.trunc_normal_(table, std=0.02))
        self.blocks = nn.ModuleList()
        for i in range(depth):
            window = window_size if i in window_block_indexes else 0
            seen = window or img_size // patch_size
            rel_pos_size = (seen, seen) if use_rel_pos else None
            residual = None
            if i in residual_block_indexes:
                residual = ResBottleneckBlock(
                    embed_dim, embed_dim, embed_dim // 2, act_layer=act_layer
                )
            block = _Block(
                _Attention(embed_dim, num_heads, qkv_bias, rel_pos_size, rel_pos_zero_init),
                Mlp(embed_dim, int(embed_dim * mlp_ratio), act_layer),
                (norm_layer(embed_dim), norm_layer(embed_dim)),
                drop_path_rate * i / max(depth - 1, 1),
                window,
                residual,
            )
            self.blocks.append(block)
        self._out_features = [out_feature]
        self._out_feature_channels = {out_feature: embed_dim}
        self._out_feature_strides = {out_feature: patch_size}
        self.apply(init_weights)

    @property
    def size_divisibility(self) -> int:
        """The side of a patch."""
        return self._out_feature_strides[self._out_features[0]]

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Images (B, in_chans, height, width) -> the map (B, embed_dim, H, W) by its name."""
        x = self.patch_embed(x)
        if self.pos_embed is not None:
            size = (x.shape[1], x.shape[2])
            x = x + get_abs_pos(self.pos_embed, self.pretrain_use_cls_token, size)
        for block in self.blocks:
            if self.use_act_checkpoint and torch.is_grad_enabled():
                x = checkpoint(block, x, use_reentrant=False)
            else:
                x = block(x)
        return {self._out_features[0]: x.permute(0, 3, 1, 2)}


def _check_blocks(argument: str, indexes: Sequence[int], depth: int) -> None:
    """Raise ValueError for blocks that there aren't."""
    unknown = [i for i in indexes if not 0 <= i < depth]
    if unknown:
        raise ValueError(
            f"{argument} has the blocks {unknown}; with depth={depth} there are 0 to {depth - 1}."
        )


def get_vit_lr_decay_rate(name: str, lr_decay_rate: float = 1.0, num_layers: int = 12) -> float:
    """Factor of a parameter's learning rate: ``lr_decay_rate`` for each layer that is above it.

    Positions and patches lie below the first block; what is no part of a backbone's blocks, the
    pyramid and the convolutions behind blocks among it, lies above all of them and gets 1.

    Args:
        name: of the parameter within a detector.
        lr_decay_rate: factor per layer.
        num_layers: blocks of the backbone. Too few give later blocks factors above 1.
    """
    depth = num_layers + 1
    if name.startswith("backbone"):
        if ".pos_embed" in name or ".patch_embed" in name:
            depth = 0
        elif ".blocks." in name and ".residual." not in name:
            depth = int(name.split(".blocks.")[1].split(".")[0]) + 1
    return lr_decay_rate ** (num_layers + 1 - depth)

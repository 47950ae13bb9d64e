"""Swin transformers (arXiv:2103.14030) on images of any size.

Letters: B batch, C channels, H height, W width, N windows, S side of a window, M heads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain

import torch
import torch.nn.functional as F
from detectron2.modeling.backbone.backbone import Backbone
from detectron2.modeling.backbone.utils import (
    Mlp,
    init_weights,
    pad_to_multiple,
    window_partition,
    window_unpartition,
)
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torchvision.ops import StochasticDepth

__all__ = ["SwinTransformer"]

Norm = Callable[[int], nn.Module]

# The published weights were trained with this, not with infinity, between windows' parts.
_APART = -100.0


def _relative_position_index(side: int) -> Tensor:
    """Row of the bias table for each pair of cells in a window: (S * S, S * S) integers."""
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    dy, dx = (c.flatten()[:, None] - c.flatten() + side - 1 for c in (y, x))
    return dy * (2 * side - 1) + dx


def _shift_mask(height: int, width: int, side: int, shift: int, like: Tensor) -> Tensor:
    """Logits (N, S * S, S * S) that part cells which only the cyclic shift made neighbors.

    Args:
        height, width: of the map in whole windows.
        side: S.
        shift: how far the map was rolled up and left.
        like: gives dtype and device.
    """

    def part(size: int) -> Tensor:  # the last window holds what comes round from the other edge
        cell = torch.arange(size, device=like.device)
        return (cell >= size - side).long() + (cell >= size - shift).long()

    region = part(height)[:, None] * 3 + part(width)
    regions = window_partition(region[None, ..., None], side)[0].flatten(1)
    return (regions[:, :, None] != regions[:, None]).to(like.dtype) * _APART


class _WindowAttention(nn.Module):
    """Attention within windows, with a learned bias for each relative position.

    Args:
        channels: C.
        side: S.
        num_heads: M.
        qkv_bias: whether queries, keys and values have one.
        scale: of the logits; None: one over the square root of a head's channels.
        attn_drop: probability of dropout of attention weights.
        drop: of outputs.
    """

    relative_position_index: Tensor

    def __init__(
        self,
        channels: int,
        side: int,
        num_heads: int,
        qkv_bias: bool,
        scale: float | None,
        attn_drop: float,
        drop: float,
    ) -> None:
        super().__init__()
        self.side = side
        self.num_heads = num_heads
        self.scale = scale
        self.attn_drop = attn_drop
        table = torch.empty((2 * side - 1) ** 2, num_heads)
        self.relative_position_bias_table = nn.Parameter(nn.init.trunc_normal_(table, std=0.02))
        self.register_buffer("relative_position_index", _relative_position_index(side))
        self.qkv = nn.Linear(channels, 3 * channels, bias=qkv_bias)
        self.proj = nn.Linear(channels, channels)
        self.proj_drop = nn.Dropout(drop)

    def forward(self, windows: Tensor, mask: Tensor | None) -> Tensor:
        """Windows (B, N, S * S, C) -> the same shape; mask (N, S * S, S * S) is added."""
        qkv = self.qkv(windows).unflatten(-1, (3, self.num_heads, -1))
        q, k, v = qkv.permute(3, 0, 1, 4, 2, 5)  # each B, N, M, S * S, channels of a head
        shape = q.shape
        bias = self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1)
        if mask is None:
            q, k, v = (t.flatten(0, 1) for t in (q, k, v))
        else:  # windows go with the heads: so all images share one mask
            q, k, v = (t.flatten(1, 2) for t in (q, k, v))
            bias = (bias + mask[:, None]).flatten(0, 1)
        bias = bias[None].to(q.dtype)
        dropout = self.attn_drop if self.training else 0.0
        x = F.scaled_dot_product_attention(q, k, v, bias, dropout, scale=self.scale)
        x = x.reshape(shape).transpose(2, 3).flatten(3)
        return self.proj_drop(self.proj(x))


class _SwinBlock(nn.Module):
    """Attention within windows, shifted ones or not, and a feed-forward network."""

    def __init__(
        self,
        attention: _WindowAttention,
        shift: int,
        mlp: Mlp,
        drop_path: float,
        norms: tuple[nn.Module, nn.Module],
    ) -> None:
        super().__init__()
        self.shift = shift
        self.norm1 = norms[0]
        self.attn = attention
        self.drop_path = StochasticDepth(drop_path, "row")
        self.norm2 = norms[1]
        self.mlp = mlp

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, H, W, C) -> the same shape; mask as of :func:`_shift_mask`."""
        x = x + self.drop_path(self._attend(self.norm1(x), mask))
        return x + self.drop_path(self.mlp(self.norm2(x)))

    def _attend(self, x: Tensor, mask: Tensor) -> Tensor:
        batch, height, width, channels = x.shape
        side, shift = self.attn.side, self.shift
        # Padding comes before the shift: the mask parts what goes around the padded map's edge.
        x = pad_to_multiple(x, side)
        if shift:
            x = x.roll((-shift, -shift), (1, 2))
        windows, padded = window_partition(x, side)
        attended = self.attn(
            windows.reshape(batch, -1, side * side, channels), mask if shift else None
        )
        x = window_unpartition(attended.reshape(windows.shape), side, padded, padded)
        if shift:
            x = x.roll((shift, shift), (1, 2))
        return x[:, :height, :width]


class _PatchMerging(nn.Module):
    """Four neighbors become one token of twice the channels: (B, H, W, C) -> (B, H/2, W/2, 2C)."""

    def __init__(self, channels: int, norm_layer: Norm) -> None:
        super().__init__()
        self.reduction = nn.Linear(4 * channels, 2 * channels, bias=False)
        self.norm = norm_layer(4 * channels)

    def forward(self, x: Tensor) -> Tensor:
        """A last row or column that has no neighbor gets one of zeros."""
        x = pad_to_multiple(x, 2)
        # the upper and lower left one, then the upper and lower right one
        x = torch.cat([x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)], dim=-1)
        return self.reduction(self.norm(x))


class _Stage(nn.Module):
    """Blocks of one resolution, every second one with shifted windows, and what shrinks the map."""

    def __init__(
        self, blocks: Sequence[_SwinBlock], side: int, downsample: _PatchMerging | None
    ) -> None:
        super().__init__()
        self.side = side
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample

    def forward(self, x: Tensor, use_checkpoint: bool) -> tuple[Tensor, Tensor]:
        """(B, H, W, C) -> what the blocks make of it, and that as the next stage takes it."""
        height, width = (size + -size % self.side for size in x.shape[1:3])
        mask = _shift_mask(height, width, self.side, self.side // 2, like=x)
        for block in self.blocks:
            if use_checkpoint:
                x = checkpoint(block, x, mask, use_reentrant=False)
            else:
                x = block(x, mask)
        return x, x if self.downsample is None else self.downsample(x)


class _PatchEmbed(nn.Module):
    """Patches of images as tokens; images are padded to whole patches."""

    def __init__(
        self, patch_size: int, in_chans: int, embed_dim: int, norm_layer: Norm | None
    ) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Conv2d(in_chans, embed_dim, patch_size, patch_size)
        self.norm = norm_layer(embed_dim) if norm_layer else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_chans, height, width) -> (B, H, W, C)."""
        bottom, right = (-size % self.patch_size for size in x.shape[-2:])
        if bottom or right:
            x = F.pad(x, (0, right, 0, bottom))
        x = self.proj(x).permute(0, 2, 3, 1)
        return x if self.norm is None else self.norm(x)


class SwinTransformer(Backbone):
    """(B, in_chans, H, W) -> maps ``p0`` to ``p3`` of stride 4 to 32, each normalized.

    Height and width are rounded up; no size is refused. Names of parameters are those of the
    published weights. ``torch.export`` takes any batch, but one height and width: it finds no end
    in simplifying symbolic sizes that are rounded up to windows at every stage.

    Args:
        pretrain_img_size: side of the images that ``ape`` was trained for.
        patch_size: side of a patch. Strides of outputs are stated for 4.
        in_chans: channels of images.
        embed_dim: channels of ``p0``; each further stage has twice as many.
        depths: blocks of each stage.
        num_heads: heads of each stage.
        window_size: side of a window, in patches.
        mlp_ratio: hidden channels of feed-forward networks, as a multiple of the others.
        qkv_bias: whether queries, keys and values have a bias.
        qk_scale: factor of the logits; None: one over the square root of a head's channels.
        drop_rate: dropout of tokens and of outputs of attention and feed-forward networks.
        attn_drop_rate: dropout of attention weights.
        drop_path_rate: of the last block (arXiv:1603.09382); it rises linearly from 0.
        norm_layer: makes a norm of so many channels.
        ape: add a table of learned absolute positions, resized to the map.
        patch_norm: normalize after patches are embedded.
        out_indices: stages to return, p0 to p3.
        frozen_stages: what doesn't train and stays in evaluation mode. -1: nothing; 0: the
            embedding of patches; 1: the absolute positions, too; 1 + n: the first n stages, too.
        use_checkpoint: compute blocks again in the backward pass instead of keeping their values.

    Raises:
        ValueError: ``out_indices`` names a stage that there isn't, or ``depths`` and ``num_heads``
            differ in number.
    """

    def __init__(
        self,
        pretrain_img_size: int = 224,
        patch_size: int = 4,
        in_chans: int = 3,
        embed_dim: int = 96,
        depths: Sequence[int] = (2, 2, 6, 2),
        num_heads: Sequence[int] = (3, 6, 12, 24),
        window_size: int = 7,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.2,
        norm_layer: Norm = nn.LayerNorm,
        ape: bool = False,
        patch_norm: bool = True,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        frozen_stages: int = -1,
        use_checkpoint: bool = False,
    ) -> None:
        super().__init__()
        _check(depths, num_heads, out_indices)
        self.num_layers = len(depths)
        self.out_indices = tuple(out_indices)
        self.frozen_stages = frozen_stages
        self.use_checkpoint = use_checkpoint
        self.patch_embed = _PatchEmbed(
            patch_size, in_chans, embed_dim, norm_layer if patch_norm else None
        )
        self.absolute_pos_embed: nn.Parameter | None = None
        if ape:
            side = pretrain_img_size // patch_size
            table = nn.init.trunc_normal_(torch.empty(1, embed_dim, side, side), std=0.02)
            self.absolute_pos_embed = nn.Parameter(table)
        self.pos_drop = nn.Dropout(drop_rate)
        attention = partial(
            _WindowAttention,
            side=window_size,
            qkv_bias=qkv_bias,
            scale=qk_scale,
            attn_drop=attn_drop_rate,
            drop=drop_rate,
        )
        self.num_features = [embed_dim * 2**stage for stage in range(self.num_layers)]
        self.layers = nn.ModuleList()
        for stage, (channels, heads) in enumerate(zip(self.num_features, num_heads, strict=True)):
            blocks = []
            for i in range(depths[stage]):
                depth = sum(depths[:stage]) + i
                block = _SwinBlock(
                    attention(channels, num_heads=heads),
                    window_size // 2 if i % 2 else 0,
                    Mlp(channels, int(mlp_ratio * channels), drop=drop_rate),
                    drop_path_rate * depth / max(sum(depths) - 1, 1),
                    (norm_layer(channels), norm_layer(channels)),
                )
                blocks.append(block)
            last = stage + 1 == self.num_layers
            merging = None if last else _PatchMerging(channels, norm_layer)
            self.layers.append(_Stage(blocks, window_size, merging))
        for stage in self.out_indices:
            self.add_module(f"norm{stage}", norm_layer(self.num_features[stage]))
        self._out_features = [f"p{stage}" for stage in self.out_indices]
        self._out_feature_channels = {f"p{i}": self.num_features[i] for i in self.out_indices}
        self._out_feature_strides = {f"p{i}": 2 ** (i + 2) for i in self.out_indices}
        self.apply(init_weights)
        self._freeze_stages()

    @property
    def size_divisibility(self) -> int:
        """32: then no stage has to pad its map before it shrinks it."""
        return 32

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Images (B, in_chans, H, W) -> maps (B, C, H / stride, W / stride) by name."""
        x = self.patch_embed(x)
        if self.absolute_pos_embed is not None:
            table: Tensor = self.absolute_pos_embed
            if table.shape[2:] != x.shape[1:3]:
                table = F.interpolate(table, size=x.shape[1:3], mode="bicubic")
            x = x + table.permute(0, 2, 3, 1)
        x = self.pos_drop(x)
        outputs = {}
        for i, stage in enumerate(self.layers):
            y, x = stage(x, self.use_checkpoint and torch.is_grad_enabled())
            if i in self.out_indices:
                normalized = self.get_submodule(f"norm{i}")(y)
                outputs[f"p{i}"] = normalized.permute(0, 3, 1, 2).contiguous()
        return outputs

    def train(self, mode: bool = True) -> SwinTransformer:
        """As of ``nn.Module``; frozen stages stay in evaluation mode."""
        super().train(mode)
        self._freeze_stages()
        return self

    def _freeze_stages(self) -> None:
        """Take ``frozen_stages`` out of training."""
        frozen: list[nn.Module] = []
        if self.frozen_stages >= 0:
            frozen.append(self.patch_embed)
        if self.frozen_stages >= 1 and self.absolute_pos_embed is not None:
            self.absolute_pos_embed.requires_grad = False
        if self.frozen_stages >= 2:
            frozen += [self.pos_drop, *self.layers[: self.frozen_stages - 1]]
        for module in frozen:
            module.eval()
        for parameter in chain.from_iterable(module.parameters() for module in frozen):
            parameter.requires_grad = False


def _check(depths: Sequence[int], num_heads: Sequence[int], out_indices: Sequence[int]) -> None:
    """Raise ValueError for stages that don't fit together."""
    if len(depths) != len(num_heads):
        raise ValueError(
            f"depths={tuple(depths)} has {len(depths)} stages, num_heads={tuple(num_heads)} has "
            f"{len(num_heads)}: give one number for each stage."
        )
    unknown = [i for i in out_indices if not 0 <= i < len(depths)]
    if unknown:
        raise ValueError(
            f"out_indices has the stages {unknown}; with these depths there are 0 to "
            f"{len(depths) - 1}."
        )

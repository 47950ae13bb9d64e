"""EVA (arXiv:2211.07636) as the backbone of a detector, by the public detrex's names.

Letters: B batch, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import torch
from detectron2.modeling.backbone import SimpleFeaturePyramid, get_vit_lr_decay_rate
from timm.layers import Mlp
from torch import Tensor, nn
from torch.nn import functional as F

from detrex.modeling.backbone.plain_vit import (
    LAYER_NORM,
    PlainViT,
    ResBottleneckBlock,
    WindowBlock,
    drop_path_rates,
)
from detrex.modeling.backbone.utils import decomposed_rel_pos

__all__ = [
    "Attention",
    "Block",
    "EVAViT",
    "LayerNormWithForceFP32",
    "ResBottleneckBlock",
    "SimpleFeaturePyramid",
    "get_vit_lr_decay_rate",
]


class LayerNormWithForceFP32(nn.LayerNorm):
    """LayerNorm that computes in single precision, and returns what it was given."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalize the last axes."""
        weight = None if self.weight is None else self.weight.float()
        bias = None if self.bias is None else self.bias.float()
        return F.layer_norm(x.float(), self.normalized_shape, weight, bias, self.eps).type_as(x)


class Attention(nn.Module):
    """Attention over all places of a map, with relative positions: (B, H, W, C) -> the same.

    Args:
        dim: C.
        num_heads: of C / num_heads channels each.
        qkv_bias: whether queries, keys and values have biases.
        beit_like_qkv_bias: if they have, leave out that of the keys, which no attention depends
            on, and hold the other two as ``q_bias`` and ``v_bias`` (arXiv:2106.08254).
        use_rel_pos: see :func:`~detrex.modeling.backbone.utils.add_decomposed_rel_pos`.
        rel_pos_zero_init: let the relative positions start at zero.
        input_size: height and width that their tables are for; other maps get them resized.
        interp_type: how, see :func:`~detrex.modeling.backbone.utils.get_rel_pos`.

    Raises:
        ValueError: if relative positions are used without an ``input_size``.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        qkv_bias: bool = True,
        beit_like_qkv_bias: bool = True,
        use_rel_pos: bool = False,
        rel_pos_zero_init: bool = True,
        input_size: tuple[int, int] | None = None,
        interp_type: str = "vitdet",
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.interp_type = interp_type
        beit_like_qkv_bias &= qkv_bias
        self.qkv = nn.Linear(dim, dim * 3, bias=qkv_bias and not beit_like_qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self.q_bias = nn.Parameter(torch.zeros(dim)) if beit_like_qkv_bias else None
        self.v_bias = nn.Parameter(torch.zeros(dim)) if beit_like_qkv_bias else None
        self.use_rel_pos = use_rel_pos
        if use_rel_pos:
            if input_size is None:
                raise ValueError("use_rel_pos needs the input_size that its tables are for.")
            std = 0.0 if rel_pos_zero_init else 0.02
            self.rel_pos_h = _table(input_size[0], dim // num_heads, std)
            self.rel_pos_w = _table(input_size[1], dim // num_heads, std)

    def forward(self, x: Tensor) -> Tensor:
        """Let every place attend to all of its map."""
        size = (x.shape[1], x.shape[2])
        bias: Tensor | None = self.qkv.bias
        if self.q_bias is not None and self.v_bias is not None:
            bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        qkv = F.linear(x.flatten(1, 2), self.qkv.weight, bias)
        # (3, B, heads, places, channels of a head)
        q, k, v = qkv.unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        mask = None
        if self.use_rel_pos:
            tables = (self.rel_pos_h, self.rel_pos_w)
            mask = decomposed_rel_pos(q.flatten(0, 1), *tables, size, size, self.interp_type)
            mask = mask.unflatten(0, (-1, self.num_heads))
        x = F.scaled_dot_product_attention(q, k, v, mask)
        return self.proj(x.transpose(1, 2).flatten(2)).unflatten(1, size)


def _table(side: int, channels: int, std: float) -> nn.Parameter:
    """Embeddings of the distances on an axis of ``side`` places."""
    table = nn.Parameter(torch.zeros(2 * side - 1, channels))
    if std:
        nn.init.trunc_normal_(table, std=std)
    return table


class Block(WindowBlock):
    """A block of EVA: (B, H, W, C) -> the same.

    Args:
        dim: C.
        mlp_ratio: width of the hidden layer, in C.
        drop_path, norm_layer, act_layer, window_size, use_residual_block, beit_like_gamma: see
            :class:`~detrex.modeling.backbone.plain_vit.WindowBlock`, whose ``gammas`` are the last.
        input_size: of the map that all places of it attend to, if ``window_size`` is 0.
        num_heads, qkv_bias, use_rel_pos, rel_pos_zero_init, beit_like_qkv_bias, interp_type:
            see :class:`Attention`.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        drop_path: float = 0.0,
        norm_layer: Callable[[int], nn.Module] = LAYER_NORM,
        act_layer: type[nn.Module] = nn.GELU,
        use_rel_pos: bool = False,
        rel_pos_zero_init: bool = True,
        window_size: int = 0,
        use_residual_block: bool = False,
        input_size: tuple[int, int] | None = None,
        beit_like_qkv_bias: bool = True,
        beit_like_gamma: bool = False,
        interp_type: str = "vitdet",
    ) -> None:
        attn = Attention(
            dim,
            num_heads,
            qkv_bias,
            beit_like_qkv_bias,
            use_rel_pos,
            rel_pos_zero_init,
            input_size if window_size == 0 else (window_size, window_size),
            interp_type,
        )
        super().__init__(
            dim,
            attn,
            Mlp(dim, int(dim * mlp_ratio), act_layer=act_layer),
            drop_path,
            norm_layer,
            window_size,
            use_residual_block,
            act_layer,
            beit_like_gamma,
        )


class EVAViT(PlainViT):
    """EVA: images (B, in_chans, H, W) -> one map (B, embed_dim, H / patch_size, W / patch_size).

    Images may have any size. On its maps stands a :class:`SimpleFeaturePyramid`.

    Args:
        img_size: pixels a side that the tables of relative positions of global blocks are for.
        depth: number of blocks.
        drop_path_rate: of the last block; it grows evenly from zero.
        window_size, window_block_indexes: which blocks attend within windows, and their side in
            patches.
        residual_block_indexes: blocks that end with a :class:`ResBottleneckBlock`.
        freeze_patch_embed: keep the patch embedding as it is.
        patch_size, in_chans, embed_dim, use_abs_pos, use_act_checkpoint, pretrain_img_size,
            pretrain_use_cls_token, out_feature: see
            :class:`~detrex.modeling.backbone.plain_vit.PlainViT`.
        num_heads, mlp_ratio, qkv_bias, norm_layer, act_layer, use_rel_pos, rel_pos_zero_init,
            beit_like_qkv_bias, beit_like_gamma, interp_type: see :class:`Block`.
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
        norm_layer: Callable[[int], nn.Module] = LAYER_NORM,
        act_layer: type[nn.Module] = nn.GELU,
        use_abs_pos: bool = True,
        use_rel_pos: bool = False,
        rel_pos_zero_init: bool = True,
        window_size: int = 0,
        window_block_indexes: Collection[int] = (),
        residual_block_indexes: Collection[int] = (),
        use_act_checkpoint: bool = False,
        pretrain_img_size: int = 224,
        pretrain_use_cls_token: bool = True,
        out_feature: str = "last_feat",
        beit_like_qkv_bias: bool = True,
        beit_like_gamma: bool = False,
        freeze_patch_embed: bool = False,
        interp_type: str = "vitdet",
    ) -> None:
        super().__init__(
            patch_size,
            in_chans,
            embed_dim,
            use_abs_pos,
            pretrain_img_size,
            pretrain_use_cls_token,
            use_act_checkpoint,
            out_feature,
        )
        side = img_size // patch_size
        for i, rate in enumerate(drop_path_rates(drop_path_rate, depth)):
            block = Block(
                embed_dim,
                num_heads,
                mlp_ratio,
                qkv_bias,
                rate,
                norm_layer,
                act_layer,
                use_rel_pos,
                rel_pos_zero_init,
                window_size if i in window_block_indexes else 0,
                i in residual_block_indexes,
                (side, side),
                beit_like_qkv_bias,
                beit_like_gamma,
                interp_type,
            )
            self.blocks.append(block)
        self.apply(self._init_weights)
        if freeze_patch_embed:
            self.patch_embed.requires_grad_(False)

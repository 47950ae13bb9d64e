"""EVA-02 (arXiv:2303.11331) as the backbone of a detector, by the public detrex's names.

Letters: B batch, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import torch
from detectron2.modeling.backbone import SimpleFeaturePyramid, get_vit_lr_decay_rate
from torch import Tensor, nn
from torch.nn import functional as F

from detrex.modeling.backbone.eva_02_utils import VisionRotaryEmbeddingFast
from detrex.modeling.backbone.plain_vit import (
    LAYER_NORM,
    PlainViT,
    ResBottleneckBlock,
    WindowBlock,
    drop_path_rates,
)

__all__ = [
    "Attention",
    "Block",
    "EVA02_ViT",
    "ResBottleneckBlock",
    "SimpleFeaturePyramid",
    "SwiGLU",
    "get_vit_lr_decay_rate",
]


class SwiGLU(nn.Module):
    """A gated feed-forward network (arXiv:2002.05202): (..., in_features) -> (..., out_features).

    Args:
        hidden_features, out_features: ``in_features`` by default.
        act_layer: of the gate, called without arguments.
        drop: dropout on the output.
        norm_layer: called with ``hidden_features``, if ``subln`` asks for a norm of the hidden
            layer.
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int | None = None,
        out_features: int | None = None,
        act_layer: Callable[[], nn.Module] = nn.SiLU,
        drop: float = 0.0,
        norm_layer: Callable[[int], nn.Module] = nn.LayerNorm,
        subln: bool = False,
    ) -> None:
        super().__init__()
        hidden_features = hidden_features or in_features
        self.w1 = nn.Linear(in_features, hidden_features)
        self.w2 = nn.Linear(in_features, hidden_features)
        self.act = act_layer()
        self.ffn_ln = norm_layer(hidden_features) if subln else nn.Identity()
        self.w3 = nn.Linear(hidden_features, out_features or in_features)
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        """Gate, normalize, project."""
        return self.drop(self.w3(self.ffn_ln(self.act(self.w1(x)) * self.w2(x))))


class Attention(nn.Module):
    """Attention over all places of a map, with rotary positions: (B, H, W, C) -> the same.

    Args:
        dim: C.
        num_heads: of ``attn_head_dim`` channels each, by default C / num_heads.
        qkv_bias: whether queries and values have biases, ``q_bias`` and ``v_bias``.
        qk_scale: on the products of queries and keys; by default one over the root of a head's
            channels.
        rope: turns queries and keys; it may be shared with other blocks.
        xattn: accepted for the public detrex, where it asks for xFormers. torch's own fused
            attention computes the same, and is used with and without it.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        attn_head_dim: int | None = None,
        rope: VisionRotaryEmbeddingFast | None = None,
        xattn: bool = True,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.scale = qk_scale
        self.xattn = xattn
        width = num_heads * (attn_head_dim or dim // num_heads)
        self.q_proj = nn.Linear(dim, width, bias=False)
        self.k_proj = nn.Linear(dim, width, bias=False)
        self.v_proj = nn.Linear(dim, width, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(width)) if qkv_bias else None
        self.v_bias = nn.Parameter(torch.zeros(width)) if qkv_bias else None
        self.rope = rope
        self.proj = nn.Linear(width, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Let every place attend to all of its map."""
        size = (x.shape[1], x.shape[2])
        x = x.flatten(1, 2)
        q, k, v = (
            F.linear(x, projection.weight, bias).unflatten(2, (self.num_heads, -1)).transpose(1, 2)
            for projection, bias in (
                (self.q_proj, self.q_bias),
                (self.k_proj, None),
                (self.v_proj, self.v_bias),
            )
        )
        if self.rope is not None:
            q, k = self.rope(q, size), self.rope(k, size)
        x = F.scaled_dot_product_attention(q, k, v, scale=self.scale)
        return self.proj(x.transpose(1, 2).flatten(2)).unflatten(1, size)


class Block(WindowBlock):
    """A block of EVA-02: (B, H, W, C) -> the same.

    Args:
        dim: C.
        mlp_ratio: width of the hidden layer of the :class:`SwiGLU`, in C.
        drop_path, norm_layer, window_size, use_residual_block: see
            :class:`~detrex.modeling.backbone.plain_vit.WindowBlock`.
        num_heads, qkv_bias, rope, xattn: see :class:`Attention`.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        mlp_ratio: float = 4 * 2 / 3,
        qkv_bias: bool = True,
        drop_path: float = 0.0,
        norm_layer: Callable[[int], nn.Module] = LAYER_NORM,
        window_size: int = 0,
        use_residual_block: bool = False,
        rope: VisionRotaryEmbeddingFast | None = None,
        xattn: bool = True,
    ) -> None:
        super().__init__(
            dim,
            Attention(dim, num_heads, qkv_bias, rope=rope, xattn=xattn),
            SwiGLU(dim, int(dim * mlp_ratio), norm_layer=norm_layer, subln=True),
            drop_path,
            norm_layer,
            window_size,
            use_residual_block,
        )


class EVA02_ViT(PlainViT):
    """EVA-02: images (B, in_chans, H, W) -> one map (B, embed_dim, H / patch_size, W / patch_size).

    Images may have any size. On its maps stands a :class:`SimpleFeaturePyramid`.

    Args:
        img_size: pixels a side that the tables of rotary positions of global blocks are for; see
            :class:`~detrex.modeling.backbone.eva_02_utils.VisionRotaryEmbedding` for other sizes.
        depth: number of blocks.
        drop_path_rate: of the last block; it grows evenly from zero.
        act_layer, use_rel_pos: accepted for the public detrex, without effect: the network has a
            gate of its own, and rotary positions.
        rope: whether it has rotary positions.
        pt_hw_seq_len: patches a side in pretraining.
        intp_freq: spread the places of a map, or of a window, over those of pretraining, rather
            than going on beyond them.
        window_size, window_block_indexes: which blocks attend within windows, and their side in
            patches.
        residual_block_indexes: blocks that end with a :class:`ResBottleneckBlock`.
        patch_size, in_chans, embed_dim, use_abs_pos, use_act_checkpoint, pretrain_img_size,
            pretrain_use_cls_token, out_feature: see
            :class:`~detrex.modeling.backbone.plain_vit.PlainViT`.
        num_heads, mlp_ratio, qkv_bias, norm_layer, xattn: see :class:`Block`.
    """

    def __init__(
        self,
        img_size: int = 1024,
        patch_size: int = 16,
        in_chans: int = 3,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4 * 2 / 3,
        qkv_bias: bool = True,
        drop_path_rate: float = 0.0,
        norm_layer: Callable[[int], nn.Module] = LAYER_NORM,
        act_layer: type[nn.Module] = nn.GELU,
        use_abs_pos: bool = True,
        use_rel_pos: bool = False,
        rope: bool = True,
        pt_hw_seq_len: int = 16,
        intp_freq: bool = True,
        window_size: int = 0,
        window_block_indexes: Collection[int] = (),
        residual_block_indexes: Collection[int] = (),
        use_act_checkpoint: bool = False,
        pretrain_img_size: int = 224,
        pretrain_use_cls_token: bool = True,
        out_feature: str = "last_feat",
        xattn: bool = True,
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
        turned = embed_dim // num_heads // 2
        sides = (window_size, img_size // patch_size)
        self.rope_win, self.rope_glb = (
            VisionRotaryEmbeddingFast(turned, pt_hw_seq_len, side if intp_freq else None)
            if rope and side
            else None
            for side in sides
        )
        for i, rate in enumerate(drop_path_rates(drop_path_rate, depth)):
            in_windows = window_size > 0 and i in window_block_indexes
            block = Block(
                embed_dim,
                num_heads,
                mlp_ratio,
                qkv_bias,
                rate,
                norm_layer,
                window_size if in_windows else 0,
                i in residual_block_indexes,
                self.rope_win if in_windows else self.rope_glb,
                xattn,
            )
            self.blocks.append(block)
        self.apply(self._init_weights)

"""ViTDet (arXiv:2203.16527): a plain transformer that attends within windows in most blocks.

The blocks are timm's, which wrote them for Segment Anything; around them is what the published
detectors have otherwise.

Letters: B batch, C channels, H height, W width.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detrex.modeling.backbone.timm_backbone import TimmBackbone

__all__ = ["ViTDet"]


def resize_positions(table: Tensor, size: tuple[int, int]) -> Tensor:
    """A table of learned positions (1, H', W', C) -> (1, H, W, C), smoothly."""
    if table.shape[1:3] == size:
        return table
    table = F.interpolate(table.permute(0, 3, 1, 2), size, mode="bicubic", align_corners=False)
    return table.permute(0, 2, 3, 1)


class PositionTable(nn.Module):
    """Add learned positions, resized to the map: (B, H, W, C) -> (B, H, W, C).

    ``pos_embed`` (1, 1 + side * side, C) starts with the position of a class token, which a
    detector doesn't have, so that the table of a classifier fits.
    """

    def __init__(self, side: int, channels: int) -> None:
        super().__init__()
        self.side = side
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + side * side, channels))
        nn.init.trunc_normal_(self.pos_embed, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Add the table to a map."""
        table = self.pos_embed[:, 1:].unflatten(1, (self.side, self.side))
        return x + resize_positions(table, (x.shape[1], x.shape[2]))


class ViTDet(TimmBackbone):
    """(B, C, H, W) -> maps ``p3`` to ``p6`` of stride 8 to 64.

    All but a few blocks attend within windows of 14 x 14 patches, with learned relative positions;
    the pyramid takes the last block's output as it is. ``p6`` is every other cell of ``p5``.

    Weights come by :func:`~detrex.checkpoint.load_weights`, also those of a ViT that was trained as
    a whole (MAE, DeiT), which has no relative positions: they start at zero.

    Args:
        model_name: ``samvit_base_patch16``, ``samvit_large_patch16`` or ``samvit_huge_patch16``.
        pretrain_img_size: pixels that the table of positions was trained for.
        pyramid_channels: of every map.
        arguments: the others of :class:`TimmBackbone`.
    """

    def __init__(
        self,
        model_name: str = "samvit_base_patch16",
        pretrain_img_size: int = 224,
        pyramid_channels: int = 256,
        **arguments: Any,
    ) -> None:
        super().__init__(
            model_name,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            out_strides=(8, 16, 32),
            pyramid_channels=pyramid_channels,
            use_abs_pos=False,
            **arguments,
        )
        network = self.timm_model.model
        side = pretrain_img_size // network.patch_embed.patch_size[0]
        network.pos_drop = PositionTable(side, network.embed_dim)
        assert self.pyramid is not None
        self.pyramid.norm = nn.Identity()
        self._out_features.append("p6")
        self._out_feature_channels["p6"] = pyramid_channels
        self._out_feature_strides["p6"] = 64
        self._size_divisibility = 64

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Levels by name, in ascending order."""
        maps = super().forward(x)
        maps["p6"] = F.max_pool2d(maps["p5"], kernel_size=1, stride=2)
        return maps

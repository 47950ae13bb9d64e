"""ConvNeXt (arXiv:2201.03545) with the arguments and the names of weights of the public detrex.

The same network is ``TimmBackbone("convnext_tiny", level_norm=True)``, with timm's names, which
also takes timm's weights and adapts to other images.

Letters: B batch, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from timm.layers import DropPath, LayerNorm2d
from torch import Tensor, nn

from detrex.modeling.backbone.arguments import check_images
from detrex.modeling.backbone.stages import StageBackbone, drop_path_rates

__all__ = ["Block", "ConvNeXt"]

_EPS = 1e-6


class Block(nn.Module):
    """Mix places with a depthwise convolution, then channels: (B, C, H, W) -> the same.

    Args:
        dim: channels.
        drop_path: how often the block is left out for an image in training.
        layer_scale_init_value: what the block's channels are multiplied by at the start; 0 or less
            leaves them as they are.
    """

    def __init__(
        self, dim: int, drop_path: float = 0.0, layer_scale_init_value: float = 1e-6
    ) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, kernel_size=7, padding=3, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=_EPS)
        self.pwconv1 = nn.Linear(dim, 4 * dim)
        self.act = nn.GELU()
        self.pwconv2 = nn.Linear(4 * dim, dim)
        scale = layer_scale_init_value
        self.gamma = nn.Parameter(torch.full((dim,), scale)) if scale > 0 else None
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """The map with what the block adds to it."""
        y = self.norm(self.dwconv(x).permute(0, 2, 3, 1))
        y = self.pwconv2(self.act(self.pwconv1(y)))
        if self.gamma is not None:
            y = self.gamma * y
        return x + self.drop_path(y.permute(0, 3, 1, 2))


class ConvNeXt(StageBackbone):
    """(B, C, H, W) -> maps ``p0`` to ``p3`` of stride 4 to 32, each normalized over its channels.

    Weights that were published for ConvNeXt, by its authors or in a detector of the public detrex,
    have the names that this network has; levels' norms are not in those of its authors.

    Args:
        in_chans: channels of the images.
        depths: blocks of each stage.
        dims: channels of each stage.
        drop_path_rate: how often the last block is left out in training; the first never is.
        layer_scale_init_value: what a block's channels are multiplied by at the start.
        out_indices: stages to return, counted from 0.
        frozen_stages: -1 freezes nothing, 0 and 1 the stem, k >= 2 the stem and the first k - 1
            stages, as in :class:`FocalNet` and Swin transformers.

    Raises:
        ValueError: a stage that does not exist.
    """

    def __init__(
        self,
        in_chans: int = 3,
        depths: Sequence[int] = (3, 3, 9, 3),
        dims: Sequence[int] = (96, 192, 384, 768),
        drop_path_rate: float = 0.0,
        layer_scale_init_value: float = 1e-6,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        frozen_stages: int = -1,
    ) -> None:
        super().__init__()
        stem = nn.Sequential(
            nn.Conv2d(in_chans, dims[0], kernel_size=4, stride=4), LayerNorm2d(dims[0], eps=_EPS)
        )
        halvings = [
            nn.Sequential(LayerNorm2d(a, eps=_EPS), nn.Conv2d(a, b, kernel_size=2, stride=2))
            for a, b in pairwise(dims)
        ]
        self.downsample_layers = nn.ModuleList([stem, *halvings])
        rates = drop_path_rates(drop_path_rate, depths)
        self.stages = nn.ModuleList(
            nn.Sequential(*(Block(dim, rate, layer_scale_init_value) for rate in stage_rates))
            for dim, stage_rates in zip(dims, rates, strict=True)
        )
        steps = list(zip(self.downsample_layers, self.stages, strict=True))
        # the stem belongs to no stage
        parts = [(stem,), (self.stages[0],), *steps[1:]]
        self._set_levels(parts, dims, out_indices, frozen_stages, in_chans, _EPS)

    def forward_features(self, x: Tensor) -> dict[str, Tensor]:
        """Levels by name, in ascending order."""
        maps = []
        for halve, blocks in zip(self.downsample_layers, self.stages, strict=True):
            x = blocks(halve(x))
            maps.append(x)
            if len(maps) > self.out_indices[-1]:
                break
        return self._normalized(maps)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Levels by name, in ascending order.

        Raises:
            ValueError: if ``x`` is not a batch of images (B, C, H, W).
        """
        check_images(x)
        return self.forward_features(x)

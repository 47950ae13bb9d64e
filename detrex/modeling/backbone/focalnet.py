"""FocalNet (arXiv:2203.11926) with the arguments and the names of weights of the public detrex.

The parts are timm's. The same networks are ``TimmBackbone("focalnet_tiny_lrf", level_norm=True)``
and its relatives, under timm's names.

Letters: B batch, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from timm.layers import DropPath, LayerNorm2d, Mlp
from timm.models import focalnet as timm_focalnet
from torch import Tensor, nn
from torch.nn import functional as F

from detrex.modeling.backbone.arguments import check_images
from detrex.modeling.backbone.checkpointing import run_checkpointed
from detrex.modeling.backbone.stages import StageBackbone, drop_path_rates

__all__ = ["FocalNet", "PatchEmbed"]

Norm = Callable[[int], nn.Module]


class _Pointwise(nn.Linear):
    """A linear layer over the channels of a map: (B, C_in, H, W) -> (B, C_out, H, W).

    timm has convolutions of one pixel in its place, whose weights have two more axes.
    """

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight[:, :, None, None], self.bias)


def _make_pointwise(module: nn.Module, *names: str) -> None:
    for name in names:
        convolution = getattr(module, name)
        setattr(module, name, _Pointwise(convolution.in_channels, convolution.out_channels))


class _FocalModulation(timm_focalnet.FocalModulation):
    def __init__(self, dim: int, **options: Any) -> None:
        super().__init__(dim, **options)
        _make_pointwise(self, "f", "proj")
        self.ln = self._modules.pop("norm")

    @property
    def norm(self) -> Any:  # type: ignore[override]
        """timm's name for ``ln``."""
        return self.ln


class _Block(nn.Module):
    """Modulation and feed-forward network, each normalized before (or, ``postln``, behind) it."""

    def __init__(
        self,
        dim: int,
        drop_path: float,
        *,
        norm_layer: Norm,
        mlp_ratio: float,
        drop: float,
        postln: bool,
        layerscale: bool,
        **modulation: Any,
    ) -> None:
        super().__init__()
        self.postln = postln
        self.norm1 = norm_layer(dim)
        self.modulation = _FocalModulation(dim, norm_layer=norm_layer, proj_drop=drop, **modulation)
        self.norm2 = norm_layer(dim)
        self.mlp = Mlp(dim, int(mlp_ratio * dim), drop=drop, use_conv=True)
        _make_pointwise(self.mlp, "fc1", "fc2")
        self.gamma_1 = nn.Parameter(torch.full((dim,), 1e-4)) if layerscale else None
        self.gamma_2 = nn.Parameter(torch.full((dim,), 1e-4)) if layerscale else None
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same."""
        x = x + self._branch(x, self.modulation, self.norm1, self.gamma_1)
        return x + self._branch(x, self.mlp, self.norm2, self.gamma_2)

    def _branch(self, x: Tensor, layer: nn.Module, norm: nn.Module, gamma: Tensor | None) -> Tensor:
        y = norm(layer(x)) if self.postln else layer(norm(x))
        return self.drop_path(y if gamma is None else gamma[:, None, None] * y)


def _channels_first(norm_layer: Norm) -> tuple[Norm, float]:
    """A ``LayerNorm``, or a partial of it, for maps (B, C, H, W); and its ``eps``."""
    example = norm_layer(1)
    if not isinstance(example, nn.LayerNorm):
        raise ValueError(
            f"norm_layer of a FocalNet is torch's LayerNorm or a partial of it, not {norm_layer}."
        )
    return partial(LayerNorm2d, eps=example.eps, affine=example.elementwise_affine), example.eps


class PatchEmbed(timm_focalnet.Downsample):
    """Fewer places with more channels; maps that the stride doesn't divide get zeros at the end.

    Args:
        patch_size: places per side that become one.
        in_chans: channels of the map.
        embed_dim: channels of the new one.
        norm_layer: makes the norm of the new one, from its channels; None for none.
        use_conv_embed: take kernels that overlap.
        is_stem: unused; how far kernels overlap follows from ``patch_size``.
    """

    def __init__(
        self,
        patch_size: int = 4,
        in_chans: int = 3,
        embed_dim: int = 96,
        norm_layer: Norm | None = None,
        use_conv_embed: bool = False,
        is_stem: bool = False,
    ) -> None:
        norm: Any = None if norm_layer is None else _channels_first(norm_layer)[0]
        super().__init__(in_chans, embed_dim, patch_size, use_conv_embed, norm)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H', W'), with sides divided by the stride and rounded up."""
        height, width = x.shape[2:]
        return super().forward(F.pad(x, (0, -width % self.stride, 0, -height % self.stride)))


class _Stage(nn.Module):
    """Blocks, and what makes the next stage's map of theirs."""

    def __init__(
        self, blocks: list[_Block], downsample: PatchEmbed | None, checkpoint: bool
    ) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*blocks)
        self.downsample = downsample
        self.use_checkpoint = checkpoint

    def forward(self, x: Tensor) -> Tensor:
        """This stage's map."""
        if self.use_checkpoint and torch.is_grad_enabled():
            return run_checkpointed(self.blocks, x)
        return self.blocks(x)


class FocalNet(StageBackbone):
    """(B, C, H, W) -> maps ``p0`` to ``p3`` of stride 4 to 32, each normalized over its channels.

    Sides that a stride doesn't divide are padded, so that any image goes. Weights that were
    published for FocalNet, by its authors or in a detector of the public detrex, have the names
    that this network has; levels' norms are not in those of its authors.

    Args:
        pretrain_img_size: unused; there are no positions to resize.
        patch_size: pixels per cell of the first stage, 4 with ``use_conv_embed``.
        in_chans: channels of the images.
        embed_dim: channels of the first stage; each further one has twice as many.
        depths: blocks of each stage.
        mlp_ratio: hidden channels of a feed-forward network, per channel.
        drop_rate: dropout behind the stem, modulation and feed-forward networks.
        drop_path_rate: how often the last block is left out in training; the first never is.
        norm_layer: torch's ``LayerNorm``, or a partial of it.
        patch_norm: whether the stem is normalized.
        out_indices: stages to return, counted from 0.
        frozen_stages: -1 freezes nothing, 0 and 1 the stem, k >= 2 the stem and the first k - 1
            stages.
        focal_levels: contexts of each stage, the map's mean left out.
        focal_windows: kernel size of the first context; each further one's is larger by 2.
        use_conv_embed: shrink maps with kernels that overlap.
        use_postln: normalize behind modulation and feed-forward networks, not before them.
        use_postln_in_modulation: normalize within the modulation, too.
        use_layerscale: let blocks start small.
        normalize_modulator: take the mean of the contexts, not their sum.
        use_checkpoint: keep less for the backward pass and compute it again.

    Raises:
        ValueError: a stage that does not exist, or a norm of another kind.
    """

    def __init__(
        self,
        pretrain_img_size: int = 1600,
        patch_size: int = 4,
        in_chans: int = 3,
        embed_dim: int = 96,
        depths: Sequence[int] = (2, 2, 6, 2),
        mlp_ratio: float = 4.0,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.2,
        norm_layer: Norm = nn.LayerNorm,
        patch_norm: bool = True,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        frozen_stages: int = -1,
        focal_levels: Sequence[int] = (2, 2, 2, 2),
        focal_windows: Sequence[int] = (3, 3, 3, 3),
        use_conv_embed: bool = False,
        use_postln: bool = False,
        use_postln_in_modulation: bool = False,
        use_layerscale: bool = False,
        normalize_modulator: bool = False,
        use_checkpoint: bool = False,
    ) -> None:
        super().__init__()
        norm, eps = _channels_first(norm_layer)
        embed = partial(PatchEmbed, use_conv_embed=use_conv_embed)
        self.patch_embed = embed(patch_size, in_chans, embed_dim, norm if patch_norm else None)
        self.pos_drop = nn.Dropout(drop_rate)
        self.layers = nn.ModuleList()
        widths = [embed_dim * 2**index for index in range(len(depths))]
        rates = drop_path_rates(drop_path_rate, depths)
        for index, width in enumerate(widths):
            block = partial(
                _Block,
                width,
                norm_layer=norm,
                mlp_ratio=mlp_ratio,
                drop=drop_rate,
                postln=use_postln,
                layerscale=use_layerscale,
                focal_level=focal_levels[index],
                focal_window=focal_windows[index],
                use_post_norm=use_postln_in_modulation,
                normalize_modulator=normalize_modulator,
            )
            is_last = index == len(depths) - 1
            down = None if is_last else embed(2, width, 2 * width, norm)
            self.layers.append(_Stage([block(r) for r in rates[index]], down, use_checkpoint))
        parts = [(self.patch_embed, self.pos_drop), *((layer,) for layer in self.layers)]
        self._set_levels(parts, widths, out_indices, frozen_stages, in_chans, eps)
        last = self.layers[self.out_indices[-1]]
        if last.downsample is not None:  # it makes a map that nobody asks for
            last.downsample.requires_grad_(False)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Levels by name, in ascending order.

        Raises:
            ValueError: if ``x`` is not a batch of images (B, C, H, W).
        """
        check_images(x)
        x = self.pos_drop(self.patch_embed(x))
        maps = []
        for index in range(self.out_indices[-1] + 1):
            if index > 0:
                x = self.layers[index - 1].get_submodule("downsample")(x)
            x = self.layers[index](x)
            maps.append(x)
        return self._normalized(maps)

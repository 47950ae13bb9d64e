"""Names of hand-written Swin, ConvNeXt, FocalNet and ViTDet backbones -> those of timm's networks.

The public detrex has the names that the networks' authors chose. Both sides normalize each level
they return: ``norm1`` there is ``norms.p1`` here, of ``TimmBackbone(level_norm=True)``. Networks
that shrink the maps behind a stage there do it ahead of the next one here. All parameters have the
same layout, except that timm writes FocalNet's linear layers as convolutions of one pixel.
"""

from __future__ import annotations

from torch import Tensor

BackboneRule = tuple[str, str]

_THEIRS = r"(?:backbone\.)?"
_OURS = r"backbone.timm_model"

_LEVEL_NORMS: tuple[BackboneRule, ...] = (
    (rf"{_THEIRS}norm(\d)\.(weight|bias)", r"backbone.norms.p\1.\2"),
)

_STAGE_ENDS: tuple[BackboneRule, ...] = tuple(
    (rf"{_THEIRS}layers\.{stage}\.downsample\.(.*)", rf"{_OURS}.layers_{stage + 1}.downsample.\1")
    for stage in range(3)
)

SWIN: tuple[BackboneRule, ...] = (
    (rf"{_THEIRS}patch_embed\.(.*)", rf"{_OURS}.patch_embed.\1"),
    (rf"{_THEIRS}layers\.(\d)\.blocks\.(.*)", rf"{_OURS}.layers_\1.blocks.\2"),
    *_STAGE_ENDS,
    *_LEVEL_NORMS,
)
"""Swin transformers (arXiv:2103.14030) of detectron2 and of Microsoft."""

_FOCAL_BLOCK = rf"{_THEIRS}layers\.(\d)\.blocks\.(\d+)"
_OUR_FOCAL_BLOCK = rf"{_OURS}.layers_\1.blocks.\2"

FOCALNET: tuple[BackboneRule, ...] = (
    (rf"{_THEIRS}patch_embed\.(.*)", rf"{_OURS}.stem.\1"),
    (rf"{_FOCAL_BLOCK}\.gamma_(\d)", rf"{_OUR_FOCAL_BLOCK}.ls\3.gamma"),
    (rf"{_FOCAL_BLOCK}\.norm(\d)\.(.*)", rf"{_OUR_FOCAL_BLOCK}.norm\3_post.\4"),
)
"""FocalNets (arXiv:2203.11926), where they differ from Swin: with ``use_postln`` the norms come
behind what they normalize."""

_CONV_BLOCK = rf"{_THEIRS}stages\.(\d)\.(\d+)"
_OUR_CONV_BLOCK = rf"{_OURS}.stages_\1.blocks.\2"

CONVNEXT: tuple[BackboneRule, ...] = (
    (rf"{_THEIRS}downsample_layers\.0\.(.*)", rf"{_OURS}.stem_\1"),
    (rf"{_THEIRS}downsample_layers\.(\d)\.(.*)", rf"{_OURS}.stages_\1.downsample.\2"),
    (rf"{_CONV_BLOCK}\.dwconv\.(.*)", rf"{_OUR_CONV_BLOCK}.conv_dw.\3"),
    (rf"{_CONV_BLOCK}\.pwconv(\d)\.(.*)", rf"{_OUR_CONV_BLOCK}.mlp.fc\3.\4"),
    (rf"{_CONV_BLOCK}\.(gamma|norm\..*)", rf"{_OUR_CONV_BLOCK}.\3"),
)
"""ConvNeXt (arXiv:2201.03545)."""


def _pyramid_level(level: int, first: int) -> tuple[BackboneRule, ...]:
    """A level whose two convolutions, with a norm each, start at index ``first`` on both sides."""
    theirs, ours = rf"{_THEIRS}simfp_{level}", rf"backbone.pyramid.levels.p{level}"
    return tuple(
        rule
        for k in (0, 1)
        for rule in (
            (rf"{theirs}\.{first + k}\.weight", rf"{ours}.{first + 2 * k}.weight"),
            (rf"{theirs}\.{first + k}\.norm\.(.*)", rf"{ours}.{first + 2 * k + 1}.\1"),
        )
    )


VITDET: tuple[BackboneRule, ...] = (
    (rf"{_THEIRS}(?:net\.)?pos_embed", rf"{_OURS}.model.pos_drop.pos_embed"),
    (
        rf"{_THEIRS}(?:net\.)?(pos_embed|cls_token|(?:patch_embed|blocks)\..*)",
        rf"{_OURS}.model.\1",
    ),
    (rf"{_THEIRS}(pos_embed|(?:patch_embed|blocks|rope_\w+)\..*)", r"backbone.net.\1"),
    (rf"{_THEIRS}simfp_3\.0\.(.*)", r"backbone.pyramid.levels.p3.0.\1"),
    *_pyramid_level(3, first=1),
    *_pyramid_level(4, first=0),
    *_pyramid_level(5, first=1),
)
"""ViTDet (arXiv:2203.16527) of detectron2, and plain transformers alone (MAE, DeiT, timm)."""

TIMM: tuple[BackboneRule, ...] = (*SWIN, *FOCALNET, *CONVNEXT, *VITDET)
"""All of them; where two rules fit a name, the model has only one of the places."""


def as_pointwise(weight: Tensor, wanted: Tensor) -> Tensor:
    """A linear layer's matrix (C_out, C_in) for a convolution (C_out, C_in, 1, 1), or the reverse.

    What is neither is returned as it is.
    """
    matrix, kernel = sorted((tuple(weight.shape), tuple(wanted.shape)), key=len)
    if len(matrix) == 2 and kernel == (*matrix, 1, 1):
        return weight.reshape(wanted.shape)
    return weight

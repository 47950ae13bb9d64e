"""Convolution with norm and activation; normalization over channels."""

from __future__ import annotations

import detectron2.layers
import pytest
import reference_ops
import torch
from reference_recipe import fill_with_recipe
from torch import nn
from torch.testing import assert_close

from detrex import layers
from detrex.layers import ConvNorm, ConvNormAct, LayerNorm, layer_norm, shape_spec

REFERENCE = reference_ops.load("layers")
IMAGE = REFERENCE["image"]


@pytest.mark.parametrize(
    ("name", "module"),
    [
        (
            "conv_norm_act",
            ConvNormAct(6, 8, 3, 2, norm_layer=nn.BatchNorm2d(8), activation=nn.GELU()),
        ),
        ("conv_norm", ConvNorm(6, 8, norm_layer=nn.GroupNorm(2, 8))),
        ("layernorm_first", LayerNorm(6, channel_last=False)),
        ("layernorm_last", LayerNorm(7)),
    ],
)
def test_agrees_with_the_reference(name, module):
    assert sorted(module.state_dict()) == list(REFERENCE[f"{name}_keys"])
    fill_with_recipe(module)
    assert_close(module.eval()(IMAGE), REFERENCE[name])


def test_channels_first_is_channels_last_moved():
    first, last = LayerNorm(6, channel_last=False), LayerNorm(6)
    for norm in (first, last):
        fill_with_recipe(norm)
    assert_close(first(IMAGE), last(IMAGE.movedim(1, -1)).movedim(-1, 1))


@pytest.mark.parametrize(("kernel_size", "dilation"), [(1, 1), (3, 1), (3, 2), (5, 3)])
def test_default_padding_keeps_the_size(kernel_size, dilation):
    conv = ConvNormAct(6, 4, kernel_size, dilation=dilation)
    assert conv(IMAGE).shape == (2, 4, 5, 7)


def test_norm_and_activation_are_optional():
    plain = ConvNormAct(6, 4, 3, padding=0, bias=False)
    assert list(plain.state_dict()) == ["conv.weight"]
    assert torch.equal(plain(IMAGE), plain.conv(IMAGE))
    assert plain(IMAGE).shape == (2, 4, 3, 5)


def test_where_the_public_detrex_has_them():
    assert layer_norm.LayerNorm is LayerNorm
    assert layers.ShapeSpec is shape_spec.ShapeSpec is detectron2.layers.ShapeSpec
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        layers.nothing  # noqa: B018

from __future__ import annotations

import pytest
import reference_ops
import torch
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.layers import ShapeSpec
from omegaconf import OmegaConf
from reference_recipe import fill_with_recipe
from torch import nn

from detrex.modeling.neck import ChannelMapper

CHANNELS = {"res3": 8, "res4": 16, "res5": 24}
SHAPES = {name: ShapeSpec(channels=width) for name, width in CHANNELS.items()}


def features() -> dict[str, torch.Tensor]:
    return {
        name: torch.randn(2, width, 8 // 2**level, 12 // 2**level)
        for level, (name, width) in enumerate(CHANNELS.items())
    }


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("dino", {"kernel_size": 1, "num_outs": 4, "norm_layer": nn.GroupNorm(4, 16)}),
        ("five", {"kernel_size": 1, "num_outs": 5, "norm_layer": nn.GroupNorm(4, 16)}),
        ("plain3x3", {}),
        ("act", {"bias": False, "norm_layer": nn.GroupNorm(4, 16), "activation": nn.ReLU()}),
    ],
)
def test_agrees_with_the_reference(name, options):
    expected = reference_ops.load("channel_mapper")
    inputs = {key: expected[f"in_{key}"] for key in CHANNELS}
    neck = ChannelMapper(SHAPES, list(CHANNELS), out_channels=16, **options)
    assert sorted(neck.state_dict()) == sorted(expected[f"{name}_keys"].tolist())
    fill_with_recipe(neck)
    outputs = neck(inputs)
    assert len(outputs) == neck.num_levels == sum(k.startswith(f"{name}_out") for k in expected)
    for level, output in enumerate(outputs):
        torch.testing.assert_close(output, expected[f"{name}_out{level}"], atol=1e-6, rtol=1e-6)


def test_learns_its_inputs_from_the_backbone():
    neck = ChannelMapper(in_features=["res4", "res5"], out_channels=16, num_outs=3)
    assert list(neck.parameters()) == []
    with pytest.raises(RuntimeError, match="connect"):
        neck(features())
    by_hand = ChannelMapper(SHAPES, ["res4", "res5"], out_channels=16, num_outs=3)
    neck.connect(SHAPES)
    assert neck.in_channels == {"res4": 16, "res5": 24}
    neck.load_state_dict(by_hand.state_dict())
    inputs = features()
    for a, b in zip(neck(inputs), by_hand(inputs), strict=True):
        torch.testing.assert_close(a, b)


def test_takes_all_features_in_order_unless_told():
    neck = ChannelMapper(out_channels=16).connect(SHAPES)
    assert neck.in_channels == CHANNELS
    shapes = [level.shape[1:] for level in neck(features())]
    assert shapes == [(16, 8, 12), (16, 4, 6), (16, 2, 3)]


def test_in_features_decide_the_order_and_the_input_of_the_first_extra_level():
    neck = ChannelMapper(SHAPES, ["res5", "res3"], out_channels=16, num_outs=4)
    inputs = features()
    first, second, third, fourth = neck(inputs)
    assert (first.shape, second.shape) == ((2, 16, 2, 3), (2, 16, 8, 12))
    torch.testing.assert_close(third, neck.extra_convs[0](inputs["res3"]))
    torch.testing.assert_close(fourth, neck.extra_convs[1](third))


def test_connecting_twice_keeps_the_weights():
    neck = ChannelMapper(out_channels=16).connect(SHAPES)
    weight = neck.convs[0].conv.weight
    assert neck.connect(SHAPES).convs[0].conv.weight is weight


def test_each_level_has_a_norm_of_its_own():
    prototype = nn.GroupNorm(4, 16)
    neck = ChannelMapper(SHAPES, out_channels=16, num_outs=4, norm_layer=prototype)
    norms = [module for module in neck.modules() if isinstance(module, nn.GroupNorm)]
    assert len({id(norm) for norm in norms}) == 4
    assert all(norm is not prototype for norm in norms)


def test_convolutions_before_a_norm_start_xavier_uniform():
    torch.manual_seed(0)
    shapes = {"x": ShapeSpec(channels=512)}
    neck = ChannelMapper(shapes, None, 256, kernel_size=1, norm_layer=nn.GroupNorm(32, 256))
    conv = neck.convs[0].conv
    bound = (6 / (512 + 256)) ** 0.5  # Glorot & Bengio: variance 2 / (fan_in + fan_out)
    assert 0.99 * bound < conv.weight.abs().max() <= bound
    assert torch.equal(conv.bias, torch.zeros(256))


def test_every_parameter_gets_a_gradient():
    neck = ChannelMapper(SHAPES, out_channels=16, num_outs=5, norm_layer=nn.GroupNorm(4, 16))
    sum(level.square().sum() for level in neck(features())).backward()
    assert [k for k, p in neck.named_parameters() if p.grad is None] == []


def test_from_a_lazy_config():
    config = OmegaConf.create({}, flags={"allow_objects": True})
    config.neck = L(ChannelMapper)(
        input_shapes=SHAPES,
        in_features=["res3", "res5"],
        out_channels=32,
        num_outs=3,
        norm_layer=L(nn.GroupNorm)(num_groups=4, num_channels="${..out_channels}"),
    )
    config.neck.input_shapes = {"res3": ShapeSpec(channels=8), "res5": ShapeSpec(channels=24)}
    neck = instantiate(config.neck)
    assert [level.shape[1] for level in neck(features())] == [32, 32, 32]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: ChannelMapper(SHAPES, ["res6"]),
            r"'res6', but input_shapes has \['res3'.*Did you",
        ),
        (lambda: ChannelMapper(None, ["p1"]).connect(SHAPES), r"'p1', but the backbone has"),
        (lambda: ChannelMapper(SHAPES, num_outs=2), r"num_outs is 2, but the neck has 3 inputs"),
        (
            lambda: ChannelMapper(SHAPES, norm_layer=nn.GroupNorm(2, 8)),
            "over 8 channels",
        ),
        (
            lambda: ChannelMapper({"res3": ShapeSpec(channels=9)}).connect(SHAPES),
            "res3 has 9 channels, but the backbone gives 8",
        ),
        (
            lambda: ChannelMapper({"p1": ShapeSpec(channels=9)}).connect(SHAPES),
            "'p1', but the backbone has",
        ),
    ],
)
def test_what_does_not_fit_is_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()

"""Backbone, ResNet and FPN."""

import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode, instantiate
from detectron2.config import LazyCall as L
from detectron2.layers import FrozenBatchNorm2d, ShapeSpec
from detectron2.modeling import (
    BACKBONE_REGISTRY,
    FPN,
    Backbone,
    BasicBlock,
    BasicStem,
    BottleneckBlock,
    DeformBottleneckBlock,
    LastLevelMaxPool,
    LastLevelP6P7,
    ResNet,
    build_backbone,
    make_stage,
)
from torch import nn
from torch.testing import assert_close

REFERENCE = np.load(Path(__file__).parent / "data" / "resnet.npz")


def recipe_(model):
    """Fill a network with the values that the reference was measured with."""
    for key, tensor in sorted(model.state_dict().items()):
        if not tensor.is_floating_point():
            continue
        shape = tuple(tensor.shape)
        z = np.random.RandomState(zlib.crc32(key.encode())).standard_normal(shape)
        if z.ndim >= 2:
            gain = 1.0 if z.ndim > 2 else 0.7
            z = z - z.mean(axis=tuple(range(1, z.ndim)), keepdims=True)
            z = gain * z / np.sqrt(np.prod(shape[1:]))
        else:
            z = 1 + 0.1 * abs(z) if key.endswith(("weight", "running_var")) else 0.05 * z
        tensor.copy_(torch.from_numpy(z.astype(np.float32)))
    return model.eval()


def reference_input():
    x = np.random.RandomState(11).standard_normal((1, 3, 97, 129))
    return torch.from_numpy(x.astype(np.float32))


def resnet(depth=18, out_features=("res2", "res5"), norm="FrozenBN", freeze_at=0, **kwargs):
    return ResNet(
        BasicStem(norm=norm),
        ResNet.make_default_stages(depth, norm=norm, **kwargs),
        out_features=list(out_features),
        freeze_at=freeze_at,
    )


# ResNet -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "depth", "kwargs", "freeze_at"),
    [
        ("default18", 18, {"stride_in_1x1": False}, 1),
        ("default50", 50, {"stride_in_1x1": False}, 1),
        ("default50_stride1x1", 50, {"stride_in_1x1": True}, 0),
    ],
)
def test_resnet_agrees_with_the_reference(name, depth, kwargs, freeze_at):
    features = ("stem", "res2", "res5")
    model = recipe_(resnet(depth, features, freeze_at=freeze_at, **kwargs))
    keys = "\n".join(sorted(model.state_dict()))
    assert zlib.crc32(keys.encode()) == REFERENCE[f"{name}.keys_crc32"]
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert trainable == REFERENCE[f"{name}.trainable"]
    with torch.no_grad():
        outputs = model(reference_input())
    for feature in features:
        out = outputs[feature]
        assert out.shape == tuple(REFERENCE[f"{name}.{feature}.shape"])
        stats = torch.cat([torch.stack([out.mean(), out.std()]), out.flatten()[:8]])
        expected = torch.from_numpy(REFERENCE[f"{name}.{feature}.stats"])
        assert_close(stats, expected, rtol=1e-4, atol=1e-4)


def test_classifier_agrees_with_the_reference():
    stages = ResNet.make_default_stages(18, norm="FrozenBN")
    model = recipe_(ResNet(BasicStem(norm="FrozenBN"), stages, num_classes=10))
    assert model.output_shape() == {"linear": ShapeSpec(channels=10)}
    out = model(reference_input())["linear"]
    expected = torch.from_numpy(REFERENCE["cls10.linear.patch"])
    assert_close(out.detach(), expected, rtol=1e-4, atol=1e-5)


def test_output_shape_follows_what_was_asked_for():
    model = resnet(out_features=("res4", "stem"))
    shapes = model.output_shape()
    assert list(shapes) == ["res4", "stem"]
    outputs = model(torch.randn(1, 3, 64, 64))
    assert set(outputs) == {"res4", "stem"}
    for name, value in outputs.items():
        assert value.shape[1] == shapes[name].channels
        assert 64 // value.shape[2] == shapes[name].stride


def test_stages_after_the_last_feature_are_not_kept():
    model = resnet(out_features=("res2", "res3"))
    assert not hasattr(model, "res4")
    assert model.stage_names == ("res2", "res3")
    assert set(model._out_feature_channels) == {"stem", "res2", "res3"}


@pytest.mark.parametrize("freeze_at", [0, 1, 2, 3, 5])
def test_freeze(freeze_at):
    model = resnet(norm="BN", freeze_at=freeze_at, out_features=("res5",))
    parts = [model.stem, model.res2, model.res3, model.res4, model.res5]
    for i, part in enumerate(parts):
        frozen = i < freeze_at
        assert all(p.requires_grad != frozen for p in part.parameters())
        kinds = {type(m) for m in part.modules()}
        assert (FrozenBatchNorm2d in kinds) == frozen
        assert (nn.BatchNorm2d in kinds) != frozen


def test_unknown_features_and_depths():
    with pytest.raises(AssertionError, match=r"some of stem, .*res5, not res6"):
        resnet(out_features=("res5", "res6"))
    with pytest.raises(ValueError, match="ResNet-42"):
        ResNet.make_default_stages(42)


def test_make_stage_per_block_arguments():
    blocks = ResNet.make_stage(
        BottleneckBlock,
        3,
        stride_per_block=[2, 1, 1],
        dilation_per_block=[1, 2, 4],
        in_channels=8,
        out_channels=16,
        bottleneck_channels=4,
    )
    assert [b.stride for b in blocks] == [2, 1, 1]
    assert [b.conv2.dilation for b in blocks] == [(1, 1), (2, 2), (4, 4)]
    assert [b.in_channels for b in blocks] == [8, 16, 16]
    assert nn.Sequential(*blocks)(torch.randn(1, 8, 9, 9)).shape == (1, 16, 5, 5)
    with pytest.raises(AssertionError, match="stride_per_block needs 2 values"):
        make_stage(BasicBlock, 2, stride_per_block=[1], in_channels=4, out_channels=4)


@pytest.mark.parametrize("modulated", [False, True])
def test_deform_bottleneck(modulated):
    block = DeformBottleneckBlock(
        8,
        16,
        bottleneck_channels=4,
        stride=2,
        dilation=2,
        deform_modulated=modulated,
        deform_num_groups=2,
    ).eval()
    assert block.conv2_offset.out_channels == (54 if modulated else 36)
    out = block(torch.randn(2, 8, 9, 9))
    assert out.shape == (2, 16, 5, 5)
    out.sum().backward()
    assert block.conv2_offset.weight.grad.abs().sum() > 0


def test_deform_bottleneck_starts_as_a_plain_one():
    torch.manual_seed(0)
    deform = DeformBottleneckBlock(8, 16, bottleneck_channels=4, stride=2).eval()
    plain = BottleneckBlock(8, 16, bottleneck_channels=4, stride=2).eval()
    plain.load_state_dict(deform.state_dict(), strict=False)
    x = torch.randn(1, 8, 9, 9)
    assert_close(deform(x), plain(x), rtol=1e-4, atol=1e-5)


def test_resnet_from_lazy_config():
    cfg = L(ResNet)(
        stem=L(BasicStem)(in_channels=3, out_channels=64, norm="FrozenBN"),
        stages=L(ResNet.make_default_stages)(depth=18, stride_in_1x1=False, norm="FrozenBN"),
        out_features=["res2", "res3"],
        freeze_at=1,
    )
    model = instantiate(cfg)
    assert set(model(torch.randn(1, 3, 32, 32))) == {"res2", "res3"}


# FPN --------------------------------------------------------------------------------------


class Pyramid(Backbone):
    """Constant maps of rising stride."""

    def __init__(self):
        super().__init__()
        self._out_features = ["a", "b", "c"]
        self._out_feature_channels = {"a": 2, "b": 3, "c": 4}
        self._out_feature_strides = {"a": 4, "b": 8, "c": 16}

    def forward(self, x):
        return {
            name: torch.ones(len(x), shape.channels, *(s // shape.stride for s in x.shape[-2:]))
            for name, shape in self.output_shape().items()
        }


def test_backbone_defaults():
    model = Pyramid()
    assert model.size_divisibility == 0
    assert model.padding_constraints == {}
    assert model.output_shape()["b"] == ShapeSpec(channels=3, stride=8)
    with pytest.raises(TypeError):
        Backbone()


@pytest.mark.parametrize("fuse_type", ["sum", "avg"])
def test_fpn_by_hand(fuse_type):
    fpn = FPN(Pyramid(), ["a", "b", "c"], 1, fuse_type=fuse_type)
    for name, parameter in fpn.named_parameters():
        nn.init.zeros_(parameter)
        if name.endswith("weight"):
            # Laterals add up their channels, outputs take the middle of their kernel.
            parameter.data[..., parameter.shape[-2] // 2, parameter.shape[-1] // 2] = 1
    out = fpn(torch.zeros(1, 3, 32, 48))
    assert list(out) == ["p2", "p3", "p4"]
    c, b, a = 4.0, 3.0, 2.0
    if fuse_type == "sum":
        expected = {"p4": c, "p3": c + b, "p2": c + b + a}
    else:
        expected = {"p4": c, "p3": (c + b) / 2, "p2": ((c + b) / 2 + a) / 2}
    for name, value in expected.items():
        size = (32 // 2 ** int(name[1]), 48 // 2 ** int(name[1]))
        assert_close(out[name], torch.full((1, 1, *size), value))


def test_fpn_names_and_shapes():
    fpn = FPN(Pyramid(), ["a", "b", "c"], 8, norm="BN", square_pad=64)
    modules = {name.split(".")[0] for name, _ in fpn.named_parameters()}
    assert modules == {f"fpn_{kind}{i}" for kind in ("lateral", "output") for i in (2, 3, 4)}
    assert fpn.size_divisibility == 16
    assert fpn.padding_constraints == {"square_size": 64}
    assert fpn.output_shape()["p3"] == ShapeSpec(channels=8, stride=8)


def test_fpn_top_blocks():
    class PoolC(LastLevelMaxPool):
        def __init__(self):
            super().__init__()
            self.in_feature = "p4"

    fpn = FPN(Pyramid(), ["b", "c"], 8, top_block=PoolC())
    out = fpn(torch.zeros(1, 3, 64, 64))
    assert list(out) == ["p3", "p4", "p5"]
    assert_close(out["p5"], out["p4"][..., ::2, ::2])
    assert fpn.output_shape()["p5"] == ShapeSpec(channels=8, stride=32)

    fpn = FPN(Pyramid(), ["b", "c"], 8, top_block=LastLevelP6P7(4, 8, in_feature="c"))
    out = fpn(torch.zeros(1, 3, 64, 64))
    assert [tuple(v.shape[-2:]) for v in out.values()] == [(8, 8), (4, 4), (2, 2), (1, 1)]
    assert_close(out["p6"], fpn.top_block.p7(out["p5"].relu()))


def test_fpn_over_resnet_with_any_image_size():
    fpn = FPN(resnet(out_features=("res3", "res4", "res5")), ["res3", "res4", "res5"], 8)
    out = fpn(torch.randn(1, 3, 65, 97))
    assert [tuple(v.shape[-2:]) for v in out.values()] == [(9, 13), (5, 7), (3, 4)]


def test_fpn_refuses():
    with pytest.raises(AssertionError, match="not log2 contiguous"):
        FPN(Pyramid(), ["a", "c"], 8)
    with pytest.raises(AssertionError, match="at least one"):
        FPN(Pyramid(), [], 8)
    with pytest.raises(AssertionError, match="fuse_type"):
        FPN(Pyramid(), ["a"], 8, fuse_type="max")


# Registry ---------------------------------------------------------------------------------


def test_build_backbone():
    made = {}

    @BACKBONE_REGISTRY.register()
    def build_test_pyramid(cfg, input_shape):
        made["channels"] = input_shape.channels
        return Pyramid()

    @BACKBONE_REGISTRY.register()
    def build_test_nonsense(cfg, input_shape):
        return nn.Identity()

    cfg = CfgNode({"MODEL": {"PIXEL_MEAN": [1, 2, 3], "BACKBONE": {"NAME": "build_test_pyramid"}}})
    assert isinstance(build_backbone(cfg), Pyramid)
    assert made["channels"] == 3
    cfg.MODEL.BACKBONE.NAME = "build_test_nonsense"
    with pytest.raises(TypeError, match="is a Identity, not a Backbone"):
        build_backbone(cfg)

"""What a detector relies on, for every kind of backbone alike."""

from __future__ import annotations

import copy
import io
import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.structures import ImageList
from reference_recipe import fill_with_recipe
from torch import Tensor, nn

from detrex.modeling.backbone import (
    BasicStem,
    ResNet,
    TimmBackbone,
    TorchvisionBackbone,
    make_stage,
)
from detrex.modeling.backbone import resnet as resnet_module

SMALL_SWIN = {"embed_dim": 24, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 4, 8)}
DC5 = {"res5_dilation": 2, "out_features": ("res2", "res5")}


def resnet(
    depth: int = 50,
    out_features: tuple[str, ...] = ("res2", "res3"),
    freeze_at: int = 0,
    freeze_norm: bool = False,
    grad_checkpointing: bool = False,
    in_channels: int = 3,
    **options: Any,
) -> ResNet:
    norm = "FrozenBN" if freeze_norm else "BN"
    options.setdefault("out_channels", 256 if depth >= 50 else 64)
    return ResNet(
        BasicStem(in_channels, 64, norm),
        make_stage(depth=depth, norm=norm, **options),
        out_features=out_features,
        freeze_at=freeze_at,
        grad_checkpointing=grad_checkpointing,
    )


def from_timm(model_name: str, **options: Any) -> Callable[..., TimmBackbone]:
    return lambda **more: TimmBackbone(model_name, **options, **more)


def from_torchvision(model_name: str, *nodes: str) -> Callable[..., TorchvisionBackbone]:
    names = {node: node for node in nodes}
    return lambda **more: TorchvisionBackbone(model_name, return_nodes=names, **more)


BACKBONES: dict[str, Callable[..., Any]] = {
    "ResNet-18": lambda **more: resnet(18, ("res2", "res3", "res4", "res5"), **more),
    "ResNet-34": lambda **more: resnet(34, **more),
    "ResNet-50": resnet,
    "ResNet-50, DC5": lambda **more: resnet(**DC5, **more),
    "ResNet-50, DC5 of torchvision": lambda **more: resnet(**DC5, res5_first_dilation=1, **more),
    "ResNet-50, deformable": lambda **more: resnet(
        deform_on_per_stage=[False, True, False, False], deform_modulated=True, **more
    ),
    "ResNeXt-50": lambda **more: resnet(num_groups=32, width_per_group=4, **more),
    "timm: CNN": from_timm("test_resnet", out_strides=(4, 8)),
    "timm: norms with activations": from_timm("efficientnet_lite0", out_strides=(4, 8)),
    "timm: ConvNeXt": from_timm("test_convnext", out_strides=(4, 8)),
    "timm: Swin": from_timm("swin_tiny_patch4_window7_224", out_strides=(4, 8), **SMALL_SWIN),
    "timm: Swin, levels normalized": from_timm(
        "swin_tiny_patch4_window7_224", out_strides=(4, 8), level_norm=True, **SMALL_SWIN
    ),
    "timm: ViT with a pyramid": from_timm("test_vit", out_strides=(8, 16, 32), pyramid_channels=8),
    "timm: ViT, one level": from_timm("test_vit", out_indices=(-1,)),
    "torchvision: CNN": from_torchvision("resnet18", "layer1", "layer2"),
    "torchvision: EfficientNet": from_torchvision("efficientnet_b0", "features.2", "features.3"),
    "torchvision: ConvNeXt": from_torchvision("convnext_tiny", "features.1", "features.3"),
    "torchvision: Swin": from_torchvision("swin_t", "features.1", "features.3"),
}
WITHOUT_BATCH_NORM = {
    name for name in BACKBONES if {"ViT", "Swin", "ConvNeXt"} & set(re.findall(r"\w+", name))
}


@pytest.fixture(autouse=True)
def short_resnets(monkeypatch: pytest.MonkeyPatch) -> None:
    """One block per stage, but two where the dilation of the first differs."""
    monkeypatch.setitem(resnet_module.BLOCKS_PER_STAGE, 50, (1, 1, 1, 2))


@cache
def built(name: str) -> nn.Module:
    backbone = BACKBONES[name]()
    fill_with_recipe(backbone)
    return backbone


@pytest.fixture(params=BACKBONES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def backbone(name: str) -> Iterator[Any]:
    return copy.deepcopy(built(name))


def alike(name: str, **options: Any) -> Any:
    """The network built with other options, and the same weights."""
    network = BACKBONES[name](**options)
    state = built(name).state_dict()
    missing = network.load_state_dict(state, strict=False).missing_keys
    assert missing == []
    return network


def images(network: Any, channels: int = 3) -> Tensor:
    """Two images of odd sizes, on one canvas as a detector makes it."""
    torch.manual_seed(0)
    sizes = ((45, 70), (61, 33))
    return ImageList.from_tensors(
        [torch.randn(channels, *size) for size in sizes],
        network.size_divisibility,
        padding_constraints=network.padding_constraints,
    ).tensor


def training_step(network: nn.Module, batch: Tensor) -> dict[str, Tensor]:
    torch.manual_seed(0)  # the paths that are dropped
    features = network.train()(batch)
    sum(feature.square().mean() for feature in features.values()).backward()
    return features


@torch.no_grad()
def evaluated(network: nn.Module, batch: Tensor) -> dict[str, Tensor]:
    return network.eval()(batch)


def assert_same(ours: dict[str, Tensor], theirs: dict[str, Tensor], **tolerance: float) -> None:
    assert list(ours) == list(theirs)
    for key, feature in ours.items():
        torch.testing.assert_close(feature, theirs[key], **tolerance, msg=lambda m, k=key: k + m)


def test_features_are_as_promised(backbone):
    batch = images(backbone)
    promised: dict[str, ShapeSpec] = backbone.output_shape()
    features = evaluated(backbone, batch)
    assert list(features) == list(promised)
    strides = [shape.stride for shape in promised.values()]
    assert strides == sorted(strides)
    for key, feature in features.items():
        shape = promised[key]
        height, width = (-(-side // shape.stride) for side in batch.shape[-2:])
        assert feature.shape == (2, shape.channels, height, width), key
        assert feature.is_contiguous(), key


def test_every_trainable_parameter_gets_a_gradient(backbone):
    training_step(backbone, images(backbone))
    trainable = {k: p for k, p in backbone.named_parameters() if p.requires_grad}
    assert trainable
    assert [key for key, parameter in trainable.items() if parameter.grad is None] == []


@pytest.mark.parametrize("freeze_at", [1, 2])
def test_freezing_counts_alike_and_survives_training(name, freeze_at):
    """1 is the stem, which no level of these networks is without; 2 is all up to stride 4."""
    network = alike(name, freeze_at=freeze_at)
    batch = images(network)
    strides = {key: shape.stride for key, shape in network.output_shape().items()}
    before = evaluated(network, batch)
    features = training_step(network, batch)
    for key, feature in features.items():
        # a norm that was added to a level is no part of what is frozen
        frozen = freeze_at == 2 and strides[key] <= 4 and "normalized" not in name
        assert feature.requires_grad != frozen, key
    trainable = sum(p.requires_grad for p in network.parameters())
    assert 0 < trainable < sum(p.requires_grad for p in built(name).parameters())
    after = evaluated(network, batch)
    for key, feature in after.items():
        if freeze_at == 2 and strides[key] <= 4:
            assert torch.equal(feature, before[key]), key


def test_frozen_norms_change_nothing_and_are_no_batch_norms(name):
    if name in WITHOUT_BATCH_NORM:
        with pytest.raises(ValueError, match="no batch norm that could be frozen"):
            BACKBONES[name](freeze_norm=True)
        return
    frozen = alike(name, freeze_norm=True)
    batch = images(frozen)
    expected = evaluated(copy.deepcopy(built(name)), batch)
    assert_same(evaluated(frozen, batch), expected, atol=1e-5, rtol=1e-5)
    state = copy.deepcopy(frozen.state_dict())
    training_step(frozen, batch)
    assert not [m for m in frozen.modules() if isinstance(m, nn.BatchNorm2d | nn.SyncBatchNorm)]
    assert_same(dict(frozen.state_dict()), dict(state), atol=0, rtol=0)


def test_gradient_checkpointing_changes_no_gradient_or_is_refused(name, backbone):
    if isinstance(backbone, TorchvisionBackbone):
        with pytest.raises(ValueError, match=r"cannot checkpoint.*TimmBackbone"):
            BACKBONES[name](grad_checkpointing=True)
        return
    saving = alike(name, grad_checkpointing=True)
    for network in (backbone, saving):
        training_step(network, images(network))
    expected = dict(backbone.named_parameters())
    for key, parameter in saving.named_parameters():
        torch.testing.assert_close(
            parameter.grad, expected[key].grad, rtol=1e-4, atol=1e-6, msg=lambda m, k=key: k + m
        )


@pytest.mark.parametrize("channels", [1, 4])
def test_images_of_other_channels(name, channels):
    network = BACKBONES[name](in_channels=channels)
    batch = images(network, channels).requires_grad_()
    features = training_step(network, batch)
    assert list(features) == list(network.output_shape())
    assert (batch.grad.abs().sum(dim=(0, 2, 3)) > 0).all(), "a channel is not looked at"
    assert len(network.pixel_mean) == len(network.pixel_std) == channels


def test_weights_survive_a_file(name, backbone):
    file = io.BytesIO()
    torch.save(backbone.state_dict(), file)
    file.seek(0)
    other = BACKBONES[name]()
    other.load_state_dict(torch.load(file, weights_only=True), strict=True)
    batch = images(backbone)
    assert_same(evaluated(other, batch), evaluated(backbone, batch), atol=0, rtol=0)


def test_what_images_the_weights_expect_is_readable(backbone):
    assert backbone.pixel_order == "RGB"
    assert len(backbone.pixel_mean) == len(backbone.pixel_std) == 3
    assert all(0 <= mean <= 255 for mean in backbone.pixel_mean)
    assert all(1 < std <= 255 for std in backbone.pixel_std)


def test_float64(backbone):
    features = evaluated(backbone.double(), images(backbone).double())
    assert {feature.dtype for feature in features.values()} == {torch.float64}


def test_what_is_no_batch_of_images_is_refused(backbone):
    with pytest.raises(ValueError, match=r"\(B, C, H, W\), not \(3, 64, 64\)"):
        backbone(torch.zeros(3, 64, 64))

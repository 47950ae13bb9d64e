"""torchvision's ResNets by the public detrex's names and arguments."""

from __future__ import annotations

import pytest
import reference_models
import torch
import torchvision
from reference_recipe import fill_with_recipe
from torch import nn

from detrex.checkpoint import load_weights
from detrex.modeling.backbone.torchvision_resnet import (
    BackboneBase,
    FrozenBatchNorm2d,
    TorchvisionResNet,
)

FIRST_STAGES = ("conv1.", "layer1.")


@pytest.fixture(scope="module")
def resnet18() -> nn.Module:
    network = torchvision.models.resnet18()
    fill_with_recipe(network)
    return network.eval()


def frozen(backbone: nn.Module) -> set[str]:
    return {name for name, p in backbone.named_parameters() if not p.requires_grad}


@pytest.mark.parametrize(("depth", "detector"), [(50, "detr_r50_dc5"), (101, "detr_r101_dc5")])
def test_parameters_have_the_published_names_and_shapes(depth, detector):
    with torch.device("meta"):
        backbone = TorchvisionResNet(
            name=f"resnet{depth}",
            train_backbone=True,
            return_layers={"layer4": "res5"},
            dilation=True,
        )
    facts = reference_models.facts(detector)
    state = {f"backbone.{name}": list(value.shape) for name, value in backbone.state_dict().items()}
    theirs = {**facts["parameters"], **facts["buffers"]}
    assert state == {name: s for name, s in theirs.items() if name.startswith("backbone.")}
    names = {name for name, _ in backbone.named_parameters()}
    assert frozen(backbone) == {n for n in names if n.startswith(("body.conv1", "body.layer1"))}
    assert backbone.num_channels == 2048
    assert backbone.output_shape()["res5"].stride == backbone.size_divisibility == 16


def test_weights_of_torchvision_give_its_maps(resnet18):
    backbone = TorchvisionResNet("resnet18", return_layers={"layer2": "a", "layer4": "b"})
    report = load_weights(nn.ModuleDict({"backbone": backbone}), resnet18.state_dict())
    assert report.missing == report.unexpected == []
    image = torch.randn(1, 3, 65, 97, generator=torch.Generator().manual_seed(0))
    x = resnet18.maxpool(resnet18.relu(resnet18.bn1(resnet18.conv1(image))))
    expected = {}
    for stage, name in (("layer1", ""), ("layer2", "a"), ("layer3", ""), ("layer4", "b")):
        x = expected[name] = getattr(resnet18, stage)(x)
    features = backbone.train()(image)  # frozen norms ignore the batch
    assert list(features) == ["a", "b"]
    for name, y in features.items():
        torch.testing.assert_close(y, expected[name], rtol=1e-4, atol=1e-5)


def test_only_the_first_block_of_a_dilated_stage_is_not():
    with torch.device("meta"):
        backbone = TorchvisionResNet("resnet50", dilation=True)
    blocks = [(b.conv2.stride, b.conv2.dilation) for b in backbone.body.layer4.children()]
    assert blocks == [((1, 1), (1, 1)), ((1, 1), (2, 2)), ((1, 1), (2, 2))]


def test_contract(check_contract):
    names = {f"layer{k}": f"res{k + 1}" for k in (1, 2, 3, 4)}
    check_contract(TorchvisionResNet("resnet18", return_layers=names))
    fixed = TorchvisionResNet("resnet18", train_backbone=False)
    assert frozen(fixed) == {name for name, _ in fixed.named_parameters()}
    assert fixed.pixel_mean == (123.675, 116.28, 103.53)


def test_any_network_in_stages(resnet18):
    """As in code that builds the network itself; batch norms of frozen stages count no images."""
    backbone = BackboneBase(torchvision.models.resnet18(), True, 512, {"layer3": "c4"}).train()
    assert not any(name.startswith(("body.fc", "body.layer4")) for name in backbone.state_dict())
    frozen_norms = {
        n.split(".")[1] for n, m in backbone.named_modules() if "Frozen" in type(m).__name__
    }
    assert frozen_norms == {"bn1", "layer1"}
    assert backbone.output_shape()["c4"].channels == 256
    assert isinstance(backbone(torch.randn(1, 3, 32, 32))["c4"], torch.Tensor)


def test_frozen_norm():
    norm = FrozenBatchNorm2d(2)
    assert list(norm.state_dict()) == ["weight", "bias", "running_mean", "running_var"]


def test_what_does_not_exist():
    with pytest.raises(ValueError, match="no classification network named 'resnet51'"):
        TorchvisionResNet("resnet51")
    with pytest.raises(ValueError, match=r"return_layers names \['layer5'\], but ResNet has conv1"):
        TorchvisionResNet("resnet18", return_layers={"layer5": "res6"})
    with pytest.raises(ValueError, match="Dilation"):
        TorchvisionResNet("resnet18", dilation=True)

"""Folded networks compute the same with fewer operations."""

from __future__ import annotations

import copy

import pytest
import torch
from reference_recipe import fill_with_recipe
from torch import nn

from detrex.modeling.backbone import (
    BasicStem,
    ResNet,
    TimmBackbone,
    TorchvisionBackbone,
    fold_frozen_norms,
    make_stage,
)
from detrex.modeling.neck import ChannelMapper


def resnet(norm="FrozenBN", **options) -> ResNet:
    stages = make_stage(norm=norm, **options)
    return ResNet(BasicStem(norm=norm), stages, out_features=["res2", "res3"])


def torchvision_network(name: str, *nodes: str, **options) -> TorchvisionBackbone:
    return TorchvisionBackbone(name, return_nodes={node: node for node in nodes}, **options)


def norms(network: nn.Module) -> list[str]:
    return [name for name, m in network.named_modules() if "BatchNorm" in type(m).__name__]


NETWORKS = {
    "frozen": resnet,
    "trainable": lambda: resnet("BN", depth=18, out_channels=64),
    "deformable": lambda: resnet(deform_on_per_stage=[False, True, False, False]),
    "torchvision": lambda: torchvision_network("resnet18", "layer2", freeze_norm=True),
    "torchvision blocks": lambda: torchvision_network("efficientnet_b0", "features.2"),
    "timm": lambda: TimmBackbone("test_resnet", out_indices=(1, 2), freeze_norm=True),
    "timm with activations": lambda: TimmBackbone("efficientnet_lite0", out_indices=(1,)),
    "timm, frozen with activations": lambda: TimmBackbone(
        "mobilenetv3_small_050", out_indices=(1, 2), freeze_norm=True
    ),
    "timm, padded by hand": lambda: TimmBackbone("tf_efficientnet_lite0", out_indices=(1, 2)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_all_norms_fold_and_outputs_stay(name):
    network = NETWORKS[name]()
    fill_with_recipe(network)
    before = copy.deepcopy(network.state_dict())
    folded = fold_frozen_norms(network)
    assert norms(network) and not norms(folded)
    image = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        expected = network.eval()(image)
        for key, feature in folded(image).items():
            torch.testing.assert_close(feature, expected[key], atol=1e-5, rtol=1e-5)
    assert network.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_the_copy_is_for_inference_and_the_original_goes_on_training():
    network = resnet("BN", depth=18, out_channels=64).train()
    folded = fold_frozen_norms(network)
    assert network.training and all(p.requires_grad for p in network.parameters())
    assert not folded.training and not any(p.requires_grad for p in folded.parameters())
    assert folded.output_shape() == network.output_shape()
    ours, theirs = ({p.data_ptr() for p in m.parameters()} for m in (network, folded))
    assert not ours & theirs


def test_what_others_see_of_a_convolution_is_not_folded():
    network = torchvision_network("resnet18", "layer1.0.conv1", "layer1")
    fill_with_recipe(network)
    folded = fold_frozen_norms(network)
    assert norms(folded) == ["feature_extractor.layer1.0.bn1"]
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = network.eval()(image)
        for key, feature in folded(image).items():
            torch.testing.assert_close(feature, expected[key], atol=1e-5, rtol=1e-5)


def test_norms_before_convolutions_and_standardized_weights_stay():
    dense = torchvision_network("densenet121", "features.denseblock1")
    fill_with_recipe(dense)
    folded = fold_frozen_norms(dense)
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        (expected,), (feature,) = dense.eval()(image).values(), folded(image).values()
    torch.testing.assert_close(feature, expected, atol=1e-5, rtol=1e-5)
    left = [name.split(".")[-1] for name in norms(folded)]
    assert left == ["norm1"] * 6  # what follows a concatenation; each norm2 follows a convolution


def test_inside_a_whole_model():
    """Wherever in a model the convolutions are; norms that are not constant stay."""
    network = resnet(depth=18, out_channels=64)
    neck = ChannelMapper(
        input_shapes=network.output_shape(),
        in_features=["res2", "res3"],
        out_channels=8,
        norm_layer=nn.GroupNorm(2, 8),
        num_outs=2,
    )
    model = nn.Sequential(network, neck)
    fill_with_recipe(model)
    folded = fold_frozen_norms(model)
    assert not norms(folded)
    assert sum(isinstance(m, nn.GroupNorm) for m in folded.modules()) == 2
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for ours, theirs in zip(folded(image), model.eval()(image), strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_networks_that_cannot_be_followed_stay_as_they_are(monkeypatch, caplog):
    network = TimmBackbone("test_resnet", out_indices=(1,))
    original = type(network.timm_model).forward

    def depends_on_values(self, x):
        return original(self, x) if x.sum() > 0 else original(self, -x)

    monkeypatch.setattr(type(network.timm_model), "forward", depends_on_values)
    with caplog.at_level("INFO"):
        folded = fold_frozen_norms(network)
    assert len(norms(folded)) == len(norms(network)) > 0
    assert "stay unfolded" in caplog.text


def test_a_norm_that_does_more_than_normalizing_keeps_doing_it():
    class Doubling(nn.BatchNorm2d):
        def forward(self, x):
            return 2 * super().forward(x)

    network = resnet(norm=Doubling, depth=18, out_channels=64).eval()
    fill_with_recipe(network)
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for key, feature in fold_frozen_norms(network)(image).items():
            assert torch.equal(feature, network(image)[key])

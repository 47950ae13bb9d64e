from __future__ import annotations

import pytest
import torch
import torchvision
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.layers import FrozenBatchNorm2d
from reference_recipe import fill_with_recipe
from torch import nn

from detrex.modeling.backbone import TorchvisionBackbone
from detrex.utils.pretrained import skip_pretrained


@pytest.mark.parametrize(
    ("model_name", "options"),
    [
        ("resnet18", {}),
        ("resnet50", {"replace_stride_with_dilation": [False, False, True]}),
        ("swin_t", {"return_nodes": {"features.1": "p0", "features.3": "p1"}}),
        ("convnext_tiny", {"return_nodes": {"features.3": "p1"}}),
        ("regnet_x_400mf", {"return_nodes": {"trunk_output.block4": "res5"}}),
        ("mobilenet_v3_small", {"return_nodes": {"features.8": "res4"}, "norm_layer": "FrozenBN"}),
    ],
)
def test_keeps_the_contract(model_name, options, check_contract):
    check_contract(TorchvisionBackbone(model_name, **options))


def test_equals_the_network_it_was_cut_from(tmp_path):
    network = torchvision.models.resnet18()
    fill_with_recipe(network)
    torch.save(network.state_dict(), tmp_path / "resnet18.pth")
    backbone = TorchvisionBackbone("resnet18", checkpoint_path=str(tmp_path / "resnet18.pth"))
    image = torch.randn(1, 3, 65, 97)
    network.eval()
    with torch.no_grad():
        x = network.maxpool(network.relu(network.bn1(network.conv1(image))))
        for index, (name, feature) in enumerate(backbone.eval()(image).items(), start=1):
            x = getattr(network, f"layer{index}")(x)
            assert name == f"res{index + 1}"
            torch.testing.assert_close(feature, x)


def test_holds_each_weight_once_and_no_head():
    backbone = TorchvisionBackbone("resnet18")
    network = torchvision.models.resnet18()
    trunk = {key for key in network.state_dict() if not key.startswith("fc.")}
    assert set(backbone.state_dict()) == {f"feature_extractor.{key}" for key in trunk}


def test_channels_last_networks_are_permuted():
    backbone = TorchvisionBackbone("swin_t", return_nodes={"features.3": "p1"}).eval()
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        theirs = backbone.feature_extractor(image)["p1"]
        ours = backbone(image)["p1"]
    assert theirs.shape == (1, 8, 12, 192)
    assert torch.equal(ours, theirs.movedim(3, 1))


@pytest.mark.parametrize("norm_layer", [FrozenBatchNorm2d, torchvision.ops.FrozenBatchNorm2d])
def test_frozen_norms_change_nothing_but_stay_constant(norm_layer):
    plain = TorchvisionBackbone("resnet18")
    fill_with_recipe(plain)
    frozen = TorchvisionBackbone("resnet18", norm_layer=norm_layer)
    state = plain.state_dict()
    frozen.load_state_dict({k: state[k] for k in frozen.state_dict()}, strict=True)
    image = torch.randn(1, 3, 64, 96, dtype=torch.float64)
    expected = plain.eval().double()(image)
    for name, feature in frozen.train().double()(image).items():
        torch.testing.assert_close(feature, expected[name], atol=1e-9, rtol=1e-9)
    assert not [m for m in frozen.modules() if isinstance(m, nn.BatchNorm2d)]


def test_nodes_can_differ_between_training_and_evaluation():
    backbone = TorchvisionBackbone(
        "resnet18",
        train_return_nodes={"layer1.0": "a", "layer3": "b"},
        eval_return_nodes={"layer1.1": "a", "layer3": "b"},
        suppress_diff_warnings=True,
    )
    fill_with_recipe(backbone)
    image = torch.randn(1, 3, 64, 64)
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.0
    trained, evaluated = backbone.train()(image), backbone.eval()(image)
    assert trained["a"].shape == evaluated["a"].shape == (1, 64, 16, 16)
    assert not torch.allclose(trained["a"], evaluated["a"])


def test_from_a_lazy_config():
    config = L(TorchvisionBackbone)(
        model_name="resnet18", weights=None, return_nodes={"layer2": "res3", "layer4": "res5"}
    )
    shapes = instantiate(config).output_shape()
    assert {name: (s.channels, s.stride) for name, s in shapes.items()} == {
        "res3": (128, 8),
        "res5": (512, 32),
    }


def test_normalization_of_the_weights_is_readable():
    backbone = TorchvisionBackbone("resnet18")
    assert backbone.pixel_mean == pytest.approx((123.675, 116.28, 103.53))
    assert backbone.pixel_std == pytest.approx((58.395, 57.12, 57.375))
    assert backbone.pixel_order == "RGB"


def test_strides_without_padding_are_those_of_the_convolutions():
    """Inception's maps lose cells at their borders: 6 of 256 pixels are not stride 43."""
    nodes = {"Conv2d_2b_3x3": "a", "Mixed_5b": "b", "Mixed_6a": "c", "Mixed_7a": "d"}
    backbone = TorchvisionBackbone("inception_v3", return_nodes=nodes)
    assert [shape.stride for shape in backbone.output_shape().values()] == [2, 8, 16, 32]
    assert backbone.size_divisibility == 32


DENSE_NODES = {"features.denseblock1": "res2", "features.denseblock2": "res3"}
SWIN_NODES = {"features.1": "res2", "features.3": "res3"}


RESNET_PARTS = [["conv1", "bn1"], ["layer1"], ["layer2"], ["layer3"], ["layer4"]]
DENSENET_PARTS = [["conv0", "norm0"], ["denseblock1"], ["transition1", "denseblock2"]]
SWIN_PARTS = [["0"], ["1"], ["2", "3"]]
MOBILENET_PARTS = [["0"], ["1", "2", "3"], ["4"]]


@pytest.mark.parametrize(
    ("model_name", "nodes", "parts", "freeze_at"),
    [
        *(("resnet18", None, RESNET_PARTS, k) for k in range(6)),
        ("resnet18", {"layer3": "res4"}, RESNET_PARTS, 2),  # what is returned makes no difference
        ("densenet121", DENSE_NODES, DENSENET_PARTS, 2),
        ("swin_t", SWIN_NODES, SWIN_PARTS, 2),
        *(("mobilenet_v2", {"features.4": "res3"}, MOBILENET_PARTS, k) for k in (1, 2)),
    ],
)
def test_freeze_at_counts_as_in_a_resnet(model_name, nodes, parts, freeze_at):
    backbone = TorchvisionBackbone(model_name, return_nodes=nodes, freeze_at=freeze_at).train()
    prefix = "" if model_name == "resnet18" else "features."
    frozen = tuple(f"{prefix}{name}." for part in parts[:freeze_at] for name in part)
    for name, parameter in backbone.feature_extractor.named_parameters():
        assert parameter.requires_grad != name.startswith(frozen), name
    for name, module in backbone.feature_extractor.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            assert not f"{name}.".startswith(frozen), name


@pytest.mark.parametrize("channels", [1, 6])
def test_weights_are_adapted_to_the_channels_of_the_images(channels, tmp_path, monkeypatch):
    """One gray channel is three equal colors, and six channels are two images of three."""
    network = torchvision.models.resnet18().eval()
    fill_with_recipe(network)
    state = network.state_dict()
    torch.save(state, tmp_path / "a.pth")
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *a, **k: state)
    nodes = {"layer1": "res2"}
    from_file = TorchvisionBackbone(
        "resnet18", return_nodes=nodes, in_channels=channels, checkpoint_path=tmp_path / "a.pth"
    )
    downloaded = TorchvisionBackbone(
        "resnet18", "DEFAULT", return_nodes=nodes, in_channels=channels
    )
    image = torch.randn(1, min(channels, 3), 64, 96)
    colors = image.expand(-1, 3, -1, -1)
    seen = image.repeat(1, channels // image.shape[1], 1, 1)
    with torch.no_grad():
        expected = network.maxpool(network.relu(network.bn1(network.conv1(colors))))
        expected = network.layer1(expected)
        for backbone in (from_file, downloaded):
            feature = backbone.eval()(seen)["res2"]
            torch.testing.assert_close(feature, expected, atol=1e-5, rtol=1e-5)
            assert len(backbone.pixel_mean) == len(backbone.pixel_std) == channels


def test_weights_that_will_be_overwritten_are_not_fetched(monkeypatch):
    def no_connection(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", no_connection)
    with skip_pretrained():
        TorchvisionBackbone("resnet18", weights="DEFAULT")
        TorchvisionBackbone("resnet18", checkpoint_path="no-such-file.pth")
    with pytest.raises(RuntimeError, match="could not be had"):
        TorchvisionBackbone("resnet18", weights="DEFAULT")


@pytest.mark.parametrize("local_rank", [0, 1])
def test_one_process_per_machine_downloads_first(monkeypatch, local_rank):
    events = []
    state = torchvision.models.resnet18().state_dict()
    comm = "detrex.modeling.backbone.torchvision_weights.comm"
    monkeypatch.setattr(f"{comm}.get_local_rank", lambda: local_rank)
    monkeypatch.setattr(f"{comm}.synchronize", lambda: events.append("wait"))
    monkeypatch.setattr(
        "torchvision.models._api.load_state_dict_from_url",
        lambda *a, **k: events.append("load") or state,
    )
    TorchvisionBackbone("resnet18")
    assert events == []
    TorchvisionBackbone("resnet18", weights="DEFAULT")
    assert events == (["wait", "load"] if local_rank else ["load", "wait"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"grad_checkpointing": True}, r"cannot checkpoint.*TimmBackbone.*resnet18"),
        ({"freeze_at": -1}, "freeze_at is 0 or more, not -1"),
        ({"model_name": "resnet5"}, "no classification network named 'resnet5'.*resnet50"),
        ({"weights": "V9"}, "no weights 'V9' for resnet18; there are IMAGENET1K_V1"),
        ({"return_nodes": {"layer5": "a"}}, "'layer5', which resnet18 does not have.*layer4"),
        ({"return_nodes": {"fc": "a"}}, "behind 'a' of resnet18 gives no feature map"),
        ({"train_return_nodes": {"layer1": "a"}}, "either return_nodes, or both"),
        (
            {"train_return_nodes": {"layer1": "a"}, "eval_return_nodes": {"layer1": "b"}},
            "have to be the same",
        ),
        ({"model_name": "vit_b_16", "return_nodes": {"encoder": "a"}}, "many sizes"),
        ({"replace_stride_with_dilation": [False, False, True]}, "cannot be built.*BasicBlock"),
        (
            {
                "model_name": "convnext_tiny",
                "return_nodes": {"features.7": "p3"},
                "freeze_norm": True,
            },
            "no batch norm.*LayerNorm2d",
        ),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        TorchvisionBackbone(**{"model_name": "resnet18", **arguments})


def test_a_file_of_another_network_is_refused(tmp_path):
    torch.save(torchvision.models.alexnet().features.state_dict(), tmp_path / "alexnet.pth")
    with pytest.raises(ValueError, match=r"alexnet\.pth holds the weights of another network"):
        TorchvisionBackbone("resnet18", checkpoint_path=str(tmp_path / "alexnet.pth"))


@pytest.mark.parametrize(
    "option",
    [
        {"pretrained": True},
        {"weights": "IMAGENET1K_V1"},
        {"weights": "DEFAULT"},
        {"weights": torchvision.models.ResNet18_Weights.IMAGENET1K_V1},
    ],
)
def test_without_a_connection_the_error_says_what_was_wanted_and_the_way_out(
    monkeypatch, tmp_path, option
):
    def no_connection(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr("torch.hub.urlopen", no_connection)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    message = r"ResNet18_Weights\.IMAGENET1K_V1.*https://.*no route to host.*checkpoints"
    with pytest.raises(RuntimeError, match=message) as caught:
        TorchvisionBackbone("resnet18", **option)
    assert isinstance(caught.value.__cause__, OSError)


def test_the_network_can_be_reached():
    backbone = TorchvisionBackbone("resnet18", return_nodes={"layer1": "res2"})
    assert backbone.model.layer1 is backbone.feature_extractor.layer1
    assert not any(name.startswith("model.") for name in backbone.state_dict())

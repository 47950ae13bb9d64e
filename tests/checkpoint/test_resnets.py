"""A ResNet computes what the network computes that its weights come from, whoever trained that."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable

import numpy as np
import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from detrex.checkpoint import CheckpointError, load_weights, read_state_dict
from detrex.modeling.backbone import BasicStem, ResNet, make_stage
from detrex.modeling.backbone import resnet as resnet_module

STAGES = ["res2", "res3", "res4", "res5"]
CAFFE_CONVS = {
    "conv1": "branch2a",
    "conv2": "branch2b",
    "conv3": "branch2c",
    "downsample.0": "branch1",
}


def filled(build: Callable[[], nn.Module]) -> nn.Module:
    """A network with random numbers everywhere, without the cost of its own initialization."""
    with torch.device("meta"):
        network = build()
    network = network.to_empty(device="cpu").eval()
    for name, value in network.state_dict().items():
        if value.dim() > 1:
            value.normal_(std=value[0].numel() ** -0.5)
        elif name.endswith(("weight", "running_var")):
            value.uniform_(0.8, 1.2)
        elif value.is_floating_point():
            value.uniform_(-0.1, 0.1)
    return network


def resnet(depth: int = 50, in_channels: int = 3, norm: str = "FrozenBN", **options) -> ResNet:
    options.setdefault("out_channels", 256 if depth >= 50 else 64)
    return filled(
        lambda: ResNet(
            BasicStem(in_channels, 64, norm),
            make_stage(depth=depth, norm=norm, **options),
            out_features=STAGES,
        )
    )


@pytest.fixture
def short(monkeypatch):
    """ResNet-50 with one block per stage, two in the first, to save time."""
    monkeypatch.setitem(resnet_module.BLOCKS_PER_STAGE, 50, (2, 1, 1, 1))


def short_torchvision(**options) -> nn.Module:
    bottleneck = torchvision.models.resnet.Bottleneck
    return filled(lambda: torchvision.models.ResNet(bottleneck, [2, 1, 1, 1], **options))


def detector(backbone: ResNet, mean=None, std=None) -> nn.Module:
    """As much of a detector as loading looks at."""
    model = nn.Module()
    model.backbone = backbone
    if mean is not None:
        model.register_buffer("pixel_mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        model.register_buffer("pixel_std", torch.tensor(std).view(-1, 1, 1), persistent=False)
    return model


def stages_of(network: nn.Module, image: Tensor) -> dict[str, Tensor]:
    """Features of torchvision's or timm's ResNet, by calling its parts by hand."""
    x = network.maxpool(torch.relu(network.bn1(network.conv1(image))))
    features = {}
    for index, name in enumerate(STAGES, start=1):
        x = features[name] = getattr(network, f"layer{index}")(x)
    return features


@torch.no_grad()
def assert_same_features(ours: ResNet, theirs: nn.Module, in_channels: int = 3) -> None:
    image = torch.randn(1, in_channels, 65, 97)
    expected = stages_of(theirs.eval(), image)
    for name, feature in ours.eval()(image).items():
        torch.testing.assert_close(feature, expected[name], atol=1e-5, rtol=1e-5)


def source_network(library: str, name: str, **options) -> nn.Module:
    build = torchvision.models.get_model if library == "torchvision" else timm.create_model
    return filled(lambda: build(name, **options))


@pytest.mark.parametrize("inside", ["bare", "detector"])
@pytest.mark.parametrize(
    ("library", "name", "suffix", "ours"),
    [
        ("torchvision", "resnet18", ".pth", {"depth": 18}),
        ("torchvision", "resnet50", ".pth", {}),
        ("timm", "resnet34", ".pth", {"depth": 34}),
        ("timm", "resnet50", ".safetensors", {}),
    ],
)
def test_files_of_torchvision_and_timm(library, name, suffix, ours, inside, tmp_path, caplog):
    theirs = source_network(library, name)
    path = tmp_path / f"weights{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(theirs.state_dict(), path)
    backbone = resnet(**ours)
    model = backbone if inside == "bare" else detector(backbone)
    report = load_weights(model, path)
    report.check(path.name)
    assert report.missing == report.unexpected == []
    assert_same_features(backbone, theirs)
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("library", "dilated"),
    [
        ("torchvision", {"replace_stride_with_dilation": [False, False, True]}),
        ("timm", {"output_stride": 16}),
    ],
)
def test_dc5_as_torchvision_and_timm_understand_it(library, dilated):
    theirs = source_network(library, "resnet50", **dilated)
    ours = resnet(res5_dilation=2, res5_first_dilation=1)
    load_weights(ours, theirs.state_dict()).check("dc5")
    assert_same_features(ours, theirs)
    others = resnet(res5_dilation=2)
    load_weights(others, theirs.state_dict()).check("dc5")
    with pytest.raises(AssertionError, match="not close"):
        assert_same_features(others, theirs)


def test_trainable_norms_get_their_statistics():
    theirs = source_network("torchvision", "resnet18")
    ours = resnet(18, norm="BN")
    load_weights(ours, theirs.state_dict()).check("bn")
    assert_same_features(ours, theirs)


def as_zoo_pickle(network: nn.Module) -> bytes:
    """As detectron2's converter writes torchvision's ResNets: its own names, arrays, an author."""
    model = {}
    for key, value in network.state_dict().items():
        key = key.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")
        key = key if key.startswith("layer") else f"stem.{key}"
        for stage in range(1, 5):
            key = key.replace(f"layer{stage}", f"res{stage + 1}")
        for conv in range(1, 4):
            key = key.replace(f"bn{conv}", f"conv{conv}.norm")
        model[key] = value.numpy()
    content = {"model": model, "__author__": "torchvision", "matching_heuristics": True}
    return pickle.dumps(content, protocol=2)


@pytest.mark.parametrize("inside", ["bare", "detector"])
def test_detectron2_pickle_of_torchvision_weights(short, inside, tmp_path):
    theirs = short_torchvision()
    (tmp_path / "R-50.pkl").write_bytes(as_zoo_pickle(theirs))
    backbone = resnet()
    report = load_weights(
        backbone if inside == "bare" else detector(backbone), tmp_path / "R-50.pkl"
    )
    assert report.missing == report.unexpected == []
    assert set(report.ignored) >= {"stem.fc.weight", "stem.fc.bias"}
    assert_same_features(backbone, theirs)


def caffe_network(stride_in_1x1: bool = True, **options) -> nn.Module:
    """A ResNet of torchvision made one of Caffe2's: norms without statistics, strides moved."""
    network = short_torchvision(**options)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.zeros_(module.running_mean)
            nn.init.constant_(module.running_var, 1 - module.eps)
        if isinstance(module, torchvision.models.resnet.Bottleneck) and stride_in_1x1:
            module.conv1.stride, module.conv2.stride = module.conv2.stride, module.conv1.stride
    return network


def as_caffe_blobs(network: nn.Module) -> dict[str, np.ndarray]:
    """``layer1.0.bn2.weight`` -> ``res2_0_branch2b_bn_s`` and so on, with all that files have."""
    blobs = {}
    for key, value in network.state_dict().items():
        if key.endswith(("running_mean", "running_var", "num_batches_tracked")):
            continue
        *module, part = key.replace("downsample.1", "downsample.0bn").split(".")
        is_norm = "bn" in module[-1]
        module[-1] = module[-1].replace("bn", "" if "downsample" in key else "conv")
        module[-1] = module[-1].replace("0conv", "0")
        ending = f"_bn_{'s' if part == 'weight' else 'b'}" if is_norm else f"_{part[0]}"
        if module[0].startswith("layer"):
            stage = int(module[0][-1]) + 1
            conv = CAFFE_CONVS[".".join(module[2:])]
            name = f"res{stage}_{module[1]}_{conv}"
        elif module[0] == "fc":
            name = "fc1000"
        else:
            name = "res_conv1" if is_norm else "conv1"
        blobs[name + ending] = value.numpy()
    blobs["conv1_b"] = np.zeros(64, np.float32)
    momenta = {f"{name}_momentum": blob for name, blob in blobs.items()}
    return {**blobs, **momenta, "lr": np.zeros(1, np.float32)}


def test_the_names_of_blobs():
    blobs = as_caffe_blobs(caffe_network())
    assert blobs.keys() > {
        *("conv1_w", "res_conv1_bn_s", "res_conv1_bn_b", "fc1000_w", "res2_0_branch1_w"),
        *("res2_0_branch1_bn_b", "res5_0_branch2c_w", "res2_1_branch2a_bn_s", "conv1_b"),
    }


@pytest.mark.parametrize("inside", ["bare", "detector"])
@pytest.mark.parametrize("wrapped", [True, False])
def test_detectron2_pickle_of_msra_weights(short, inside, wrapped, tmp_path, caplog):
    theirs = caffe_network()
    blobs = as_caffe_blobs(theirs)
    path = tmp_path / "R-50.pkl"
    path.write_bytes(pickle.dumps({"blobs": blobs, "cfg": ""} if wrapped else blobs, protocol=2))
    backbone = resnet(stride_in_1x1=True)
    means, stds = backbone.pixel_mean, backbone.pixel_std
    model = backbone if inside == "bare" else detector(backbone, means, stds)
    report = load_weights(model, path)
    report.check(path.name)
    assert report.missing == []
    assert report.unexpected == ["lr"]
    assert_same_features(backbone, theirs)
    assert caplog.messages == []


def test_msra_weights_need_the_stride_in_the_1x1(short):
    model = detector(resnet())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    blobs = {k: torch.from_numpy(v) for k, v in as_caffe_blobs(caffe_network()).items()}
    with pytest.raises(CheckpointError, match=r"MSRA.*1x1.*build it with stride_in_1x1=True"):
        load_weights(model, blobs)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_resnext_of_caffe2_has_the_stride_in_the_3x3(short, caplog):
    theirs = caffe_network(stride_in_1x1=False, groups=32, width_per_group=4)
    blobs = {k: torch.from_numpy(v) for k, v in as_caffe_blobs(theirs).items()}
    bgr = ((103.53, 116.28, 123.675), (57.375, 57.12, 58.395))
    model = detector(resnet(num_groups=32, width_per_group=4), *bgr)
    load_weights(model, blobs).check("X")
    assert_same_features(model.backbone, theirs)
    assert caplog.messages == []


def test_torchvision_weights_under_a_stride_in_the_1x1_are_warned_of(short, caplog):
    theirs = short_torchvision()
    with caplog.at_level(logging.WARNING):
        load_weights(resnet(stride_in_1x1=True), theirs.state_dict())
    (message,) = caplog.messages
    assert "torchvision or timm" in message and "stride_in_1x1=False" in message


@pytest.mark.parametrize(
    ("source", "wanted"), [("torchvision", "RGB"), ("msra", "BGR")], ids=["rgb", "bgr"]
)
def test_pixels_that_the_weights_do_not_expect_are_warned_of(short, source, wanted, caplog):
    network = caffe_network() if source == "msra" else short_torchvision()
    state = as_caffe_blobs(network) if source == "msra" else network.state_dict()
    state = {k: torch.as_tensor(v) for k, v in state.items()}
    right = resnet(stride_in_1x1=source == "msra")
    wrong = resnet(stride_in_1x1=source != "msra")
    assert (right.pixel_order, wrong.pixel_order) == (wanted, wanted[::-1])
    with caplog.at_level(logging.WARNING):
        load_weights(detector(right, right.pixel_mean, right.pixel_std), state)
        assert caplog.messages == []
        load_weights(detector(right, wrong.pixel_mean, wrong.pixel_std), state)
    mean, std = caplog.messages
    assert f"{wanted} images with pixel_mean={list(right.pixel_mean)}" in mean
    assert f"the mapper's img_format to {wanted}" in mean
    assert f"pixel_std={list(right.pixel_std)}, but the model has" in std


@pytest.mark.parametrize("channels", [1, 6])
def test_the_first_convolution_follows_the_channels_of_the_images(channels):
    """One gray channel is three equal colors, and six channels are two images of three."""
    theirs = source_network("torchvision", "resnet18")
    ours = resnet(18, in_channels=channels)
    load_weights(ours, theirs.state_dict()).check("adapted")
    image = torch.randn(1, min(channels, 3), 64, 64)
    colors = image.expand(-1, 3, -1, -1)
    seen = image.repeat(1, channels // image.shape[1], 1, 1)
    with torch.no_grad():
        expected = stages_of(theirs, colors)
        for name, feature in ours(seen).items():
            torch.testing.assert_close(feature, expected[name], atol=1e-5, rtol=1e-5)


def test_a_classifier_gets_its_last_layer():
    theirs = source_network("torchvision", "resnet18", num_classes=7)
    stages = make_stage(18, "BN", out_channels=64)
    ours = ResNet(BasicStem(norm="BN"), stages, num_classes=7).eval()
    report = load_weights(ours, theirs.state_dict())
    assert report.missing == [] and "linear.weight" in report.loaded
    image = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(image)["linear"], theirs(image), atol=1e-5, rtol=1e-5)


def test_a_resnet_d_does_not_fit():
    other = timm.create_model("resnet18d")
    model = detector(resnet(18))
    with pytest.raises(CheckpointError, match=r"resnet18d fills .* backbone\.stem\.conv1\.weight"):
        load_weights(model, other.state_dict()).check("resnet18d")


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_pickles_of_any_age(protocol, tmp_path):
    content = {"model": {"a": np.arange(6, dtype=np.float32).reshape(2, 3)}, "__author__": "x"}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content, protocol=protocol))
    expected = torch.arange(6.0).view(2, 3)
    assert torch.equal(read_state_dict(tmp_path / "a.pkl")["a"], expected)


def test_a_pickle_by_torch(tmp_path):
    torch.save({"model": {"a": torch.ones(2)}}, tmp_path / "a.pkl")
    assert torch.equal(read_state_dict(tmp_path / "a.pkl")["a"], torch.ones(2))

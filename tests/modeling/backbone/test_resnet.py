from __future__ import annotations

import copy
import json
import zlib

import numpy as np
import pytest
import reference_ops
import torch
import torchvision
from detectron2.layers import FrozenBatchNorm2d, ShapeSpec
from detectron2.modeling.backbone import resnet
from reference_recipe import fill_with_recipe
from torch import nn

from detrex.modeling.backbone import (
    BasicBlock,
    BasicStem,
    BottleneckBlock,
    DeformBottleneckBlock,
    ResNet,
    make_stage,
)

ALL = ["stem", "res2", "res3", "res4", "res5"]


def default(depth: int, out_features=ALL, freeze_at=0, norm="FrozenBN", **options) -> ResNet:
    if depth >= 50:
        options.setdefault("stride_in_1x1", False)
    stages = ResNet.make_default_stages(depth=depth, norm=norm, **options)
    return ResNet(BasicStem(norm=norm), stages, out_features=out_features, freeze_at=freeze_at)


def by_make_stage(out_features=ALL, freeze_at=0, num_classes=None, **options) -> ResNet:
    stages = make_stage(**options)
    stem = BasicStem(norm="FrozenBN")
    return ResNet(stem, stages, num_classes, out_features=out_features, freeze_at=freeze_at)


NETWORKS = {
    "default18": lambda: default(18, freeze_at=1),
    "default34": lambda: default(34, freeze_at=1),
    "default50": lambda: default(50, freeze_at=1),
    "default101": lambda: default(101, freeze_at=1),
    "default50_stride1x1": lambda: default(50, stride_in_1x1=True),
    "default50_bn_eval": lambda: default(50, ["res5"], norm="BN"),
    "make_stage18": lambda: by_make_stage(depth=18, out_channels=64),
    "make_stage50": lambda: by_make_stage(depth=50),
    "make_stage50_g32w4": lambda: by_make_stage(["res5"], num_groups=32, width_per_group=4),
    "make_stage50_res5dil2": lambda: by_make_stage(res5_dilation=2, freeze_at=2),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_agrees_with_the_reference(name):
    expected = {
        key.removeprefix(f"{name}."): value
        for key, value in reference_ops.load("resnet").items()
        if key.startswith(f"{name}.")
    }
    network = NETWORKS[name]().eval()
    keys = "\n".join(sorted(network.state_dict()))
    assert zlib.crc32(keys.encode()) == expected["keys_crc32"]
    assert sum(p.numel() for p in network.parameters()) == expected["n_params"]
    trainable = sum(p.numel() for p in network.parameters() if p.requires_grad)
    assert trainable == expected["trainable"]
    shapes = {k: [s.channels, s.stride] for k, s in network.output_shape().items()}
    assert shapes == json.loads(str(expected["output_shape"]))

    fill_with_recipe(network)
    image = np.random.RandomState(11).standard_normal((1, 3, 97, 129)).astype(np.float32)
    with torch.no_grad():
        features = network(torch.from_numpy(image))
    for feature_name, feature in features.items():
        assert list(feature.shape) == expected[f"{feature_name}.shape"].tolist()
        patch = expected[f"{feature_name}.patch"]
        torch.testing.assert_close(feature[0, :8, :4, :4], patch, atol=1e-5, rtol=1e-5)
        spread = torch.stack([feature.mean(), feature.std()])
        first = feature.flatten()[:8]
        stats = torch.cat([spread, first])
        torch.testing.assert_close(stats, expected[f"{feature_name}.stats"], atol=1e-5, rtol=1e-5)


def test_classifier_agrees_with_the_reference():
    expected = reference_ops.load("resnet")
    stages = ResNet.make_default_stages(18, norm="FrozenBN")
    network = ResNet(BasicStem(norm="FrozenBN"), stages, num_classes=10).eval()
    keys = "\n".join(sorted(network.state_dict()))
    assert zlib.crc32(keys.encode()) == expected["cls10.keys_crc32"]
    fill_with_recipe(network)
    image = np.random.RandomState(11).standard_normal((1, 3, 97, 129)).astype(np.float32)
    with torch.no_grad():
        scores = network(torch.from_numpy(image))["linear"]
    torch.testing.assert_close(scores, expected["cls10.linear.patch"], atol=1e-5, rtol=1e-5)


def as_detectron2_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    renamed = {}
    for key, value in state.items():
        key = key.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")
        key = key if key.startswith("layer") else f"stem.{key}"
        for stage in range(1, 5):
            key = key.replace(f"layer{stage}", f"res{stage + 1}")
        for conv in range(1, 4):
            key = key.replace(f"bn{conv}", f"conv{conv}.norm")
        renamed[key] = value
    return renamed


@pytest.mark.parametrize(
    ("source", "ours"),
    [
        ("resnet50", {}),
        ("resnext50_32x4d", {"num_groups": 32, "width_per_group": 4}),
        ("wide_resnet50_2", {"width_per_group": 128}),
        ("dc5", {"res5_dilation": 2, "res5_first_dilation": 1}),
    ],
)
def test_equals_torchvision_with_its_weights(source, ours):
    dilate = [False, False, source == "dc5"]
    build = torchvision.models.get_model
    theirs = build("resnet50" if source == "dc5" else source, replace_stride_with_dilation=dilate)
    theirs.fc = nn.Identity()
    last = 4 if source in ("dc5", "resnet50") else 2
    for stage in range(last + 1, 5):
        setattr(theirs, f"layer{stage}", nn.Identity())
    fill_with_recipe(theirs)
    network = by_make_stage(ALL[: last + 1], **ours).eval()
    state = as_detectron2_names(theirs.state_dict())
    state = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    network.load_state_dict(state, strict=True)

    image = torch.randn(1, 3, 70, 90)
    theirs.eval()
    with torch.no_grad():
        x = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(image))))
        for name, feature in network(image).items():
            if name != "stem":
                x = getattr(theirs, f"layer{int(name[-1]) - 1}")(x)
            torch.testing.assert_close(feature, x, atol=1e-5, rtol=1e-5)


def test_the_two_dc5_conventions_differ_in_one_dilation():
    def dilations(**options):
        return [
            [block.conv2.dilation[0] for block in stage]
            for stage in make_stage(res5_dilation=2, **options)[2:]
        ]

    assert dilations() == [[1] * 6, [2, 2, 2]]
    assert dilations(res5_first_dilation=1) == [[1] * 6, [1, 2, 2]]


@pytest.mark.parametrize("norm", ["BN", "FrozenBN"])
@pytest.mark.parametrize("freeze_at", range(6))
def test_freeze_at_counts_the_stem_and_stages_and_survives_train(norm, freeze_at):
    network = default(18, freeze_at=freeze_at, norm=norm).train()
    for index, name in enumerate(ALL, start=1):
        part = getattr(network, name)
        frozen = index <= freeze_at
        assert all(p.requires_grad != frozen for p in part.parameters()), name
        has_batch_norm = any(isinstance(m, nn.BatchNorm2d) for m in part.modules())
        assert has_batch_norm == (norm == "BN" and not frozen), name


def test_a_frozen_part_does_not_change_in_a_training_step():
    network = default(18, freeze_at=2, norm="BN").train()
    before = copy.deepcopy(network.state_dict())
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.1)
    network(torch.randn(2, 3, 64, 64))["res5"].sum().backward()
    optimizer.step()
    for key, value in network.state_dict().items():
        frozen = key.startswith(("stem", "res2"))
        if frozen or key.endswith(("running_mean", "conv1.weight")):
            assert torch.equal(value, before[key]) == frozen, key


@pytest.mark.parametrize("out_features", [["res2", "res3"], ["res4"], ["stem"], None])
def test_returns_what_is_asked_and_builds_no_more(out_features, check_contract):
    network = default(18, out_features)
    names = out_features or ["res5"]
    assert list(network.output_shape()) == names
    built = [name for name, _ in network.named_children()]
    assert built == ALL[: ALL.index(names[-1]) + 1]
    check_contract(network)


def test_output_shape_follows_out_features_whatever_their_order():
    network = default(18, ["res4", "res2"])
    assert list(network.output_shape()) == ["res4", "res2"]
    assert set(network(torch.randn(1, 3, 64, 64))) == {"res4", "res2"}


@pytest.mark.parametrize("norm", ["FrozenBN", "BN", "GN", "", lambda n: nn.GroupNorm(2, n)])
def test_norms(norm):
    network = default(18, ["res2"], norm=norm)
    kinds = {type(m) for m in network.modules() if "Norm" in type(m).__name__}
    by_name = {"FrozenBN": FrozenBatchNorm2d, "BN": nn.BatchNorm2d, "GN": nn.GroupNorm}
    if norm == "":
        assert kinds == set()
    else:
        assert kinds == {by_name[norm] if isinstance(norm, str) else nn.GroupNorm}


@pytest.mark.parametrize("modulated", [False, True])
def test_a_fresh_deformable_block_is_a_bottleneck(modulated):
    arguments = {"bottleneck_channels": 4, "stride": 2, "norm": "FrozenBN"}
    plain = BottleneckBlock(8, 16, **arguments)
    deformable = DeformBottleneckBlock(
        8, 16, **arguments, deform_modulated=modulated, deform_num_groups=2
    )
    fill_with_recipe(plain)
    missing, unexpected = deformable.load_state_dict(plain.state_dict(), strict=False)
    assert (missing, unexpected) == (["conv2_offset.weight", "conv2_offset.bias"], [])
    if modulated:  # a tap counts sigmoid(0) at first
        with torch.no_grad():
            deformable.conv2.weight *= 2
    image = torch.randn(2, 8, 11, 9)
    torch.testing.assert_close(deformable(image), plain(image), atol=1e-5, rtol=1e-5)


def test_deformable_offsets_move_the_taps():
    block = DeformBottleneckBlock(4, 4, bottleneck_channels=4, norm="")
    image = torch.randn(1, 4, 8, 8)
    moved = copy.deepcopy(block)
    with torch.no_grad():
        # one column to the right for every tap: offsets come as (y, x) per tap
        moved.conv2_offset.bias[1::2] = 1.0
        hidden = torch.relu(block.conv1(image))
        expected = block.conv2(hidden.roll(-1, dims=3), torch.zeros(1, 18, 8, 8))
        actual = moved._convolve_deformed(hidden)
    torch.testing.assert_close(actual[..., 1:-2], expected[..., 1:-2])


def test_deformable_stages_train(check_contract):
    options = {"deform_on_per_stage": [False, True, False, False], "deform_num_groups": 2}
    network = by_make_stage(["res3"], deform_modulated=True, **options)
    kinds = {name: type(getattr(network, name)[1]) for name in ("res2", "res3")}
    assert kinds == {"res2": BottleneckBlock, "res3": DeformBottleneckBlock}
    check_contract(network)


def test_depth_152_and_fewer_stages():
    blocks = [len(stage) for stage in ResNet.make_default_stages(152)]
    assert blocks == [3, 8, 36, 3]
    stages = ResNet.make_default_stages(18)[:2]
    assert list(ResNet(BasicStem(), stages).output_shape()) == ["res3"]


def test_float64_and_images_of_four_channels():
    stages = ResNet.make_default_stages(18, norm="FrozenBN")
    network = ResNet(BasicStem(4, 64, "FrozenBN"), stages, out_features=["res3"]).double()
    assert network(torch.randn(1, 4, 33, 47, dtype=torch.float64))["res3"].dtype == torch.float64


@pytest.mark.parametrize("norm", ["BN", "FrozenBN"])
def test_gradient_checkpointing_changes_memory_alone(norm):
    """Gradients are the same, and running statistics too: the second pass is not counted."""
    plain = default(18, ["res2", "res5"], freeze_at=1, norm=norm).train()
    fill_with_recipe(plain)
    saving = copy.deepcopy(plain)
    saving.grad_checkpointing = True
    image = torch.randn(2, 3, 64, 64)
    for network in (plain, saving):
        sum(x.square().sum() for x in network(image).values()).backward()
    expected = dict(plain.named_parameters())
    for name, parameter in saving.named_parameters():
        assert parameter.requires_grad == expected[name].requires_grad
        torch.testing.assert_close(parameter.grad, expected[name].grad, msg=name)
    state = plain.state_dict()
    for name, value in saving.state_dict().items():
        assert torch.equal(value, state[name]), name


def test_gradient_checkpointing_keeps_less():
    """What the backward pass holds on to, counted while the forward pass runs."""

    def kept(grad_checkpointing: bool) -> int:
        stages = ResNet.make_default_stages(18, norm="FrozenBN")
        network = ResNet(
            BasicStem(norm="FrozenBN"), stages, freeze_at=1, grad_checkpointing=grad_checkpointing
        ).train()
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda x: sizes.append(0 if isinstance(x, nn.Parameter) else x.numel()), lambda x: x
        ):
            network(torch.randn(1, 3, 64, 64))
        return sum(sizes)

    assert kept(True) < kept(False) / 2


def test_the_images_that_weights_expect():
    torchvision_like = by_make_stage(["res2"])
    assert torchvision_like.pixel_mean == (123.675, 116.28, 103.53)
    assert torchvision_like.pixel_std == (58.395, 57.12, 57.375)
    assert torchvision_like.pixel_order == "RGB"
    msra_like = by_make_stage(["res2"], stride_in_1x1=True)
    assert msra_like.pixel_mean == (103.53, 116.28, 123.675)
    assert msra_like.pixel_std == (1.0, 1.0, 1.0)
    assert msra_like.pixel_order == "BGR"
    four = ResNet(BasicStem(4), ResNet.make_default_stages(18), out_features=["res2"])
    assert four.pixel_mean == (123.675, 116.28, 103.53, 123.675)
    one = ResNet(BasicStem(1), ResNet.make_default_stages(18), out_features=["res2"])
    assert one.pixel_mean == pytest.approx(((123.675 + 116.28 + 103.53) / 3,))


def test_block_class_can_be_chosen():
    stages = ResNet.make_default_stages(34, BottleneckBlock, stride_in_1x1=True)
    assert [stage[0].conv2.weight.shape[0] for stage in stages] == [16, 32, 64, 128]
    assert isinstance(ResNet.make_default_stages(34)[0][0], BasicBlock)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: make_stage(depth=51), r"depth 51.*18, 34, 50, 101, 152.*nearest is 50"),
        (lambda: ResNet.make_default_stages(20), "nearest is 18"),
        (lambda: make_stage(depth=18), "ResNet-18.*out_channels must be 64, not 256"),
        (lambda: make_stage(depth=34, out_channels=64, res5_dilation=2), "res5_dilation must be 1"),
        (lambda: make_stage(depth=18, out_channels=64, num_groups=32), "num_groups must be 1"),
        (
            lambda: make_stage(18, out_channels=64, deform_on_per_stage=[True] * 4),
            "deform_on_per_stage must be",
        ),
        (lambda: make_stage(res5_dilation=4), "res5_dilation is 1 or 2"),
        (lambda: make_stage(res5_first_dilation=3), "res5_first_dilation is 1 or 2"),
        (lambda: make_stage(deform_on_per_stage=[True]), "one switch for each of the four"),
        (lambda: default(18, ["res1"]), r"'res1'.*'stem', 'res2'.*Did you mean"),
        (lambda: default(18, ["linear"]), "'linear'.*offers"),
        (lambda: default(18, []), "empty"),
        (lambda: default(18, freeze_at=6), r"0 to 5\), not 6"),
        (lambda: ResNet(BasicStem(3, 32), ResNet.make_default_stages(18)), r"res2.0 takes 64.*32"),
        (lambda: ResNet(BasicStem(), []), "one to four stages"),
        (lambda: default(18)(torch.randn(3, 64, 64)), r"\(B, C, H, W\), not \(3, 64, 64\)"),
    ],
)
def test_bad_input_is_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_a_list_of_another_length_than_the_stage_is_named():
    with pytest.raises(AssertionError, match="stride_per_block"):
        ResNet.make_stage(BasicBlock, 2, in_channels=4, out_channels=4, stride_per_block=[1])


def test_network_and_blocks_are_those_of_detectron2():
    """So what detectron2 offers for them, and asks of their class, holds here too."""
    network = by_make_stage(
        ["res2", "linear"], num_classes=3, deform_on_per_stage=[True] + [False] * 3
    )
    assert isinstance(network, resnet.ResNet)
    assert all(isinstance(block, resnet.BottleneckBlock) for block in network.res2)
    assert network.output_shape() == {"res2": ShapeSpec(256, stride=4), "linear": ShapeSpec(3)}


def test_shortcuts_come_after_what_they_shorten():
    """The order in which gradients of a shared input are summed hangs on it."""
    block = BottleneckBlock(4, 8, bottleneck_channels=2)
    called = []
    for name, part in block.named_children():
        part.register_forward_hook(lambda *_, name=name: called.append(name))
    block(torch.randn(1, 4, 5, 5))
    assert called == ["conv1", "conv2", "conv3", "shortcut"]


def test_an_option_that_does_not_exist_is_a_type_error():
    with pytest.raises(TypeError, match="res4_dilation"):
        make_stage(res4_dilation=2)

"""ConvNeXt and FocalNet by the public detrex's names and arguments."""

from __future__ import annotations

import itertools
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import upstream_backbones
from reference_recipe import fill_with_recipe
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from detrex.checkpoint import load_weights
from detrex.modeling.backbone import ConvNeXt, FocalNet, TimmBackbone
from detrex.modeling.backbone.stages import StageBackbone

CONVNEXT = {"in_chans": 3, "drop_path_rate": 0.0, "layer_scale_init_value": 1.0}
LRF_FOCAL = {"drop_path_rate": 0.1, "focal_levels": [3] * 4, "use_conv_embed": False}
LARGE_FOCAL = {
    "embed_dim": 192,
    "depths": [2, 2, 18, 2],
    "use_conv_embed": True,
    "use_postln": True,
    "use_postln_in_modulation": False,
    "use_layerscale": True,
    "normalize_modulator": False,
}

PUBLISHED: dict[str, dict[str, Any]] = {
    "dino_convnext_tiny_384": {**CONVNEXT, "depths": [3, 3, 9, 3], "dims": [96, 192, 384, 768]},
    "dino_convnext_small_384": {**CONVNEXT, "depths": [3, 3, 27, 3], "dims": [96, 192, 384, 768]},
    "dino_convnext_base_384": {**CONVNEXT, "depths": [3, 3, 27, 3], "dims": [128, 256, 512, 1024]},
    "dino_convnext_large_384": {**CONVNEXT, "depths": [3, 3, 27, 3], "dims": [192, 384, 768, 1536]},
    "dino_focal_tiny_lrf_fl3": {**LRF_FOCAL, "embed_dim": 96, "depths": [2, 2, 6, 2]},
    "dino_focal_small_lrf_fl3": {**LRF_FOCAL, "embed_dim": 96, "depths": [2, 2, 18, 2]},
    "dino_focal_base_lrf_fl3": {**LRF_FOCAL, "embed_dim": 128, "depths": [2, 2, 18, 2]},
    "dino_focal_large_lrf_384_fl3": {
        **LARGE_FOCAL,
        "focal_levels": [3] * 4,
        "focal_windows": [5] * 4,
    },
    "dino_focal_large_lrf_384_fl4": {**LARGE_FOCAL, "focal_levels": [4] * 4},
    "dino_focal_large_lrf_384_fl4_5scale": {**LARGE_FOCAL, "focal_levels": [4] * 4},
}
"""The arguments of upstream's configs by the detectors that were measured."""

SMALL_CONVNEXT = partial(ConvNeXt, depths=(1, 1, 2, 1), dims=(8, 16, 24, 32))
SMALL_FOCALNET = partial(FocalNet, embed_dim=8, depths=(1, 1, 2, 1), drop_path_rate=0.0)
SMALL = {
    "convnext": SMALL_CONVNEXT,
    "focalnet_conv_postln": partial(
        SMALL_FOCALNET, use_conv_embed=True, use_postln=True, use_layerscale=True
    ),
    "focalnet_plain": partial(SMALL_FOCALNET, out_indices=(1, 2, 3)),
}
KINDS = pytest.mark.parametrize("network", [SMALL_CONVNEXT, SMALL_FOCALNET])


class WithoutInitialization(TorchFunctionMode):
    """Leaves random numbers out; tensors without storage have no use for them, yet take long."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if getattr(func, "__name__", "") in {"uniform_", "normal_", "erfinv_", "clamp_"}:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


def images(sides: tuple[int, int] = (64, 96)) -> Tensor:
    return torch.randn(2, 3, *sides, generator=torch.Generator().manual_seed(0))


def trained(net: nn.Module) -> set[str]:
    return {name for name, parameter in net.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize("detector", PUBLISHED)
def test_parameters_have_the_published_names_and_shapes(detector):
    network = ConvNeXt if "convnext" in detector else FocalNet
    levels = (0, 1, 2, 3) if "5scale" in detector else (1, 2, 3)
    with WithoutInitialization(), torch.device("meta"):
        net = network(**PUBLISHED[detector], out_indices=levels)
    found = {f"backbone.{key}": list(value.shape) for key, value in net.state_dict().items()}
    assert found == upstream_backbones.names_and_shapes(detector)["parameters"]
    assert {f"backbone.{key}" for key in trained(net)} == found.keys()


@pytest.mark.parametrize("name", SMALL)
def test_outputs(name):
    """Whole outputs, in float64, for an image whose sides no stride divides."""
    net = SMALL[name]()
    shapes = {key: list(value.shape) for key, value in net.state_dict().items()}
    assert shapes == upstream_backbones.names_and_shapes(name)["parameters"]
    fill_with_recipe(net)
    image = np.random.RandomState(18).standard_normal((1, 3, 70, 90)).astype(np.float32)
    with torch.no_grad():
        features = net.double().eval()(torch.from_numpy(image).double())
    expected = upstream_backbones.small(name)
    assert list(features) == list(expected)
    for level, y in features.items():
        torch.testing.assert_close(y, expected[level].double(), rtol=1e-5, atol=2e-5)


def test_the_same_weights_give_the_same_in_timms_network():
    ours = SMALL_CONVNEXT(out_indices=(1, 3), layer_scale_init_value=1.0)
    timms = TimmBackbone(
        "convnext_tiny",
        depths=(1, 1, 2, 1),
        dims=(8, 16, 24, 32),
        out_indices=(1, 3),
        level_norm=True,
    )
    report = load_weights(nn.ModuleDict({"backbone": timms}), ours.state_dict())
    assert report.missing == report.unexpected == []
    assert timms.output_shape() == ours.output_shape()
    assert timms.size_divisibility == ours.size_divisibility == 32
    expected = timms.eval()(images())
    for name, y in ours.eval()(images()).items():
        torch.testing.assert_close(y, expected[name], rtol=1e-4, atol=1e-5)


@KINDS
@pytest.mark.parametrize("indices", [(0, 1, 2, 3), (1, 2), (2, 0)])
def test_contract(network, indices, check_contract):
    """With fewer levels than stages, too, no trainable parameter is left without a gradient."""
    net = network(out_indices=indices)
    check_contract(net)
    assert list(net.output_shape()) == [f"p{index}" for index in sorted(indices)]
    assert net.pixel_mean == (123.675, 116.28, 103.53)


STEMS = {SMALL_CONVNEXT: ["downsample_layers.0."], SMALL_FOCALNET: ["patch_embed.", "pos_drop."]}
FIRST_STAGES = {
    SMALL_CONVNEXT: (["stages.0."], ["stages.1.", "downsample_layers.1."]),
    SMALL_FOCALNET: (["layers.0."], ["layers.1."]),
}


@KINDS
@pytest.mark.parametrize("frozen_stages", [-1, 0, 1, 2, 3])
def test_frozen_stages(network, frozen_stages):
    net = network(frozen_stages=frozen_stages, drop_path_rate=0.5).train()
    stages = FIRST_STAGES[network][: max(frozen_stages - 1, 0)]
    parts = [] if frozen_stages < 0 else [*STEMS[network], *itertools.chain(*stages)]
    prefixes = tuple(parts) or ("nothing",)
    frozen = {name for name, _ in net.named_parameters()} - trained(net)
    assert frozen == {n for n, _ in net.named_parameters() if n.startswith(prefixes)}
    for name, module in net.named_modules():
        assert module.training != f"{name}.".startswith(prefixes), name


def test_dropped_paths_leave_the_map_as_it_is():
    torch.manual_seed(0)
    blocks = [b for stage in SMALL_CONVNEXT(drop_path_rate=0.4).stages for b in stage]
    assert [b.drop_path.drop_prob for b in blocks] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    block = SMALL_CONVNEXT(drop_path_rate=0.5, layer_scale_init_value=1.0).stages[3][0].train()
    x = torch.randn(64, 32, 4, 4)
    same = (block(x) == x).flatten(1).all(1)
    assert 16 < same.sum() < 48


def test_checkpointing_changes_nothing_but_memory():
    torch.manual_seed(0)
    plain = SMALL_FOCALNET().train()
    checkpointed = SMALL_FOCALNET(use_checkpoint=True).train()
    checkpointed.load_state_dict(plain.state_dict())
    x = images()
    for net in (plain, checkpointed):
        sum(y.square().sum() for y in net(x).values()).backward()
    for (name, a), b in zip(plain.named_parameters(), checkpointed.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, msg=name)
    kept: list[list[int]] = []
    for net in (plain, checkpointed):
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, sizes=sizes: sizes.append(t.numel()) or t, lambda t: t
        ):
            net(x)
        kept.append(sizes)
    assert sum(kept[1]) < sum(kept[0]) / 2


def test_norms_of_focalnet():
    net = SMALL_FOCALNET(
        norm_layer=partial(nn.LayerNorm, eps=1e-3), patch_norm=False, use_postln_in_modulation=True
    )
    norms = [m for m in net.modules() if isinstance(m, nn.LayerNorm)]
    assert {norm.eps for norm in norms} == {1e-3}
    assert not any(name.startswith("patch_embed.norm") for name in net.state_dict())
    assert net.layers[0].blocks[0].modulation.ln.weight.shape == (8,)
    assert net(images())["p3"].shape == (2, 64, 2, 3)
    with pytest.raises(ValueError, match="norm_layer of a FocalNet"):
        SMALL_FOCALNET(norm_layer=nn.BatchNorm2d)


@KINDS
def test_stages_that_do_not_exist(network):
    for wrong in ((4,), (-1,), ()):
        with pytest.raises(ValueError, match="out_indices names stages from 0 to 3"):
            network(out_indices=wrong)
    with pytest.raises(ValueError, match="frozen_stages is -1 to 5, not 6"):
        network(frozen_stages=6)
    with pytest.raises(ValueError, match="takes images"):
        network()(torch.zeros(3, 64, 64))


@KINDS
def test_a_file_of_the_network_alone_fills_a_detector(network):
    """Its authors' files have no norms of levels, but a classifier and the norm before it."""
    authors, net = network(), network()
    state = {k: v + 1 for k, v in authors.state_dict().items() if not k.startswith("norm")}
    classifier = {"head.weight": torch.zeros(1000, 32)}
    model = nn.ModuleDict({"backbone": net})
    report = load_weights(model, {**state, **classifier})
    assert report.unexpected == []
    report.check("file")  # that norms of levels are missing is no fault
    for name, value in state.items():
        torch.testing.assert_close(net.state_dict()[name], value, rtol=0, atol=0)


def test_it_is_a_backbone_that_can_be_subclassed():
    class Scaled(SMALL_CONVNEXT.func):
        def forward_features(self, x: Tensor) -> dict[str, Tensor]:
            return {name: 2 * y for name, y in super().forward_features(x).items()}

    torch.manual_seed(0)
    plain = SMALL_CONVNEXT()
    scaled = Scaled(**SMALL_CONVNEXT.keywords)
    scaled.load_state_dict(plain.state_dict())
    assert isinstance(plain, StageBackbone)
    for name, y in plain(images()).items():
        torch.testing.assert_close(scaled(images())[name], 2 * y)

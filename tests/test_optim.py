"""Factors on learning rates: by name, by layer, and in the groups of an optimizer."""

from __future__ import annotations

import pytest
import timm
import torch
from detectron2.config import LazyConfig, instantiate
from torch import nn

from detrex.config import get_config
from detrex.modeling.backbone import TimmBackbone
from detrex.optim import RateFactors

STRIDES = (8, 16, 32)


def detector(model_name: str, **arguments) -> nn.Module:
    """Names and shapes of a detector's parameters."""
    model = nn.Module()
    with torch.device("meta"):
        model.backbone = TimmBackbone(model_name, out_strides=STRIDES, **arguments)
        model.neck = nn.Linear(1, 1)
    return model


@pytest.fixture(scope="module")
def vit() -> nn.Module:
    return detector("vit_tiny_patch16_224")


def by_name(model: nn.Module, *args, **kwargs) -> dict[str, float]:
    factors = RateFactors(model, *args, **kwargs)
    return {name: factors(name) for name, _ in model.named_parameters()}


def test_names_alone_tell_what_is_pretrained():
    factors = RateFactors(backbone=0.25)
    assert factors("backbone.res2.0.conv1.weight") == 0.25
    assert factors("module.backbone.res2.0.conv1.weight") == 0.25
    for name in ("backbone.pyramid.levels.p3.0.weight", "backbone.norms.p1.weight", "neck.weight"):
        assert factors(name) == 1.0


def test_parts_have_factors_of_their_own():
    factors = RateFactors(parts={"sampling_offsets": 0.1, "reference_points": 0.2})
    assert factors("transformer.encoder.layers.0.attentions.0.sampling_offsets.weight") == 0.1
    assert factors("transformer.reference_points.bias") == 0.2
    assert factors("transformer.level_embeds") == 1.0


def test_layers_of_a_plain_transformer_decay_by_themselves(vit):
    factors = by_name(vit)
    inside = "backbone.timm_model.model"
    # 12 blocks: the rate of ViT-B, once for the last block, 13 times for what is before the first.
    for name, power in {
        f"{inside}.pos_embed": 13,
        f"{inside}.patch_embed.proj.weight": 13,
        f"{inside}.blocks.0.attn.qkv.weight": 12,
        f"{inside}.blocks.11.mlp.fc2.bias": 1,
        "backbone.pyramid.norm.weight": 0,
        "neck.weight": 0,
    }.items():
        assert factors[name] == pytest.approx(0.7**power), name


@pytest.mark.parametrize(("depth", "decay"), [(4, 0.7), (12, 0.7), (24, 0.8), (40, 0.9)])
def test_the_published_decay_of_each_depth(depth, decay):
    model = detector("vit_tiny_patch16_224", depth=depth, embed_dim=24)
    assert RateFactors(model).layer_decay == decay


@pytest.mark.parametrize(
    "name", ["swin_tiny_patch4_window7_224", "convnext_atto", "tf_efficientnet_lite0"]
)
def test_other_networks_have_one_factor(name):
    factors = by_name(detector(name, level_norm=True))
    pretrained = {value for key, value in factors.items() if ".timm_model." in key}
    added = {value for key, value in factors.items() if ".norms." in key}
    assert (pretrained, added, factors["neck.weight"]) == ({0.1}, {1.0}, 1.0)


def test_decay_can_be_switched_off(vit):
    factors = by_name(vit, layer_decay=None)
    assert {v for k, v in factors.items() if ".timm_model." in k} == {0.1}


@pytest.mark.parametrize(
    "name",
    ["swin_tiny_patch4_window7_224", "convnext_atto", "tf_efficientnet_lite0", "focalnet_tiny_srf"],
)
def test_layers_are_those_that_timm_groups(name):
    """timm knows for each of its networks which parameters belong to one layer."""
    model = detector(name)
    factors = {
        key.removeprefix("backbone.timm_model."): value
        for key, value in by_name(model, layer_decay=0.5).items()
        if ".timm_model." in key
    }
    with torch.device("meta"):
        network = timm.create_model(name, num_classes=0)
    groups = timm.models.group_parameters(network, network.group_matcher())
    rates = []
    for names in groups.values():
        # a network that returns features has its containers' children one level higher
        ours = [factors.get(n, factors.get(n.replace(".", "_", 1))) for n in names]
        rates.append({rate for rate in ours if rate is not None})
    assert max(len(rate) for rate in rates) == 1
    assert len(set().union(*rates)) == len([rate for rate in rates if rate])


def test_a_decay_without_layers_to_apply_it_to():
    model = nn.Module()
    model.backbone = nn.Linear(1, 1)
    with pytest.raises(ValueError, match=r"layer_decay=0\.8 needs the layers of the backbone"):
        RateFactors(model, layer_decay=0.8)
    with pytest.raises(ValueError, match="needs the layers"):
        RateFactors(None, layer_decay=0.8)
    with pytest.raises(ValueError, match="a number, None or \"auto\", not 'automatic'"):
        RateFactors(model, layer_decay="automatic")


def test_groups_of_the_optimizer_follow_the_model(vit):
    optimizer = get_config("common/detr_adamw.py").optimizer
    optimizer.params.model = vit
    optimizer.lr = 2e-4
    groups = instantiate(optimizer).param_groups
    settings = {id(p): (g["lr"], g["weight_decay"]) for g in groups for p in g["params"]}
    names = dict(vit.named_parameters())
    network = "backbone.timm_model.model"
    for name, power, decay in (
        ("neck.weight", 0, 1e-4),
        (f"{network}.blocks.11.attn.qkv.weight", 1, 1e-4),
        (f"{network}.blocks.11.norm1.weight", 1, 0.0),
        (f"{network}.pos_embed", 13, 0.0),
        (f"{network}.cls_token", 13, 0.0),
    ):
        assert settings[id(names[name])] == pytest.approx((2e-4 * 0.7**power, decay)), name


def test_the_config_can_be_written_and_read(tmp_path):
    LazyConfig.save(get_config("common/detr_adamw.py"), str(tmp_path / "optimizer.yaml"))
    again = LazyConfig.load(str(tmp_path / "optimizer.yaml"))
    assert instantiate(again.optimizer.params.lr_factor_func)("backbone.res2.0.weight") == 0.1

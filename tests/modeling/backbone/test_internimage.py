"""InternImage against the reference, its parameters' names, and each of its options."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reference_recipe import fill_with_recipe
from timm.layers import DropPath
from torch import Tensor, nn
from torch.testing import assert_close

from detrex.layers.dcn_v3 import DCNv3
from detrex.modeling.backbone import InternImage
from detrex.modeling.backbone.internimage import InternImageBlock, InternImageLayer

FOLDER = Path(__file__).parents[2] / "reference" / "backbones"
KEYS = json.loads(gzip.decompress((FOLDER / "internimage_keys.json.gz").read_bytes()))

COMMON = {"core_op": "DCNv3", "mlp_ratio": 4.0, "norm_layer": "LN", "layer_scale": 1.0,
          "with_cp": False, "out_indices": [1, 2, 3]}  # fmt: skip
PUBLISHED = {
    "tiny": {"channels": 64, "depths": [4, 4, 18, 4], "groups": [4, 8, 16, 32],
             "drop_path_rate": 0.1, "offset_scale": 1.0, "post_norm": False},
    "small": {"channels": 80, "depths": [4, 4, 21, 4], "groups": [5, 10, 20, 40],
              "drop_path_rate": 0.1, "offset_scale": 1.0, "post_norm": True},
    "base": {"channels": 112, "depths": [4, 4, 21, 4], "groups": [7, 14, 28, 56],
             "drop_path_rate": 0.1, "offset_scale": 1.0, "post_norm": True},
    "large": {"channels": 160, "depths": [5, 5, 22, 5], "groups": [10, 20, 40, 80],
              "drop_path_rate": 0.0, "offset_scale": 2.0, "post_norm": True},
}  # fmt: skip
"""Arguments of the public detrex's configs."""


def small(**options: Any) -> InternImage:
    """Of groups of eight channels."""
    defaults = {"channels": 16, "depths": (1, 1, 2, 1), "groups": (2, 4, 8, 16)}
    network = InternImage(**{**defaults, **options})
    fill_with_recipe(network)
    return network


def image(*shape: int) -> Tensor:
    return torch.from_numpy(np.random.RandomState(18).standard_normal(shape)).float()


@pytest.mark.parametrize("core_op", ["DCNv3", "DCNv3_pytorch"])
def test_reference(core_op):
    network = small(core_op=core_op, layer_scale=1.0, post_norm=True)
    assert sorted(network.state_dict()) == KEYS["of internimage.npz"]
    with torch.no_grad():
        maps = network.double().eval()(image(1, 3, 70, 90).double())
    with np.load(FOLDER / "internimage.npz") as expected:
        assert list(maps) == sorted(expected) == ["p0", "p1", "p2", "p3"]
        for name, y in maps.items():
            assert_close(y.float(), torch.from_numpy(expected[name]), rtol=1e-5, atol=3e-5)


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_of_the_published_networks(name):
    with torch.device("meta"):
        network = InternImage(**COMMON, **PUBLISHED[name])
    found = [(key, list(p.shape)) for key, p in network.named_parameters()]
    assert found == list(KEYS[name].items())
    assert not list(network.buffers())


def test_options_of_the_huge_network_add_these_parameters():
    plain = small(center_feature_scale=True)
    huge = small(
        center_feature_scale=True,
        res_post_norm=True,
        level2_post_norm=True,
        level2_post_norm_block_ids=[1],
        dw_kernel_size=5,
    )
    assert huge.levels[0].blocks[0].dcn.dw_conv[0].weight.shape == (16, 1, 5, 5)
    parts = {
        key.split(".", 4)[-1] if "blocks" in key else key
        for key in huge.state_dict().keys() - plain.state_dict().keys()
    }
    norms = {f"res_post_norm{i}.0.{kind}" for i in (1, 2) for kind in ("weight", "bias")}
    assert parts == norms | {f"levels.2.post_norms.0.0.{kind}" for kind in ("weight", "bias")}
    assert "level2" not in str(small(level2_post_norm_block_ids=[1]).state_dict().keys())
    assert not hasattr(small(level2_post_norm_block_ids=[1]).levels[2], "post_norms")


X = torch.randn(2, 3, 4, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
MODES = {
    "pre-norm": ({}, lambda m, x, i, f: f(norm(m, f"norm{i}", x))),
    "post-norm": ({"post_norm": True}, lambda m, x, i, f: norm(m, f"norm{i}", f(x))),
    "both norms": (
        {"res_post_norm": True},
        lambda m, x, i, f: norm(m, f"res_post_norm{i}", f(norm(m, f"norm{i}", x))),
    ),
    "post-norm prevails": (
        {"res_post_norm": True, "post_norm": True},
        lambda m, x, i, f: norm(m, f"norm{i}", f(x)),
    ),
}


def norm(module: nn.Module, name: str, x: Tensor) -> Tensor:
    return getattr(module, name)(x)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("layer_scale", [None, 0.5])
def test_order_of_a_layer(mode, layer_scale):
    options, added = MODES[mode]
    layer = InternImageLayer("DCNv3", 16, 2, layer_scale=layer_scale, **options).double()
    expected = X
    gammas = (1.0, 1.0)
    if layer_scale is not None:
        assert layer.gamma1.eq(0.5).all() and layer.gamma2.eq(0.5).all()
        gammas = (0.5, 0.5)
    fill_with_recipe({k: v for k, v in layer.state_dict().items() if "gamma" not in k})
    for i, part, gamma in ((1, layer.dcn, gammas[0]), (2, layer.mlp, gammas[1])):
        expected = expected + gamma * added(layer, expected, i, part)
    assert_close(layer(X), expected)


def test_norms_between_and_behind_layers():
    level = InternImageBlock("DCNv3", 16, 3, 2, post_norm_block_ids=[2, 0]).double()
    fill_with_recipe(level)
    x = level.post_norms[1](level.blocks[0](X))
    x = level.norm(level.post_norms[0](level.blocks[2](level.blocks[1](x))))
    downsampled, found = level(X, return_wo_downsample=True)
    assert_close(found, x)
    assert_close(level(X), downsampled)
    assert downsampled.shape == (2, 2, 2, 32)
    for options, ends in (({}, True), ({"post_norm": True}, False),
                          ({"post_norm": True, "center_feature_scale": True}, True)):  # fmt: skip
        level = InternImageBlock("DCNv3", 16, 1, 2, downsample=False, **options)
        assert ("norm.0.weight" in level.state_dict()) == ends
        assert torch.equal(level(X.float()), level(X.float(), return_wo_downsample=True)[1])


@pytest.mark.parametrize("options", [{}, {"post_norm": True, "norm_layer": "BN"}])
def test_contract(check_contract, options):
    check_contract(small(**options))


@pytest.mark.parametrize("size", [(1, 1), (37, 50), (64, 33)])
def test_any_size(size):
    network = small().eval()
    with torch.no_grad():
        maps = network(image(1, 3, *size))
    for name, shape in network.output_shape().items():
        expected = (1, shape.channels, *(-(-side // shape.stride) for side in size))
        assert maps[name].shape == expected
    assert [s.stride for s in network.output_shape().values()] == [4, 8, 16, 32]
    with pytest.raises(ValueError, match=r"\(B, C, H, W\), not \(3, 8, 8\)"):
        network(torch.zeros(3, 8, 8))


def test_levels_that_are_not_asked_for_are_not_computed():
    whole, part = small().eval(), small(out_indices=(2, 1))
    part.load_state_dict(whole.state_dict())
    with torch.no_grad():
        expected, found = whole(image(1, 3, 40, 50)), part.eval()(image(1, 3, 40, 50))
    assert list(found) == list(part.output_shape()) == ["p1", "p2"]
    assert all(torch.equal(y, expected[name]) for name, y in found.items())
    frozen = {key for key, p in part.named_parameters() if not p.requires_grad}
    assert frozen == {
        key
        for key, _ in part.named_parameters()
        if key.startswith(("levels.3", "levels.2.downsample"))
    }


@pytest.mark.parametrize("norm_layer", ["LN", "BN"])
def test_checkpointing_changes_nothing(norm_layer):
    """Paths that are dropped and running statistics included."""
    results = []
    for with_cp in (False, True):
        network = small(with_cp=with_cp, norm_layer=norm_layer, drop_path_rate=0.5).train()
        held: list[Tensor] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda x, held=held: held.append(x) or x, lambda x: x
        ):
            torch.manual_seed(0)
            maps = network(image(2, 3, 40, 50))
        sum(y.square().mean() for y in maps.values()).backward()
        gradients = {key: p.grad for key, p in network.named_parameters()}
        results.append((maps, gradients, dict(network.named_buffers()), len(held)))
    for expected, found in zip(results[0][:3], results[1][:3], strict=True):
        assert_close(found, expected, rtol=0, atol=0)
    assert results[1][3] < results[0][3] / 2


def rates(network: nn.Module) -> list[float]:
    paths = (m.drop_path for m in network.modules() if isinstance(m, InternImageLayer))
    return [path.drop_prob if isinstance(path, DropPath) else 0.0 for path in paths]


def test_rates_of_dropped_paths():
    assert rates(small(drop_path_rate=0.4)) == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    assert rates(small(drop_path_rate=0.4, drop_path_type="uniform")) == [0.4] * 5
    one = {"depths": (1,), "groups": (2,), "out_indices": (0,)}
    assert rates(small(drop_path_rate=0.4, **one)) == [0.0]
    dropping = small(drop_rate=0.5)
    found = {m.p for m in dropping.modules() if isinstance(m, nn.Dropout)}
    assert found == {0.5} and dropping.pos_drop.p == 0.5


def test_start():
    torch.manual_seed(0)
    network = InternImage(channels=16, depths=(1, 1), groups=(1, 2), out_indices=(0, 1))
    assert network.levels[1].blocks[0].mlp.fc1.weight.std().item() == pytest.approx(0.02, rel=0.05)
    for module in network.modules():
        if isinstance(module, DCNv3):
            assert not any(
                p.any() for p in (*module.offset.parameters(), *module.mask.parameters())
            )
            assert module.input_proj.weight.std() > 0.1  # Xavier-uniform
        elif isinstance(module, nn.LayerNorm):
            assert module.weight.eq(1).all() and not module.bias.any()


def test_what_does_not_fit_is_refused():
    for options, message in {
        ("core_op", "DCNv4"): "no core_op 'DCNv4'; there are DCNv3, DCNv3_pytorch",
        ("groups", (1, 2)): "2 groups for 4 depths",
        ("groups", (3, 6, 12, 24)): "16 are not divisible by group 3",
        ("out_indices", (1, 4)): r"out_indices \[1, 4\] are .* levels 0 to 3",
        ("drop_path_type", "cosine"): "'linear' or 'uniform', not 'cosine'",
    }.items():
        with pytest.raises(ValueError, match=message):
            small(**dict([options]))
    with pytest.raises(ValueError, match="count layers from 0, and there are 2"):
        small(level2_post_norm=True, level2_post_norm_block_ids=[2])
    with pytest.warns(UserWarning, match="no weights by init_cfg"):
        small(init_cfg={"type": "Pretrained", "checkpoint": "x.pth"})

"""ViT and the pyramid on it: names and outputs of the published detectors, and what they offer."""

import gzip
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import reference_models
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import (
    LastLevelMaxPool,
    SimpleFeaturePyramid,
    ViT,
    get_vit_lr_decay_rate,
)
from detectron2.modeling.backbone.vit import ResBottleneckBlock
from detectron2.structures import ImageList
from reference_recipe import fill_with_recipe
from torch import nn
from torch.testing import assert_close
from torchvision.ops import StochasticDepth

REFERENCE = Path(reference_models.__file__).parent / "reference" / "backbones"
KEYS = json.loads(gzip.decompress((REFERENCE / "keys.json.gz").read_bytes()))
BLOCKS = {
    "dino_vitdet_base": {"window_block_indexes": [0, 1, 3, 4, 6, 7, 9, 10]},
    "dino_vitdet_large": {
        "embed_dim": 1024,
        "depth": 24,
        "num_heads": 16,
        "window_block_indexes": [i for i in range(24) if i % 6 != 5],
    },
}


def vitdet(detector):
    net = ViT(
        img_size=1024,
        window_size=14,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        residual_block_indexes=[],
        use_rel_pos=True,
        out_feature="last_feat",
        **BLOCKS[detector],
    )
    pyramid = SimpleFeaturePyramid(
        net=net,
        in_feature="last_feat",
        out_channels=256,
        scale_factors=(2.0, 1.0, 0.5),
        top_block=LastLevelMaxPool(),
        norm="LN",
        square_pad=1024,
    )
    return nn.ModuleDict({"backbone": pyramid}).eval()


def small(**arguments):
    torch.manual_seed(0)
    sizes = {"img_size": 64, "embed_dim": 16, "depth": 3, "num_heads": 2, "window_size": 3}
    blocks = {"window_block_indexes": (0, 1), "use_rel_pos": True, "rel_pos_zero_init": False}
    return ViT(**{**sizes, **blocks, **arguments}).double()


def pyramid(scale_factors=(4.0, 2.0, 1.0, 0.5), **arguments):
    return SimpleFeaturePyramid(small(), "last_feat", 8, scale_factors, **arguments).double()


@pytest.mark.parametrize("detector", BLOCKS)
def test_names_and_shapes(detector):
    with torch.device("meta"):
        model = vitdet(detector)
    parameters = {name: list(p.shape) for name, p in model.named_parameters()}
    assert list(parameters.items()) == list(KEYS[detector]["parameters"].items())  # in order
    assert {name: list(b.shape) for name, b in model.named_buffers()} == KEYS[detector]["buffers"]


def test_outputs_agree_with_the_reference():
    with torch.device("meta"):
        model = vitdet("dino_vitdet_base")
    fill_with_recipe(model.to_empty(device="cpu"))
    batch = torch.stack([entry["image"] for entry in reference_models.batch()])
    mean = torch.tensor([123.675, 116.28, 103.53]).view(3, 1, 1)
    std = torch.tensor([58.395, 57.12, 57.375]).view(3, 1, 1)
    with torch.no_grad():
        features = model["backbone"]((batch - mean) / std)
    with np.load(REFERENCE / "statistics.npz") as expected:
        for name, y in features.items():
            found = torch.cat([torch.stack([y.mean(), y.std()]), y.flatten()[:8]])
            reference = torch.from_numpy(expected[f"dino_vitdet_base.{name}"])
            assert_close(found, reference, rtol=1e-5, atol=2e-5)
    assert list(features) == ["p3", "p4", "p5", "p6"]


def test_attention_by_definition():
    """Logits of each pair of cells, with the tables' rows for their distances."""
    attention = small(img_size=112).blocks[2].attn  # tables for 7 x 7, more than the map needs
    nn.init.normal_(attention.qkv.weight)
    height, width = 7, 4
    x = torch.randn(2, height, width, 16, dtype=torch.float64)
    by_column = nn.functional.interpolate(attention.rel_pos_w.t()[None], 7, mode="linear")[0].t()
    expected = torch.empty(2, 2, height * width, 8, dtype=torch.float64)
    q, k, v = attention.qkv(x).view(2, -1, 3, 2, 8).permute(2, 0, 3, 1, 4)
    for i in range(height * width):
        dy = torch.tensor([i // width - j // width for j in range(height * width)])
        dx = torch.tensor([i % width - j % width for j in range(height * width)])
        relative = attention.rel_pos_h[dy + height - 1] + by_column[dx + width - 1]
        logits = (q[:, :, i, None] * (k / 8**0.5 + relative)).sum(-1)
        expected[:, :, i] = (logits.softmax(-1)[..., None] * v).sum(2)
    expected = attention.proj(expected.transpose(1, 2).reshape(x.shape))
    assert_close(attention(x), expected)


def test_blocks_of_windows_see_no_further():
    model = small(depth=2, use_rel_pos=False).eval()
    x = torch.randn(1, 3, 80, 128, dtype=torch.float64)  # 5 x 8 patches
    changed = x.clone()
    changed[..., :16, :16] += 1
    moved = (model(x)["last_feat"] != model(changed)["last_feat"]).any(1)[0]
    assert moved[:3, :3].all()
    assert not moved[3:].any() and not moved[:, 3:].any()


def test_offers():
    model = small(out_feature="map", patch_size=8)
    assert model.output_shape() == {"map": ShapeSpec(channels=16, stride=8)}
    assert model.size_divisibility == 8
    assert list(model(torch.randn(1, 3, 40, 24, dtype=torch.float64))) == ["map"]
    assert small(use_abs_pos=False).pos_embed is None
    assert small(pretrain_use_cls_token=False).pos_embed.shape == (1, 14 * 14, 16)
    assert small(pretrain_img_size=64).pos_embed.shape == (1, 1 + 4 * 4, 16)
    assert not hasattr(small(use_rel_pos=False).blocks[0].attn, "rel_pos_h")
    assert not small(rel_pos_zero_init=True).blocks[0].attn.rel_pos_h.any()
    assert small(qkv_bias=False).blocks[0].attn.qkv.bias is None
    rates = [m.p for m in small(drop_path_rate=0.4).modules() if isinstance(m, StochasticDepth)]
    assert rates == pytest.approx([0, 0.2, 0.4])


def test_convolutions_behind_blocks_start_as_the_identity():
    plain, convolving = small().eval(), small(residual_block_indexes=(0, 2)).eval()
    report = convolving.load_state_dict(plain.state_dict(), strict=False)
    names = [f"{kind}{i}.weight" for i in (1, 2, 3) for kind in ("conv", "norm")]
    assert {n for n in report.missing_keys if "bias" not in n} == {
        f"blocks.{block}.residual.{name}" for block in (0, 2) for name in names
    }
    x = torch.randn(1, 3, 64, 80, dtype=torch.float64)
    assert_close(convolving(x)["last_feat"], plain(x)["last_feat"])
    block = ResBottleneckBlock(16, 16, 8)
    nn.init.ones_(block.norm3.weight)
    x = torch.randn(1, 16, 5, 6)
    inner = block.norm1(block.conv1(x))
    inner = block.norm2(block.conv2(nn.functional.gelu(inner)))
    inner = block.norm3(block.conv3(nn.functional.gelu(inner)))
    assert_close(block(x), x + inner)


def test_checkpointing_computes_the_same():
    x = torch.randn(2, 3, 64, 80, dtype=torch.float64)
    results = []
    for use_act_checkpoint in (False, True):
        model = small(use_act_checkpoint=use_act_checkpoint, drop_path_rate=0.5)
        torch.manual_seed(1)
        y = model(x)["last_feat"]
        y.square().sum().backward()
        results.append([y, *(p.grad for p in model.parameters())])
    for plain, economical in zip(*results, strict=True):
        assert_close(plain, economical)


def test_export():
    net = small(depth=2, window_block_indexes=(0,)).float()
    model = SimpleFeaturePyramid(net, "last_feat", 8, (1.0,)).eval()
    x = torch.randn(2, 3, 64, 96)
    assert_close(torch.export.export(model, (x,)).module()(x), model(x))


def test_reduced_precision():
    model = pyramid().float().eval()
    x = torch.randn(1, 3, 64, 96)
    exact = model(x)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = model(x)
    half = model.bfloat16()(x.bfloat16())
    for name, y in exact.items():
        assert_close(mixed[name].float(), y, rtol=0.1, atol=0.1)
        assert_close(half[name].float(), y, rtol=0.1, atol=0.1)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"window_block_indexes has the blocks \[3\].* 0 to 2\."):
        small(window_block_indexes=(1, 3))
    with pytest.raises(ValueError, match=r"residual_block_indexes has the blocks \[-1\]"):
        small(residual_block_indexes=(-1,))
    with pytest.raises(ValueError, match="window_size is 0"):
        small(window_size=0)


def test_pyramid_by_hand():
    model = pyramid(top_block=LastLevelMaxPool()).eval()
    assert {name.split(".")[0] for name, _ in model.named_parameters()} == {
        *(f"simfp_{i}" for i in (2, 3, 4, 5)),
        "net",
    }
    x = torch.randn(1, 3, 64, 96, dtype=torch.float64)
    outputs = model(x)
    shapes = [(8, 16, 24), (8, 8, 12), (8, 4, 6), (8, 2, 3), (8, 1, 2)]
    assert [tuple(y.shape[1:]) for y in outputs.values()] == shapes
    assert {n: s.stride for n, s in model.output_shape().items()} == {
        "p2": 4,
        "p3": 8,
        "p4": 16,
        "p5": 32,
        "p6": 64,
    }
    assert_close(outputs["p6"], outputs["p5"][..., ::2, ::2])
    finest, coarsest = model.simfp_2, model.simfp_5
    y = model.net(x)["last_feat"]
    up = finest[3](nn.functional.gelu(finest[1](finest[0](y))))
    assert_close(outputs["p2"], finest[5](finest[4](up)))
    assert_close(outputs["p5"], coarsest[2](coarsest[1](nn.functional.max_pool2d(y, 2))))


def test_top_block_on_a_feature_of_the_backbone():
    top_block = LastLevelMaxPool()
    top_block.in_feature = "last_feat"
    model = pyramid((1.0,), top_block=top_block).eval()
    x = torch.randn(1, 3, 64, 96, dtype=torch.float64)
    assert_close(model(x)["p5"], model.net(x)["last_feat"][..., ::2, ::2])


def test_pyramid_offers():
    model = pyramid(square_pad=128)
    assert model.size_divisibility == 32
    assert model.padding_constraints == {"size_divisibility": 32, "square_size": 128}
    padded = ImageList.from_tensors(
        [torch.zeros(3, 70, 90)], padding_constraints=model.padding_constraints
    )
    assert padded.tensor.shape == (1, 3, 128, 128)
    plain = pyramid((2.0, 1.0), norm="")
    assert {name for name, _ in plain.simfp_4.named_parameters()} == {
        f"{i}.{kind}" for i in (0, 1) for kind in ("weight", "bias")
    }
    with pytest.raises(NotImplementedError, match=r"not 8\.0\."):
        pyramid((8.0, 4.0))
    with pytest.raises(AssertionError, match="log2 contiguous"):
        pyramid((4.0, 1.0))


# What the published configs' function answers; the one with 12 layers is asked about 24 as well.
RATES = {
    (0.9, 40): {
        "backbone.res2.0.conv1.weight": 1.0,
        "transformer.encoder.layers.0.attentions.0.sampling_offsets.weight": 1.0,
        "backbone.net.pos_embed": 0.013302794647291146,
        "backbone.net.patch_embed.proj.weight": 0.013302794647291146,
        "backbone.net.blocks.0.attn.qkv.weight": 0.014780882941434608,
        "backbone.net.blocks.3.attn.rel_pos_h": 0.020275559590445275,
        "backbone.net.blocks.39.norm1.weight": 0.9,
        "backbone.simfp_2.0.weight": 1.0,
    },
    (0.7, 12): {
        "backbone.net.pos_embed": 0.009688901040699992,
        "backbone.net.blocks.5.mlp.fc1.weight": 0.08235429999999996,
        "backbone.net.blocks.11.norm1.weight": 0.7,
        "backbone.net.blocks.23.norm1.weight": 50.57333106630626,
        "neck.blocks.3.conv.weight": 1.0,
        "backbone.net.blocks.11.residual.conv1.weight": 1.0,
    },
}


@pytest.mark.parametrize("arguments", RATES)
def test_learning_rates(arguments):
    rate, layers = arguments
    for name, expected in RATES[arguments].items():
        assert get_vit_lr_decay_rate(name, lr_decay_rate=rate, num_layers=layers) == expected
        assert get_vit_lr_decay_rate(name) == 1.0

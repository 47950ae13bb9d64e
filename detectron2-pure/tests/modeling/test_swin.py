"""Swin transformers: names and outputs of the published detectors, windows by their definition."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import reference_models
import torch
from detectron2.modeling import SwinTransformer
from detectron2.modeling.backbone.swin import SwinTransformer as ByItsPath
from reference_recipe import fill_with_recipe
from torch import nn
from torch.testing import assert_close
from torchvision.ops import StochasticDepth

REFERENCE = Path(reference_models.__file__).parent / "reference" / "backbones"
KEYS = json.loads(gzip.decompress((REFERENCE / "keys.json.gz").read_bytes()))

TINY = {"embed_dim": 96, "depths": [2, 2, 6, 2], "num_heads": [3, 6, 12, 24]}
BASE = {"embed_dim": 128, "depths": [2, 2, 18, 2], "num_heads": [4, 8, 16, 32]}
LARGE = {"embed_dim": 192, "depths": [2, 2, 18, 2], "num_heads": [6, 12, 24, 48]}
DETECTORS = {
    "dab_detr_swin_tiny": TINY | {"out_indices": [3], "drop_path_rate": 0.1},
    "dab_detr_swin_base": BASE | {"out_indices": [3], "drop_path_rate": 0.4},
    "dino_swin_tiny_224": TINY | {"out_indices": [1, 2, 3], "drop_path_rate": 0.1},
    "dino_swin_small_224": TINY | {"depths": [2, 2, 18, 2], "out_indices": [1, 2, 3]},
    "dino_swin_base_384": BASE | {"out_indices": [1, 2, 3], "window_size": 12},
    "dino_swin_large_224": LARGE | {"out_indices": [1, 2, 3]},
    "dino_swin_large_384_5scale": LARGE | {"out_indices": [0, 1, 2, 3], "window_size": 12},
    "h_deformable_detr_swin_tiny_two_stage": TINY | {"out_indices": [1, 2, 3]},
    "deta_swin_large": LARGE | {"out_indices": [1, 2, 3], "window_size": 12},
}


def images():
    """The reference's batch (2, 3, 192, 256) as its models normalize it."""
    batch = torch.stack([entry["image"] for entry in reference_models.batch()])
    mean = torch.tensor([123.675, 116.28, 103.53]).view(3, 1, 1)
    std = torch.tensor([58.395, 57.12, 57.375]).view(3, 1, 1)
    return (batch - mean) / std


def small(**arguments):
    torch.manual_seed(0)
    sizes = {"embed_dim": 8, "depths": (2, 2, 2), "num_heads": (1, 2, 4), "window_size": 4}
    return SwinTransformer(**{**sizes, "out_indices": (0, 1, 2), **arguments}).double()


@pytest.mark.parametrize("detector", DETECTORS)
def test_names_and_shapes(detector):
    with torch.device("meta"):
        model = nn.ModuleDict({"backbone": SwinTransformer(**DETECTORS[detector])})
    parameters = {name: list(p.shape) for name, p in model.named_parameters()}
    assert list(parameters.items()) == list(KEYS[detector]["parameters"].items())  # in order
    assert {name: list(b.shape) for name, b in model.named_buffers()} == KEYS[detector]["buffers"]


def test_outputs_agree_with_the_reference():
    model = nn.ModuleDict({"backbone": ByItsPath(**DETECTORS["dino_swin_tiny_224"])}).eval()
    fill_with_recipe(model)
    with torch.no_grad():
        features = model["backbone"](images())
    with np.load(REFERENCE / "statistics.npz") as expected:
        for name, y in features.items():
            found = torch.cat([torch.stack([y.mean(), y.std()]), y.flatten()[:8]])
            reference = torch.from_numpy(expected[f"dino_swin_tiny_224.{name}"])
            assert_close(found, reference, rtol=1e-5, atol=1e-5)
    assert list(features) == ["p1", "p2", "p3"]


@pytest.mark.parametrize("block", [0, 1])
@pytest.mark.parametrize("size", [(4, 8), (6, 9), (3, 2)])
def test_attention_by_definition(block, size):
    """Cells attend to those of their window, which shifted windows don't continue over an edge."""
    side, heads = 4, 2
    stage = small(num_heads=(heads, 2, 4), qk_scale=0.7).eval().layers[0]
    layer = stage.blocks[block]
    stage.blocks = nn.ModuleList([layer])
    nn.init.normal_(layer.attn.relative_position_bias_table)
    nn.init.normal_(layer.attn.qkv.weight)
    nn.init.normal_(layer.attn.qkv.bias)
    padded = tuple(-(-s // side) * side for s in size)
    x = torch.randn(2, *size, 8, dtype=torch.float64)

    canvas = torch.zeros(2, *padded, 8, dtype=torch.float64)
    canvas[:, : size[0], : size[1]] = layer.norm1(x)
    cells = torch.cartesian_prod(torch.arange(padded[0]), torch.arange(padded[1]))
    window = (cells - side // 2 * block).div(side, rounding_mode="floor")
    together = (window[:, None] == window).all(-1)
    step = (cells[:, None] - cells).clamp(-side + 1, side - 1) + side - 1
    bias = layer.attn.relative_position_bias_table[step[..., 0] * (2 * side - 1) + step[..., 1]]
    qkv = layer.attn.qkv(canvas.flatten(1, 2)).view(2, len(cells), 3, heads, 4)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    logits = q @ k.mT * 0.7 + bias.permute(2, 0, 1)
    weights = logits.masked_fill(~together, -torch.inf).softmax(-1)
    attended = layer.attn.proj((weights @ v).transpose(1, 2).flatten(2)).view(2, *padded, 8)
    between = x + attended[:, : size[0], : size[1]]
    expected = between + layer.mlp(layer.norm2(between))
    assert_close(stage(x, use_checkpoint=False)[0], expected, rtol=1e-9, atol=1e-9)


def test_any_size():
    model = small(patch_norm=False).eval()
    outputs = model(torch.randn(1, 3, 70, 90, dtype=torch.float64))
    assert [tuple(y.shape) for y in outputs.values()] == [
        (1, 8, 18, 23),
        (1, 16, 9, 12),
        (1, 32, 5, 6),
    ]
    assert {n: (s.channels, s.stride) for n, s in model.output_shape().items()} == {
        "p0": (8, 4),
        "p1": (16, 8),
        "p2": (32, 16),
    }


def test_images_of_a_batch_are_apart():
    model = small().eval()
    x = torch.randn(3, 3, 40, 72, dtype=torch.float64)
    together = model(x)
    for i in range(3):
        for name, y in model(x[i : i + 1]).items():
            assert_close(y[0], together[name][i])


def test_checkpointing_computes_the_same():
    x = torch.randn(2, 3, 40, 72, dtype=torch.float64)
    results = []
    for use_checkpoint in (False, True):
        model = small(use_checkpoint=use_checkpoint, drop_path_rate=0.5, attn_drop_rate=0.1)
        torch.manual_seed(1)
        outputs = model(x)
        sum(y.square().sum() for y in outputs.values()).backward()
        results.append([*outputs.values(), *(p.grad for p in model.parameters())])
    for plain, economical in zip(*results, strict=True):
        assert_close(plain, economical)


def test_drop_path_rises_to_the_last_block():
    rates = [m.p for m in small(drop_path_rate=0.5).modules() if isinstance(m, StochasticDepth)]
    assert rates == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5])
    dropped = small(drop_path_rate=0.5).train().layers[2].blocks[1].drop_path
    rows = dropped(torch.ones(64, 2, 3, 4))
    assert {float(row.unique()) for row in rows} == {0.0, 2.0}  # whole images, scaled up


FROZEN = {
    -1: (),
    0: ("patch_embed",),
    1: ("patch_embed", "absolute_pos_embed"),
    2: ("patch_embed", "absolute_pos_embed", "layers.0"),
    3: ("patch_embed", "absolute_pos_embed", "layers.0", "layers.1"),
}


@pytest.mark.parametrize("stages", FROZEN)
def test_frozen_stages(stages):
    model = small(frozen_stages=stages, ape=True, drop_rate=0.5).train()
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {n for n, _ in model.named_parameters() if n.startswith(FROZEN[stages] or "-")}
    assert model.training
    assert model.patch_embed.training == (stages < 0)
    assert model.pos_drop.training == (stages < 2)
    assert [layer.training for layer in model.layers] == [stages < 2, stages < 3, True]


def test_absolute_positions_follow_the_size_of_the_map():
    model = small(ape=True, pretrain_img_size=16).eval()
    assert model.absolute_pos_embed.shape == (1, 8, 4, 4)
    seen = []
    model.pos_drop.register_forward_hook(lambda module, args, out: seen.append(args[0]))
    x = torch.randn(1, 3, 32, 16, dtype=torch.float64)
    with torch.no_grad():
        model(x)
        model.absolute_pos_embed.zero_()
        model.absolute_pos_embed[:, :, :, 1] = torch.arange(4.0)[None, None]
        model(x)
        model.absolute_pos_embed.zero_()
        model(x)
    added = (seen[1] - seen[2])[0, ..., 0]
    assert_close(added[:, [0, 2, 3]], torch.zeros(8, 3, dtype=torch.float64))
    assert (added[:, 1].diff() > 0).all()  # twice the rows, from the first to the last
    assert_close(added[:, 1] + added[:, 1].flip(0), torch.full((8,), 3.0, dtype=torch.float64))


def test_export():
    sizes = {"depths": (2,), "num_heads": (1,), "out_indices": (0,)}
    model = small(**sizes).float().eval()
    dims = ({0: torch.export.Dim("batch", min=1)},)
    program = torch.export.export(model, (torch.randn(2, 3, 40, 72),), dynamic_shapes=dims)
    x = torch.randn(3, 3, 40, 72)
    assert_close(program.module()(x), model(x))


def test_reduced_precision():
    model = small().float().eval()
    x = torch.randn(1, 3, 40, 72)
    exact = model(x)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = model(x)
    half = model.bfloat16()(x.bfloat16())
    for name, y in exact.items():
        assert_close(mixed[name].float(), y, rtol=0.1, atol=0.1)
        assert_close(half[name].float(), y, rtol=0.1, atol=0.1)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"out_indices has the stages \[3\]; .* 0 to 2\."):
        small(out_indices=(2, 3))
    with pytest.raises(ValueError, match="one number for each stage"):
        small(num_heads=(1, 2))

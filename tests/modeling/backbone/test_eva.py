"""EVA and EVA-02: the public detrex's names and numbers, timm's blocks, plain definitions."""

from __future__ import annotations

import gzip
import json
from functools import partial
from pathlib import Path

import pytest
import reference_models
import torch
import upstream_backbones
from detectron2.modeling.backbone import LastLevelMaxPool
from timm.layers import build_rotary_pos_embed
from timm.models.eva import EvaBlock
from torch import nn
from torch.nn import functional as F

from detrex.checkpoint import load_weights
from detrex.modeling import backbone as backbones
from detrex.modeling.backbone import EVA02_ViT, EVAViT, eva, eva_02
from detrex.modeling.backbone.plain_vit import ResBottleneckBlock, WindowBlock
from detrex.modeling.backbone.utils import get_rel_pos
from detrex.optim import RateFactors

FILE = Path(upstream_backbones.__file__).parent / "reference" / "backbones" / "eva.json.gz"
MEASURED = json.loads(gzip.decompress(FILE.read_bytes()))
SMALL = {
    "img_size": 128,
    "embed_dim": 32,
    "depth": 3,
    "num_heads": 4,
    "window_size": 3,
    "window_block_indexes": (0, 1),
}
NETWORKS = {
    "eva": partial(EVAViT, use_rel_pos=True, rel_pos_zero_init=False, **SMALL),
    "eva_beit": partial(
        EVAViT, use_rel_pos=True, interp_type="beit", beit_like_gamma=True, **SMALL
    ),
    "eva_residual": partial(EVAViT, use_abs_pos=False, residual_block_indexes=(1,), **SMALL),
    "eva_02": partial(EVA02_ViT, **SMALL),
    "eva_02_plain": partial(EVA02_ViT, rope=False, qkv_bias=False, intp_freq=False, **SMALL),
}


def shaken(network: nn.Module) -> nn.Module:
    """Every parameter moved, as those that start at zero or one hide mistakes."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return network


def pyramid(net: nn.Module, square_pad: int = 0) -> backbones.SimpleFeaturePyramid:
    return backbones.SimpleFeaturePyramid(
        net=net,
        in_feature="last_feat",
        out_channels=256,
        scale_factors=(2.0, 1.0, 0.5),
        top_block=LastLevelMaxPool(),
        norm="LN",
        square_pad=square_pad,
    )


@pytest.mark.parametrize("name", MEASURED["backbones"])
def test_names_and_shapes_of_the_public_detrex(name):
    measured = MEASURED["backbones"][name]
    with torch.device("meta"):
        network = getattr(backbones, measured["network"])(**measured["arguments"])
        backbone = pyramid(network, measured["square_pad"])
    state = backbone.state_dict(keep_vars=True)
    assert {key: list(value.shape) for key, value in state.items()} == measured["shapes"]
    frozen = [key for key, value in state.items() if not value.requires_grad]
    assert sorted(frozen) == sorted(measured["frozen"] + measured["buffers"])
    for group in measured["shared"]:
        assert len({id(state[key]) for key in group}) == 1
    assert backbone.padding_constraints["square_size"] == measured["square_pad"]
    strides = {level: shape.stride for level, shape in backbone.output_shape().items()}
    assert strides == {"p3": 8, "p4": 16, "p5": 32, "p6": 64}


@pytest.mark.parametrize("measured", MEASURED["rates"], ids=lambda m: str(m["arguments"]))
@pytest.mark.parametrize("module", [eva, eva_02])
def test_learning_rates_of_the_public_detrex(module, measured):
    found = {
        name: module.get_vit_lr_decay_rate(name, **measured["arguments"])
        for name in measured["factors"]
    }
    assert found == pytest.approx(measured["factors"], rel=1e-12)


def test_learning_rates_by_layer():
    """Those of detrex's own factors, which count the blocks themselves."""
    model = nn.ModuleDict({"backbone": pyramid(EVA02_ViT(**SMALL))})
    factors = RateFactors(model, layer_decay=0.7)
    rate = partial(eva_02.get_vit_lr_decay_rate, lr_decay_rate=0.7, num_layers=3)
    for name, _ in model.named_parameters():
        assert factors(name) == pytest.approx(rate(name)), name
    plain = RateFactors(model, layer_decay=None)
    assert plain("backbone.simfp_3.0.weight") == 1.0
    assert plain("backbone.net.blocks.0.norm1.weight") == 0.1


def test_outputs_of_detectron2s_vit():
    """Without what is EVA's own it is ViTDet's network, and so are the measured numbers."""
    measured = MEASURED["backbones"]["dino_eva_01_base"]["arguments"]
    backbone = pyramid(EVAViT(beit_like_qkv_bias=False, **measured))
    weights = upstream_backbones.weights("dino_vitdet_base")
    nn.ModuleDict({"backbone": backbone}).load_state_dict(weights)
    batch = torch.stack([entry["image"] for entry in reference_models.batch()])
    mean = torch.tensor([123.675, 116.28, 103.53]).view(3, 1, 1)
    std = torch.tensor([58.395, 57.12, 57.375]).view(3, 1, 1)
    with torch.no_grad():
        features = backbone.eval()((batch - mean) / std)
    expected = upstream_backbones.statistics("dino_vitdet_base")
    assert list(features) == list(expected)
    for level, y in features.items():
        found = torch.cat([torch.stack([y.mean(), y.std()]), y.flatten()[:8]])
        torch.testing.assert_close(found, expected[level], rtol=1e-5, atol=5e-5)


def test_queries_and_values_alone_have_biases():
    torch.manual_seed(0)
    own = eva.Attention(16, 4, use_rel_pos=True, input_size=(3, 5)).double()
    usual = eva.Attention(16, 4, True, False, use_rel_pos=True, input_size=(3, 5)).double()
    shaken(own)
    state = own.state_dict()
    q, v = state.pop("q_bias"), state.pop("v_bias")
    usual.load_state_dict({**state, "qkv.bias": torch.cat([q, torch.zeros_like(q), v])})
    x = torch.randn(2, 3, 5, 16).double()
    torch.testing.assert_close(own(x), usual(x))
    assert set(dict(eva.Attention(16, 4, qkv_bias=False).named_parameters())) == {
        "qkv.weight",
        "proj.weight",
        "proj.bias",
    }


def test_attention_of_eva_by_its_definition():
    attn = shaken(eva.Attention(8, 2, use_rel_pos=True, input_size=(2, 3))).double()
    x = torch.randn(1, 2, 3, 8).double()
    bias = torch.cat([attn.q_bias, torch.zeros(8), attn.v_bias]).double()
    q, k, v = (x[0] @ attn.qkv.weight.T + bias).chunk(3, -1)
    y = torch.zeros(2, 3, 8).double()
    places = [(i, j) for i in range(2) for j in range(3)]
    for head in (slice(0, 4), slice(4, 8)):
        for i, j in places:
            one = q[i, j, head]
            logits = [
                one @ k[a, b, head] / 2
                + one @ attn.rel_pos_h[i - a + 1]
                + one @ attn.rel_pos_w[j - b + 2]
                for a, b in places
            ]
            weights = torch.stack(logits).softmax(0)
            y[i, j, head] = sum(
                w * v[a, b, head] for w, (a, b) in zip(weights, places, strict=True)
            )
    expected = y @ attn.proj.weight.T + attn.proj.bias
    torch.testing.assert_close(attn(x)[0], expected)


@pytest.mark.parametrize("side, window", [(4, 0), (6, 3)])
def test_blocks_of_eva_02_are_timms(side, window):
    """On a map of another size than in pretraining, and on one window."""
    rope = eva_02.VisionRotaryEmbeddingFast(4, pt_seq_len=16, ft_seq_len=window or side)
    block = eva_02.Block(32, 4, window_size=window, rope=rope)
    shaken(block).double().eval()
    norm = partial(nn.LayerNorm, eps=1e-6)
    theirs = EvaBlock(
        32,
        4,
        qkv_fused=False,
        mlp_ratio=4 * 2 / 3,
        swiglu_mlp=True,
        scale_mlp=True,
        num_prefix_tokens=0,
        norm_layer=norm,
    ).double()
    names = {
        "q_bias": "q_proj.bias",
        "v_bias": "v_proj.bias",
        "w1.": "fc1_g.",
        "w2.": "fc1_x.",
        "w3.": "fc2.",
        "ffn_ln": "norm",
    }
    state = {key: value for key, value in block.state_dict().items() if "rope" not in key}
    for ours, timms in names.items():
        state = {key.replace(ours, timms): value for key, value in state.items()}
    theirs.load_state_dict(state)
    x = torch.randn(2, side, side, 32).double()
    cut = window or side
    tables = build_rotary_pos_embed(
        [cut, cut], dim=8, in_pixels=False, ref_feat_shape=[16, 16], dtype=torch.float64
    )
    windows = F.unfold(x.permute(0, 3, 1, 2), cut, stride=cut)
    windows = windows.unflatten(1, (32, -1)).permute(0, 3, 2, 1)  # (B, windows, places, C)
    y = theirs(windows.flatten(0, 1), rope=torch.cat(tables, -1)).view_as(windows)
    y = F.fold(y.permute(0, 3, 2, 1).flatten(1, 2), (side, side), cut, stride=cut)
    torch.testing.assert_close(block(x), y.permute(0, 2, 3, 1), rtol=1e-5, atol=1e-5)


def test_swiglu_and_scale_by_their_definitions():
    swiglu = shaken(eva_02.SwiGLU(4, 6, 5, norm_layer=nn.LayerNorm, subln=True))
    x = torch.randn(3, 4)
    hidden = F.silu(swiglu.w1(x)) * swiglu.w2(x)
    hidden = (hidden - hidden.mean(-1, keepdim=True)) / hidden.std(-1, False, True)
    hidden = hidden * swiglu.ffn_ln.weight + swiglu.ffn_ln.bias
    torch.testing.assert_close(swiglu(x), swiglu.w3(hidden), rtol=1e-3, atol=1e-3)
    assert isinstance(eva_02.SwiGLU(4).ffn_ln, nn.Identity)

    attn = shaken(eva_02.Attention(8, 2, qk_scale=0.3, attn_head_dim=6))
    x = torch.randn(1, 1, 5, 8)
    q = (x @ attn.q_proj.weight.T + attn.q_bias)[0, 0].view(5, 2, 6)
    k = (x @ attn.k_proj.weight.T)[0, 0].view(5, 2, 6)
    v = (x @ attn.v_proj.weight.T + attn.v_bias)[0, 0].view(5, 2, 6)
    weights = (0.3 * torch.einsum("qhc,khc->hqk", q, k)).softmax(-1)
    expected = attn.proj(torch.einsum("hqk,khc->qhc", weights, v).flatten(1))
    torch.testing.assert_close(attn(x)[0, 0], expected)


def test_single_precision_within_a_norm():
    norm = shaken(eva.LayerNormWithForceFP32(8, eps=1e-6)).half()
    x = (torch.randn(3, 8) * 1e-3).half()
    y = norm(x)
    expected = F.layer_norm(x.float(), (8,), norm.weight.float(), norm.bias.float(), 1e-6)
    assert torch.equal(y, expected.half())
    assert eva.LayerNormWithForceFP32(8, elementwise_affine=False)(x).dtype == torch.float16


@pytest.mark.parametrize("name", NETWORKS)
def test_contract(check_contract, name):
    """Maps of 4 x 8 patches, which neither the windows of 3 nor the tables' side divide."""
    check_contract(NETWORKS[name]())
    with_pyramid = pyramid(NETWORKS[name]())
    assert with_pyramid.size_divisibility == 32
    features = with_pyramid(torch.randn(1, 3, 64, 128))
    assert {k: tuple(v.shape[2:]) for k, v in features.items()} == {
        "p3": (8, 16),
        "p4": (4, 8),
        "p5": (2, 4),
        "p6": (1, 2),
    }


@pytest.mark.parametrize("name", NETWORKS)
def test_checkpointing_computes_the_same(name):
    gradients = []
    for use in (False, True):
        torch.manual_seed(0)
        network = shaken(NETWORKS[name](use_act_checkpoint=use, drop_path_rate=0.5)).train()
        calls = []
        network.blocks[1].register_forward_pre_hook(lambda *_, calls=calls: calls.append(1))
        network(torch.randn(2, 3, 64, 96))["last_feat"].square().sum().backward()
        assert len(calls) == (2 if use else 1)
        gradients.append([parameter.grad for parameter in network.parameters()])
    for first, second in zip(*gradients, strict=True):
        torch.testing.assert_close(first, second)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_parameter_learns(name):
    torch.manual_seed(0)
    network = shaken(NETWORKS[name]())
    network(torch.randn(1, 3, 64, 96))["last_feat"].square().sum().backward()
    assert [k for k, p in network.named_parameters() if not p.grad.abs().max() > 0] == []


def test_what_is_not_frozen_learns():
    network = EVAViT(freeze_patch_embed=True, **SMALL)
    frozen = [name for name, p in network.named_parameters() if not p.requires_grad]
    assert frozen == ["patch_embed.proj.weight", "patch_embed.proj.bias"]


def test_windows_see_no_further_and_padding_is_zeros():
    """A block by its definition: attention in each window of the normalized, padded map."""
    attn = shaken(eva.Attention(8, 2, use_rel_pos=True, input_size=(3, 3)))
    block = eva.Block(8, 2, window_size=3, use_rel_pos=True, beit_like_gamma=True)
    block.attn = attn
    shaken(block).eval()
    x = torch.randn(1, 4, 5, 8)
    padded = F.pad(block.norm1(x), (0, 0, 0, 1, 0, 2))
    y = torch.zeros_like(padded)
    for i in (0, 3):
        for j in (0, 3):
            y[:, i : i + 3, j : j + 3] = attn(padded[:, i : i + 3, j : j + 3])
    expected = x + block.gamma_1 * y[:, :4, :5]
    expected = expected + block.gamma_2 * block.mlp(block.norm2(expected))
    torch.testing.assert_close(block(x), expected)


def test_residual_blocks_start_as_the_identity():
    block = ResBottleneckBlock(8, 8, 4)
    x = torch.randn(1, 8, 5, 6)
    assert torch.equal(block(x), x)
    shaken(block)

    def norm(y, layer):
        y = F.layer_norm(y.movedim(1, -1), y.shape[1:2], layer.weight, layer.bias, 1e-6)
        return y.movedim(-1, 1)

    y = F.gelu(norm(F.conv2d(x, block.conv1.weight), block.norm1))
    y = F.gelu(norm(F.conv2d(y, block.conv2.weight, padding=1), block.norm2))
    y = norm(F.conv2d(y, block.conv3.weight), block.norm3)
    torch.testing.assert_close(block(x), x + y, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="8 channels to an output of 4"):
        ResBottleneckBlock(8, 4, 4)
    with pytest.raises(ValueError, match="needs a norm"):
        ResBottleneckBlock(8, 8, 4, norm="")


def test_positions_are_those_of_the_padded_image():
    """Padding to the square that the tables are for changes no angle, and so no attention."""
    rope = eva_02.VisionRotaryEmbeddingFast(4, pt_seq_len=4, ft_seq_len=8)
    square = rope(torch.ones(64, 8)).view(8, 8, 8)
    part = rope(torch.ones(15, 8), (5, 3)).view(5, 3, 8)
    torch.testing.assert_close(part, square[:5, :3])
    # larger ones are those of a network for their longer side
    larger = eva_02.VisionRotaryEmbeddingFast(4, pt_seq_len=4, ft_seq_len=10)
    torch.testing.assert_close(rope(torch.ones(100, 8), (10, 10)), larger(torch.ones(100, 8)))


def test_pretrained_networks_load_by_their_own_names(tmp_path):
    """Files of the authors have no prefix, and tables for images of another size."""
    donor = shaken(EVA02_ViT(**SMALL))
    path = tmp_path / "eva02.pt"
    torch.save({"model": donor.state_dict()}, path)
    network = EVA02_ViT(**{**SMALL, "img_size": 160})
    tables = network.rope_glb.freqs_cos.clone()
    model = nn.ModuleDict({"backbone": pyramid(network)})
    report = load_weights(model, path)
    report.check(str(path))
    assert all(name.startswith("backbone.simfp_") for name in report.missing)
    assert not report.unexpected and not report.mismatched
    for (name, ours), theirs in zip(network.named_parameters(), donor.parameters(), strict=True):
        assert torch.equal(ours, theirs), name
    assert torch.equal(network.rope_glb.freqs_cos, tables)


def test_blocks_are_open_to_other_attention():
    block = WindowBlock(8, nn.Identity(), nn.Identity(), 0.0, nn.LayerNorm, 3, False)
    x = torch.randn(2, 4, 5, 8)
    y = x + F.layer_norm(x, (8,))
    torch.testing.assert_close(block(x), y + F.layer_norm(y, (8,)))


def test_parts_are_skipped_more_often_the_later_they_come():
    block = WindowBlock(8, nn.Identity(), nn.Identity(), 1.0, nn.LayerNorm, 0, False)
    x = torch.randn(2, 4, 5, 8)
    assert torch.equal(block(x), x)
    assert not torch.equal(block.eval()(x), x)
    for name in ("eva", "eva_02"):
        blocks = NETWORKS[name](drop_path_rate=0.5).blocks
        assert [getattr(block.drop_path, "drop_prob", 0) for block in blocks] == [0, 0.25, 0.5]


@pytest.mark.parametrize("interp_type", ["vitdet", "beit"])
def test_tables_of_relative_positions_are_resized_as_asked(interp_type):
    network = EVAViT(use_rel_pos=True, interp_type=interp_type, **SMALL)
    table = shaken(network).blocks[2].attn.rel_pos_h
    assert network.blocks[2].attn.interp_type == interp_type
    attn = network.blocks[2].attn
    x = torch.randn(1, 3, 12, 32)
    resized = eva.Attention(32, 4, use_rel_pos=True, input_size=(3, 12))
    state = attn.state_dict()
    for axis, size in (("rel_pos_h", 3), ("rel_pos_w", 12)):
        rows = get_rel_pos(size, size, state[axis], interp_type)
        state[axis] = torch.cat([rows[0].flip(0), rows[1:, 0]])
    resized.load_state_dict(state)
    torch.testing.assert_close(attn(x), resized(x))
    attn(x).sum().backward()
    assert table.grad.abs().max() > 0

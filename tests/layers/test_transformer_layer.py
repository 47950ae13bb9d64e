"""Layers as lists of operations."""

from __future__ import annotations

import pytest
import reference_ops
import torch
from reference_recipe import fill_with_recipe
from torch import nn
from torch.testing import assert_close

from detrex.layers import FFN, BaseTransformerLayer, MultiheadAttention, TransformerLayerSequence

REFERENCE = reference_ops.load("layers")
QUERY, KEY = REFERENCE["query"], REFERENCE["key"]
POSITIONS = {"query_pos": REFERENCE["query_pos"], "key_pos": REFERENCE["key_pos"]}
PADDING = REFERENCE["key_padding_mask"]

DECODER = ("self_attn", "norm", "cross_attn", "norm", "ffn", "norm")
PRE_NORM = ("norm", "self_attn", "norm", "cross_attn", "norm", "ffn")
ENCODER = ("self_attn", "norm", "ffn", "norm")


def layer(order: tuple[str, ...]) -> BaseTransformerLayer:
    built = BaseTransformerLayer(MultiheadAttention(16, 4), FFN(16, 24), nn.LayerNorm(16), order)
    fill_with_recipe(built)
    return built.eval()


@pytest.mark.parametrize(("name", "order"), [("layer_post", DECODER), ("layer_pre", PRE_NORM)])
def test_decoder_layer_agrees_with_the_reference(name, order):
    built = layer(order)
    assert sorted(built.state_dict()) == list(REFERENCE[f"{name}_keys"])
    masks = [REFERENCE["self_attn_mask"], None]
    out = built(QUERY, KEY, KEY, attn_masks=masks, key_padding_mask=PADDING, **POSITIONS)
    assert_close(out, REFERENCE[name])


def test_encoder_layer_agrees_with_the_reference():
    built = layer(ENCODER)
    assert sorted(built.state_dict()) == list(REFERENCE["layer_enc_keys"])
    query_pos = POSITIONS["query_pos"]
    # Its five tokens carry the mask of the last five of the seven keys.
    out = built(QUERY, query_pos=query_pos, query_key_padding_mask=PADDING[:, 2:])
    assert_close(out, REFERENCE["layer_enc"])


def test_one_attention_is_copied_for_each_operation():
    first, second = layer(DECODER).attentions
    assert first is not second
    assert first.attn.in_proj_weight.data_ptr() != second.attn.in_proj_weight.data_ptr()


def test_one_mask_serves_all_attentions():
    built = layer(("self_attn", "norm", "self_attn"))
    mask = REFERENCE["self_attn_mask"]
    assert torch.equal(built(QUERY, attn_masks=mask), built(QUERY, attn_masks=[mask, mask]))


def test_pre_norm_passes_the_query_around_the_norms():
    built = layer(("norm", "ffn"))
    assert_close(built(QUERY), QUERY + built.ffns[0].layers(built.norms[0](QUERY)))


def test_wrong_operations_are_named():
    attention, ffn, norm = MultiheadAttention(16, 4), FFN(16, 24), nn.LayerNorm(16)
    with pytest.raises(ValueError, match="'conv'"):
        BaseTransformerLayer(attention, ffn, norm, ("self_attn", "conv"))
    with pytest.raises(ValueError, match="1 attentions for 2 operations"):
        BaseTransformerLayer([attention], ffn, norm, ("self_attn", "cross_attn"))


def test_sequence_copies_one_layer_or_takes_several():
    single = nn.Linear(2, 2)
    copies = TransformerLayerSequence(single, 3)
    assert len(copies.layers) == copies.num_layers == 3
    assert len({copy.weight.data_ptr() for copy in copies.layers}) == 3
    several = [nn.Linear(2, 2), nn.Linear(2, 2)]
    assert list(TransformerLayerSequence(several).layers) == several
    with pytest.raises(ValueError, match="num_layers is needed"):
        TransformerLayerSequence(single)
    with pytest.raises(ValueError, match="2 layers given, num_layers=3"):
        TransformerLayerSequence(several, 3)

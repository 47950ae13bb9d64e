"""Layers as lists of operations."""

from __future__ import annotations

import copy

import pytest
import reference_ops
import torch
from reference_recipe import fill_with_recipe
from torch import Tensor, nn
from torch.testing import assert_close

from detrex.layers import (
    FFN,
    BaseTransformerLayer,
    ConditionalCrossAttention,
    ConditionalSelfAttention,
    MultiheadAttention,
    MultiScaleDeformableAttention,
    TransformerLayerSequence,
)
from detrex.layers.keywords import CONTEXT
from detrex.utils.errors import InvalidArgument

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


@pytest.mark.parametrize(
    "attention", [MultiheadAttention, ConditionalSelfAttention, MultiScaleDeformableAttention]
)
def test_embed_dim_is_that_of_the_first_attention(attention):
    built = BaseTransformerLayer(
        attention(16, 4), FFN(16, 24), nn.LayerNorm(16), ("self_attn", "norm", "ffn", "norm")
    )
    assert built.embed_dim == 16
    only_ffn = BaseTransformerLayer(attention(16, 4), FFN(16, 24), nn.LayerNorm(16), ("ffn",))
    assert only_ffn.embed_dim is None


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
    with pytest.raises(ValueError, match="needs num_layers"):
        TransformerLayerSequence(single)
    with pytest.raises(InvalidArgument, match="2 layers, but num_layers is 3"):
        TransformerLayerSequence(several, 3)


SHAPES = [(2, 3), (1, 1)]
REFERENCES = torch.rand(2, 5, 2, 4, generator=torch.Generator().manual_seed(0))


def mixed_layer() -> BaseTransformerLayer:
    """Attention that takes none of a loop's keywords, then one that takes some."""
    attentions = [
        MultiheadAttention(16, 4, batch_first=True),
        MultiScaleDeformableAttention(16, 4, 2, 2, dropout=0.0, batch_first=True),
    ]
    built = BaseTransformerLayer(attentions, FFN(16, 24), nn.LayerNorm(16), DECODER)
    fill_with_recipe(built)
    return built.eval()


def mixed_inputs() -> tuple[tuple[Tensor, Tensor, Tensor], dict]:
    query, key = QUERY.transpose(0, 1), KEY.transpose(0, 1)
    return (query, key, key), {"reference_points": REFERENCES, "spatial_shapes": SHAPES}


def test_attentions_get_the_keywords_that_they_name():
    built = mixed_layer()
    tokens, known = mixed_inputs()
    out = built(*tokens, **known)
    x = built.norms[0](built.attentions[0](tokens[0]))
    x = built.norms[1](built.attentions[1](x, value=tokens[2], **known))
    assert torch.equal(out, built.norms[2](built.ffns[0](x)))


def test_every_layer_takes_the_context_of_loops():
    built = layer(DECODER)
    expected = built(QUERY, KEY, KEY)
    assert torch.equal(built(QUERY, KEY, KEY, **dict.fromkeys(CONTEXT)), expected)


def test_a_keyword_that_nobody_takes_is_an_error():
    tokens, _ = mixed_inputs()
    built = mixed_layer()
    message = (
        r"'refernce_points'\. Did you mean 'reference_points'\? "
        r"MultiheadAttention takes query, .*; MultiScaleDeformableAttention takes query, "
    )
    with pytest.raises(TypeError, match=message):
        built(*tokens, refernce_points=REFERENCES, spatial_shapes=SHAPES)
    with pytest.raises(TypeError, match=r"'zoom'\. .*has no attention\."):
        layer(("ffn", "norm"))(QUERY, zoom=1)


def test_loops_of_others_may_offer_more():
    """As those written for the public detrex do: what is meant for one layer reaches all."""
    tokens, known = mixed_inputs()
    built = mixed_layer()
    expected = built(*tokens, **known)
    loop = TransformerLayerSequence(built, 2)
    assert torch.equal(loop.layers[1](*tokens, **known, dn_meta={}, ksgt=None), expected)
    with pytest.raises(TypeError, match=r"'refernce_points'\. Did you mean 'reference_points'"):
        loop.layers[0](*tokens, refernce_points=REFERENCES, spatial_shapes=SHAPES)
    with pytest.raises(TypeError, match="'dn_meta'"):
        built(*tokens, **known, dn_meta={})


def test_a_layer_of_others_may_give_every_attention_everything():
    class OwnLayer(BaseTransformerLayer):
        def forward(self, query, key, value, **everything):
            masks = [None] * self.num_attn
            for attention, mask in zip(self.attentions, masks, strict=True):
                query = attention(query, key, value, attn_mask=mask, **everything)
            return query

    kinds = MultiheadAttention, ConditionalCrossAttention, MultiScaleDeformableAttention
    attentions = [kind(16, 4, batch_first=True) for kind in kinds[:2]]
    attentions.append(kinds[2](16, 4, 2, 2, batch_first=True))
    order = ("cross_attn", "cross_attn", "cross_attn")
    built = OwnLayer(attentions, FFN(16, 24), nn.LayerNorm(16), order).eval()
    tokens, known = mixed_inputs()
    query, key = tokens[0], tokens[1]
    positions = {"query_pos": query, "key_pos": key, "query_sine_embed": query}
    out = built(*tokens, **known, **positions, whatever=1)
    x = attentions[0](*tokens, query_pos=query, key_pos=key)
    x = attentions[1](x, key, key, **positions)
    assert torch.equal(out, attentions[2](x, key, key, query_pos=query, **known))


class GreedyAttention(nn.Module):
    """Somebody else's attention, which takes whatever comes."""

    seen: dict

    def forward(self, query, key, value, identity=None, *, query_pos=None, **kwargs):
        self.seen = kwargs
        return query


class PickyAttention(nn.Module):
    """An attention that takes no masks and no positions, but a keyword of its own."""

    def forward(self, query, key, value, identity=None, *, temperature=1.0):
        return query * temperature


def test_other_attentions_keep_working():
    tokens, known = mixed_inputs()
    built = mixed_layer()
    built.attentions[0] = greedy = GreedyAttention()
    built(*tokens, **known, anything=1)
    assert greedy.seen.keys() == {*known, "anything", "key_pos", "attn_mask", "key_padding_mask"}
    built = copy.deepcopy(layer(ENCODER))
    with pytest.raises(TypeError, match="'temperature'"):
        built(QUERY, temperature=2.0)
    built.attentions[0] = PickyAttention()
    doubled = built(QUERY, query_pos=QUERY, temperature=2.0)
    assert torch.equal(doubled, built(2 * QUERY))


def test_keywords_compile_without_a_break():
    tokens, known = mixed_inputs()
    built = mixed_layer()
    torch._dynamo.reset()
    compiled = torch.compile(built, fullgraph=True, backend="aot_eager")
    expected = built(*tokens, **known, is_first_layer=True)
    assert_close(compiled(*tokens, **known, is_first_layer=True), expected)


@pytest.mark.parametrize("kind", [ConditionalSelfAttention, ConditionalCrossAttention])
def test_options_that_nobody_takes_are_an_error(kind):
    with pytest.raises(TypeError, match="attn_dropp"):
        kind(16, 4, attn_dropp=0.1)

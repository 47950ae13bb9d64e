"""Attention with positions, masks and residual."""

from __future__ import annotations

import pytest
import reference_ops
import torch
from reference_recipe import fill_with_recipe
from torch import Tensor, nn
from torch.testing import assert_close

from detrex.layers import ConditionalCrossAttention, ConditionalSelfAttention, MultiheadAttention

REFERENCE = reference_ops.load("layers")
QUERY, KEY = REFERENCE["query"], REFERENCE["key"]  # sequence first: 5 or 7, batch 2, 16 channels
QUERY_POS, KEY_POS = REFERENCE["query_pos"], REFERENCE["key_pos"]
SINE = REFERENCE["query_sine_embed"]
HEADS = 4
KINDS = (MultiheadAttention, ConditionalSelfAttention, ConditionalCrossAttention)


def filled(kind: type[nn.Module], **options) -> nn.Module:
    attention = kind(16, HEADS, **options)
    fill_with_recipe(attention)
    return attention.eval()


def arguments(kind: type[nn.Module], dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Everything the kind of attention can take, apart from masks."""
    known = {"query": QUERY, "query_pos": QUERY_POS}
    if kind is not ConditionalSelfAttention:
        known |= {"key": KEY, "key_pos": KEY_POS}
    if kind is ConditionalCrossAttention:
        known |= {"query_sine_embed": SINE}
    return {name: value.to(dtype) for name, value in known.items()}


def num_keys(kind: type[nn.Module]) -> int:
    return len(QUERY if kind is ConditionalSelfAttention else KEY)


def batch_first(known: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.transpose(0, 1).contiguous() for name, value in known.items()}


def test_multihead_agrees_with_the_reference():
    attention = filled(MultiheadAttention)
    assert sorted(attention.state_dict()) == list(REFERENCE["mha_cross_keys"])
    positions = {"query_pos": QUERY_POS, "key_pos": KEY_POS}
    masks = {k: REFERENCE[k] for k in ("attn_mask", "key_padding_mask")}
    assert_close(attention(QUERY, KEY, KEY, **positions, **masks), REFERENCE["mha_cross"])
    own = attention(QUERY, query_pos=QUERY_POS, attn_mask=REFERENCE["self_attn_mask"])
    assert_close(own, REFERENCE["mha_self"])
    assert_close(attention(QUERY, KEY, KEY, identity=QUERY_POS), REFERENCE["mha_identity"])


def test_multihead_batch_first_agrees_with_the_reference():
    attention = filled(MultiheadAttention, batch_first=True)
    known = batch_first(arguments(MultiheadAttention))
    out = attention(**known, key_padding_mask=REFERENCE["key_padding_mask"])
    assert_close(out, REFERENCE["mha_batch_first"])


@pytest.mark.parametrize(
    ("name", "mask"), [("cond_self", "self_attn_mask"), ("cond_self_floatmask", "self_float_mask")]
)
def test_conditional_self_agrees_with_the_reference(name, mask):
    attention = filled(ConditionalSelfAttention)
    assert sorted(attention.state_dict()) == list(REFERENCE["cond_self_keys"])
    out = attention(QUERY, query_pos=QUERY_POS, attn_mask=REFERENCE[mask])
    assert_close(out, REFERENCE[name])


@pytest.mark.parametrize("first", [True, False])
def test_conditional_cross_agrees_with_the_reference(first):
    attention = filled(ConditionalCrossAttention)
    name = f"cond_cross_first{int(first)}"
    assert sorted(attention.state_dict()) == list(REFERENCE[f"{name}_keys"])
    out = attention(
        **arguments(ConditionalCrossAttention),
        is_first_layer=first,
        key_padding_mask=REFERENCE["key_padding_mask"],
    )
    assert_close(out, REFERENCE[name])


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (MultiheadAttention, {}),
        (ConditionalSelfAttention, {}),
        (ConditionalCrossAttention, {"is_first_layer": True}),
        (ConditionalCrossAttention, {"is_first_layer": False}),
    ],
)
def test_both_layouts_agree(kind, options):
    """The reference has no numbers for conditional attention: it fails there, batch first."""
    known = arguments(kind)
    keys = num_keys(kind)
    masks = {
        "attn_mask": torch.arange(len(QUERY))[:, None] == torch.arange(keys),
        "key_padding_mask": REFERENCE["key_padding_mask"][:, -keys:],
    }
    expected = filled(kind)(**known, **masks, **options)
    out = filled(kind, batch_first=True)(**batch_first(known), **masks, **options)
    assert_close(out.transpose(0, 1), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_every_form_of_a_mask_forbids_the_same(kind):
    """Boolean or numeric, shared or one per image and head, alone or next to a padding mask."""
    attention, known = filled(kind), arguments(kind)
    keys = num_keys(kind)
    forbidden = torch.arange(len(QUERY))[:, None] % 3 == torch.arange(keys) % 3
    padding = REFERENCE["key_padding_mask"][:, -keys:]
    joined = (forbidden | padding[:, None]).repeat_interleave(HEADS, 0)
    minus_infinity = torch.zeros(forbidden.shape).masked_fill(forbidden, float("-inf"))
    expected = attention(**known, attn_mask=joined)
    for mask in (forbidden, minus_infinity):
        assert_close(attention(**known, attn_mask=mask, key_padding_mask=padding), expected)
    per_head = minus_infinity.expand(2 * HEADS, -1, -1)
    assert_close(attention(**known, attn_mask=per_head, key_padding_mask=padding), expected)


@pytest.mark.parametrize("kind", [MultiheadAttention, ConditionalCrossAttention])
def test_padded_keys_have_no_influence(kind):
    attention, known = filled(kind), arguments(kind)
    padding = torch.zeros(2, len(KEY), dtype=torch.bool)
    padding[:, 4:] = True
    out = attention(**known, key_padding_mask=padding)
    changed = known | {name: known[name].clone() for name in ("key", "key_pos")}
    for name in ("key", "key_pos"):
        changed[name][4:] = 1e3
    assert torch.equal(attention(**changed, key_padding_mask=padding), out)
    short = known | {name: known[name][:4] for name in ("key", "key_pos")}
    assert_close(attention(**short), out)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_the_numeric_ones(kind):
    attention = filled(kind).double()
    known = arguments(kind, torch.float64)
    inputs = [value[:3].requires_grad_() for value in known.values()]
    forward = lambda *x: attention(**dict(zip(known, x, strict=True)))  # noqa: E731
    assert torch.autograd.gradcheck(forward, inputs, fast_mode=True)


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_stays_close(kind):
    out = filled(kind).bfloat16()(**arguments(kind, torch.bfloat16))
    assert out.dtype == torch.bfloat16
    # bfloat16 keeps 8 bits; a few roundings of values up to about 4 happen on the way.
    assert_close(out.float(), filled(kind)(**arguments(kind)), rtol=0, atol=16 * 2**-8)


@pytest.mark.parametrize("kind", KINDS)
def test_no_queries_give_no_output(kind):
    known = arguments(kind)
    known |= {n: v[:0] for n, v in known.items() if n.startswith("query")}
    for layout, values in ((False, known), (True, batch_first(known))):
        out = filled(kind, batch_first=layout)(**values)
        assert out.shape == ((2, 0, 16) if layout else (0, 2, 16))


@pytest.mark.parametrize("kind", KINDS)
def test_identity_is_what_the_result_is_added_to(kind):
    attention, known = filled(kind), arguments(kind)
    moved = attention(**known, identity=QUERY + 1)
    assert_close(moved, attention(**known) + 1)


@pytest.mark.parametrize("kind", KINDS)
def test_dropout_acts_in_training_only(kind):
    attention = filled(kind, attn_drop=0.5, proj_drop=1.0)
    known = arguments(kind)
    assert torch.equal(attention(**known), filled(kind)(**known))
    assert torch.equal(attention.train()(**known), known["query"])


@pytest.mark.parametrize("kind", [ConditionalSelfAttention, ConditionalCrossAttention])
def test_dropout_of_weights_is_a_module_and_a_number(kind):
    attention = filled(kind, attn_drop=0.5).train()
    assert attention.attn_drop == 0.5
    for module in attention.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    assert attention.attn_drop == 0.0
    assert torch.equal(attention(**arguments(kind)), filled(kind)(**arguments(kind)))
    attention.attn_drop = 0.5
    assert not torch.equal(attention(**arguments(kind)), filled(kind)(**arguments(kind)))


def test_conditional_attention_says_what_is_missing():
    with pytest.raises(ValueError, match="query_pos"):
        filled(ConditionalSelfAttention)(QUERY)
    cross = filled(ConditionalCrossAttention)
    with pytest.raises(ValueError, match="key_pos"):
        cross(QUERY, KEY, query_sine_embed=SINE)
    with pytest.raises(ValueError, match="first layer"):
        cross(QUERY, KEY, key_pos=KEY_POS, query_sine_embed=SINE, is_first_layer=True)
    with pytest.raises(ValueError, match="not divisible"):
        ConditionalSelfAttention(16, 3)

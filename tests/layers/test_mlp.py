"""Prediction heads and feed-forward networks."""

from __future__ import annotations

import pytest
import reference_ops
import torch
from reference_recipe import fill_with_recipe
from torch import nn
from torch.testing import assert_close

from detrex.layers import FFN, MLP
from detrex.utils.errors import InvalidArgument

REFERENCE = reference_ops.load("layers")
QUERY = REFERENCE["query"]


def filled(module: nn.Module, keys: str) -> nn.Module:
    assert sorted(module.state_dict()) == list(REFERENCE[keys])
    fill_with_recipe(module)
    return module.eval()


def test_mlp_agrees_with_the_reference():
    assert_close(filled(MLP(16, 24, 4, 3), "mlp_keys")(QUERY), REFERENCE["mlp"])


def test_mlp_of_one_layer_is_linear():
    mlp = MLP(3, 99, 5, 1)
    x = torch.randn(2, 3)
    assert torch.equal(mlp(x), mlp.layers[0](x))


def test_ffn_agrees_with_the_reference():
    ffn = filled(FFN(16, 24), "ffn_keys")
    assert_close(ffn(QUERY), REFERENCE["ffn"])
    assert_close(ffn(QUERY, REFERENCE["query_pos"]), REFERENCE["ffn_identity"])


def test_ffn_of_three_layers_agrees_with_the_reference():
    options = {"num_fcs": 3, "activation": nn.PReLU(), "fc_bias": False, "add_identity": False}
    ffn = filled(FFN(16, 24, 8, **options), "ffn3_keys")
    assert_close(ffn(QUERY), REFERENCE["ffn3"])


def test_ffn_drops_only_in_training():
    ffn = FFN(8, 16, ffn_drop=1.0)
    x = torch.randn(4, 8)
    assert torch.equal(ffn(x), x)
    assert not torch.equal(ffn.eval()(x), x)


def test_ffn_doesnt_write_into_its_input():
    x = torch.randn(4, 8)
    before = x.clone()
    FFN(8, 16)(x)
    assert torch.equal(x, before)


def test_ffn_needs_two_layers():
    with pytest.raises(InvalidArgument, match="num_fcs=1"):
        FFN(8, 16, num_fcs=1)

from __future__ import annotations

import pytest
import torch
from reference_recipe import fill_with_recipe
from torch import nn

from detrex.modeling.backbone.frozen_norm import freeze_all_norms, freeze_parameters


def rows_and_maps() -> nn.Module:
    """Both kinds of batch norm that backbones have: over maps and over rows."""
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 5), nn.BatchNorm1d(5)
    )
    fill_with_recipe(network)
    return network.double()


def test_both_kinds_become_constant_and_give_the_same():
    network, image = rows_and_maps(), torch.randn(2, 3, 3, 3, dtype=torch.float64)
    state = network.state_dict()
    expected = network.eval()(image)
    frozen = freeze_all_norms(network, "a network").train()
    torch.testing.assert_close(frozen(image), expected, atol=1e-12, rtol=1e-12)
    assert [key for key, _ in frozen.named_parameters()] == ["0.weight", "0.bias"] + [
        "3.weight",
        "3.bias",
    ]
    kept = {key for key in state if not key.endswith("num_batches_tracked")}
    assert frozen.state_dict().keys() == kept


@pytest.mark.parametrize("norm", [nn.BatchNorm1d, nn.BatchNorm2d])
def test_a_network_that_is_a_norm_is_replaced(norm):
    frozen = freeze_all_norms(norm(3), "a norm")
    assert not list(frozen.parameters())


def test_only_the_norms_of_chosen_parameters_become_constant():
    network = rows_and_maps()
    freeze_parameters(network, {"0.weight", "4.weight", "4.bias"})
    assert not network[0].weight.requires_grad
    assert network[0].bias.requires_grad
    assert isinstance(network[1], nn.BatchNorm2d)
    assert not list(network[4].parameters())


def test_a_network_without_batch_norm_names_what_it_has():
    with pytest.raises(ValueError, match=r"a network has no batch norm.*its norms are LayerNorm"):
        freeze_all_norms(nn.Sequential(nn.LayerNorm(3)), "a network")

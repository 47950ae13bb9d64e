from __future__ import annotations

import pytest
import torch
from torch import nn

from detrex.engine import ModelEma


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))


def move(net: nn.Module, amount: float) -> None:
    with torch.no_grad():
        for value in net.state_dict().values():
            value += torch.tensor(amount).to(value.dtype)


def test_the_average_follows_its_formula_and_counters_are_copied():
    net = model()
    ema = ModelEma(net, decay=0.9)
    expected = net[0].weight.detach().clone()
    for step in (1.0, 2.0, 3.0):
        move(net, step)
        ema.update()
        expected = 0.9 * expected + 0.1 * net[0].weight.detach()
    torch.testing.assert_close(ema.shadow["0.weight"], expected)
    assert ema.shadow["1.num_batches_tracked"] == net[1].num_batches_tracked == 6


def test_applied_lends_the_average_and_gives_the_weights_back():
    net = model()
    ema = ModelEma(net, decay=0.5)
    move(net, 1.0)
    own = {k: v.clone() for k, v in net.state_dict().items()}
    with pytest.raises(RuntimeError, match="stop"), ema.applied():
        for name, value in net.state_dict().items():
            torch.testing.assert_close(value, ema.shadow[name], rtol=0, atol=0)
        raise RuntimeError("stop")
    for name, value in net.state_dict().items():
        torch.testing.assert_close(value, own[name], rtol=0, atol=0)


def test_the_state_survives_a_checkpoint(tmp_path):
    net = model()
    ema = ModelEma(net, decay=0.5)
    move(net, 1.0)
    ema.update()
    torch.save(ema.state_dict(), tmp_path / "ema.pth")
    other = ModelEma(model(), decay=0.5)
    other.load_state_dict(torch.load(tmp_path / "ema.pth", weights_only=True))
    for name, value in ema.shadow.items():
        torch.testing.assert_close(other.shadow[name], value, rtol=0, atol=0)


def test_weights_of_another_model_are_refused():
    with pytest.raises(ValueError, match=r"another model: 1 names differ, for example 0\.bias"):
        ema = ModelEma(model())
        state = dict(ema.state_dict())
        del state["0.bias"]
        ema.load_state_dict(state)


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_a_decay_outside_its_range_is_refused(decay):
    with pytest.raises(ValueError, match="decay must be in"):
        ModelEma(model(), decay)

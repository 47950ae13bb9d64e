"""Averages of weights by the public detrex's names, in a training loop as it has them."""

from __future__ import annotations

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from omegaconf import OmegaConf
from torch import nn

from detrex.config import get_config
from detrex.engine import ModelEma
from detrex.modeling import ema


class Net(nn.Module):
    """Tied weights, a counter, and a buffer that no file has."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(2, 2)
        self.tied = nn.Linear(2, 2)
        self.tied.weight = self.first.weight
        self.norm = nn.BatchNorm1d(2)
        self.register_buffer("grid", torch.zeros(3), persistent=False)


@pytest.fixture
def cfg():
    cfg = OmegaConf.create({"train": get_config("common/train.py").train})
    cfg.train.model_ema.enabled = True
    cfg.train.model_ema.decay = 0.75
    return cfg


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net()


@torch.no_grad()
def step(net: nn.Module) -> None:
    for parameter in net.parameters():
        parameter += torch.randn_like(parameter)
    net.norm.running_mean += 1
    net.norm.num_batches_tracked += 1


def copied(net: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in net.state_dict().items()}


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=0, msg=name)


def trained(cfg, net: nn.Module) -> ModelEma:
    """Three iterations with the hook; gives the averages of our own training loop."""
    ema.may_build_model_ema(cfg, net)
    hook = ema.EMAHook(cfg, net)
    hook.before_train()
    theirs = ModelEma(net, decay=0.75)
    for _ in range(3):
        hook.before_step()
        step(net)
        hook.after_step()
        theirs.update()
    hook.after_train()
    return theirs


def test_the_averages_are_those_of_our_own_loop(cfg, net):
    theirs = trained(cfg, net)
    state = ema.get_model_ema_state(net)
    assert state.state_dict().keys() == theirs.shadow.keys() - {"tied.weight"}
    assert_same(theirs.shadow, state.state_dict())
    assert state.state_dict()["norm.num_batches_tracked"] == 3


def test_weights_are_lent_and_given_back(cfg, net):
    averages = trained(cfg, net).shadow
    own = copied(net)
    with pytest.raises(RuntimeError, match="stop"), ema.apply_model_ema_and_restore(net) as before:
        assert_same(net.state_dict(), averages)
        assert_same(own, before.state_dict())
        raise RuntimeError("stop")
    assert_same(net.state_dict(), own)
    other = ema.get_model_ema_state(net).get_ema_model(net)
    assert_same(other.state_dict(), averages)
    before = ema.apply_model_ema(net, save_current=True)
    assert_same(net.state_dict(), averages)
    assert ema.apply_model_ema(net, before) is None
    assert_same(net.state_dict(), own)


def test_checkpoints_bring_them_back(cfg, net, tmp_path):
    averages = trained(cfg, net).shadow
    extras = ema.may_get_ema_checkpointer(cfg, net)
    DetectionCheckpointer(net, str(tmp_path), **extras).save("last")
    other = Net()
    ema.may_build_model_ema(cfg, other)
    extras = ema.may_get_ema_checkpointer(cfg, other)
    DetectionCheckpointer(other, str(tmp_path), **extras).load(str(tmp_path / "last.pth"))
    hook = ema.EMAHook(cfg, other)
    hook.before_train()  # keeps what the checkpoint brought
    ema.apply_model_ema(other)
    assert_same(other.state_dict(), averages)


def test_averages_of_our_own_loop_are_taken_too(net):
    state = ema.EMAState()
    own = ModelEma(net)
    step(net)
    state.load_state_dict(own.state_dict())  # names tied weights twice
    state.apply_to(net)
    assert_same(net.state_dict(), own.shadow)


def test_nothing_without_the_switch(cfg, net):
    cfg.train.model_ema.enabled = False
    ema.may_build_model_ema(cfg, net)
    assert ema.may_get_ema_checkpointer(cfg, net) == {}
    with pytest.raises(ValueError, match="call may_build_model_ema"):
        ema.apply_model_ema(net)


def test_a_device_of_its_own(cfg, net):
    cfg.train.model_ema.device = "meta"
    ema.may_build_model_ema(cfg, net)
    ema.EMAHook(cfg, net).before_train()
    state = ema.get_model_ema_state(net)
    assert state.has_inited()
    assert state.device == torch.device("meta")
    assert ema.EMAState.FromModel(net).to("meta").device == torch.device("meta")
    assert not state.clear().has_inited()


def test_other_models_are_refused(net):
    state = ema.EMAState.FromModel(net)
    with pytest.raises(ValueError, match=r"lack 2 of its weights, for example 0\.weight"):
        state.apply_to(nn.Sequential(nn.Linear(2, 2)))
    with pytest.raises(ValueError, match="of another model: 7 are missing, for example first"):
        state.load_state_dict({"norm.weight": torch.ones(2)})
    with pytest.raises(RuntimeError, match="call init_state"):
        ema.EMAUpdater(ema.EMAState()).update(net)

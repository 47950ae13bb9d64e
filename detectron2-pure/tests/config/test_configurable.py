"""@configurable on constructors and functions."""

import inspect

import pytest
from detectron2.config import CfgNode, configurable
from omegaconf import DictConfig


class Model:
    @configurable
    def __init__(self, a, b=2, *, c=3):
        self.values = (a, b, c)

    @classmethod
    def from_config(cls, cfg, a):
        return {"a": a, "b": cfg.B}


class Child(Model):
    @classmethod
    def from_config(cls, cfg):
        return {"a": 10, "b": cfg.B + 1}


def test_explicit_arguments_pass_through():
    assert Model(1).values == (1, 2, 3)
    assert Model(1, 5, c=6).values == (1, 5, 6)
    assert Model(a=1, b=7).values == (1, 7, 3)
    assert list(inspect.signature(Model).parameters) == ["a", "b", "c"]


@pytest.mark.parametrize("cfg", [CfgNode({"B": 8}), DictConfig({"B": 8})])
def test_config_is_translated(cfg):
    assert Model(cfg, 1).values == (1, 8, 3)
    # c is unknown to from_config and goes to the constructor.
    assert Model(cfg, a=4, c=9).values == (4, 8, 9)
    assert Model(cfg=cfg, a=4).values == (4, 8, 3)
    assert Child(cfg).values == (10, 9, 3)


def test_functions():
    @configurable(from_config=lambda cfg, scale=1: {"x": cfg.X * scale})
    def build(x, y=0):
        return x, y

    cfg = CfgNode({"X": 3})
    assert build(1) == (1, 0)
    assert build(cfg) == (3, 0)
    assert build(cfg, scale=2, y=5) == (6, 5)
    assert build.from_config(cfg) == {"x": 3}


def test_wrong_use():
    class NoFromConfig:
        @configurable
        def __init__(self, a):
            pass

    class NoClassMethod(NoFromConfig):
        def from_config(self, cfg):
            return {}

    class WrongName(NoFromConfig):
        @classmethod
        def from_config(cls, config):
            return {}

    cfg = CfgNode({})
    with pytest.raises(AttributeError, match="from_config"):
        NoFromConfig(cfg)
    with pytest.raises(AttributeError, match="from_config"):
        NoFromConfig(a=1)
    with pytest.raises(TypeError, match="classmethod"):
        NoClassMethod(cfg)
    with pytest.raises(TypeError, match="has to be 'cfg'"):
        WrongName(cfg)
    with pytest.raises(AssertionError, match="Incorrect use"):

        @configurable
        def function(a):
            pass

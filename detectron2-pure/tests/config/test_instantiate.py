"""instantiate and dump_dataclass."""

from collections import namedtuple
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from detectron2.config import ConfigError, instantiate
from detectron2.config import LazyCall as L
from detectron2.config.instantiate import dump_dataclass
from detectron2.layers import ShapeSpec
from omegaconf import DictConfig, ListConfig, OmegaConf


class Recorder:
    """Keeps its arguments."""

    def __init__(self, value: Any, other: Any = None) -> None:
        self.value = value
        self.other = other

    @staticmethod
    def double(value):
        return 2 * value

    def __call__(self, **kwargs):
        return self, kwargs


def test_recursive_and_relative_interpolation():
    cfg = L(Recorder)(
        value=L(Recorder)(value="${...base}", other="${..other}"), other=L(Recorder)(value=1)
    )
    tree = DictConfig({"x": cfg, "base": 5}, flags={"allow_objects": True})
    made = instantiate(tree.x)
    assert made.value.value == 5
    assert isinstance(made.other, Recorder)
    # An interpolation to a lazy object describes a second one.
    assert isinstance(made.value.other, Recorder)
    assert made.value.other is not made.other


def test_target_by_name_and_static_method():
    assert instantiate({"_target_": "collections.Counter", "a": 2}) == {"a": 2}
    assert instantiate(L(Recorder.double)(value=4)) == 8


def test_lazy_target():
    made, kwargs = instantiate(L(L(Recorder)(value=3))(x=1))
    assert made.value == 3
    assert kwargs == {"x": 1}


def test_not_recursive():
    made = instantiate(L(Recorder)(value=L(Recorder)(value=1), _recursive_=False))
    assert isinstance(made.value, DictConfig)
    assert instantiate(made.value).value == 1


def test_lists():
    made = instantiate([L(Recorder)(value=1), 2])
    assert type(made) is list
    assert made[0].value == 1
    made = instantiate(L(Recorder)(value=[L(Recorder)(value=1), "x"], other={"k": [1]}))
    assert type(made.value) is ListConfig
    assert made.value[0].value == 1
    assert type(made.other) is DictConfig
    pair = namedtuple("pair", "a b")(1, 2)
    assert instantiate(pair) is pair


def test_list_of_live_objects():
    layer = torch.nn.Linear(1, 1)
    made = instantiate(ListConfig([layer], flags={"allow_objects": True}))
    assert made[0] is layer


def test_mapping_without_target_is_left_alone():
    cfg = DictConfig({"inner": L(Recorder)(value=1)}, flags={"allow_objects": True})
    assert instantiate(cfg) is cfg
    assert instantiate(3) == 3
    assert instantiate(None) is None


def test_structured_config_becomes_its_dataclass():
    cfg = DictConfig({"shape": ShapeSpec(channels=3)}, flags={"allow_objects": True})
    made = instantiate(cfg.shape)
    # A config would compare equal, too.
    assert type(made) is ShapeSpec
    assert made == ShapeSpec(channels=3)
    inner = instantiate(L(Recorder)(value=ShapeSpec(stride=2))).value
    assert type(inner) is ShapeSpec
    assert inner == ShapeSpec(stride=2)


def test_config_is_not_modified():
    cfg = L(Recorder)(value=L(Recorder)(value=1))
    before = OmegaConf.to_container(cfg)
    instantiate(cfg)
    assert OmegaConf.to_container(cfg) == before


def test_error_names_target_and_place():
    cfg = DictConfig(
        {"model": L(Recorder)(value=[L(torch.nn.Linear)(in_features=2, wrong=1)])},
        flags={"allow_objects": True},
    )
    with pytest.raises(TypeError, match=r"torch.nn.Linear \(model.value\[0\] in the config\)") as i:
        instantiate(cfg.model)
    assert isinstance(i.value, ConfigError)
    assert "unexpected keyword argument" in str(i.value.__cause__)


def test_error_of_the_callee_keeps_its_type():
    def fail():
        raise KeyError("inside")

    with pytest.raises(KeyError, match=r"Cannot instantiate .*fail.*: KeyError: 'inside'"):
        instantiate(L(fail)())


def test_unknown_and_uncallable_targets():
    with pytest.raises(ImportError, match=r"_target_ 'torch.nn.Nope'.*no attribute 'Nope'"):
        instantiate({"_target_": "torch.nn.Nope"})
    with pytest.raises(TypeError, match=r"torch.nn is a module, which cannot be called"):
        instantiate({"_target_": "torch.nn"})


@dataclass
class Inner:
    x: int = 1


@dataclass
class Outer:
    name: str = "n"
    inner: Inner = field(default_factory=Inner)
    many: list = field(default_factory=lambda: [Inner(2), 3])


def test_dump_dataclass():
    dumped = dump_dataclass(Outer())
    target = f"{__name__}.Inner"
    assert dumped == {
        "_target_": f"{__name__}.Outer",
        "name": "n",
        "inner": {"_target_": target, "x": 1},
        "many": [{"_target_": target, "x": 2}, 3],
    }
    assert instantiate(dump_dataclass(ShapeSpec(channels=2))) == ShapeSpec(channels=2)
    for wrong in (Outer, 3):
        with pytest.raises(TypeError, match="instance of a dataclass"):
            dump_dataclass(wrong)

from __future__ import annotations

import copy

import pytest
from detectron2.config import LazyCall as L
from omegaconf import OmegaConf

from detrex.config import apply_overrides, unknown_keys


def takes_anything(**kwargs):
    return kwargs


def takes_two(first, second=2):
    return first, second


@pytest.fixture
def cfg():
    return OmegaConf.create(
        {
            "train": {"max_iter": 90, "amp": {"enabled": False}, "output_dir": "./output"},
            "model": L(takes_two)(first=[{"a": 1}, {"a": 2}]),
            "open": L(takes_anything)(),
            "by_name": {"_target_": "torch.optim.AdamW", "lr": 1e-4},
            "later": "???",
            "same": "${train.max_iter}",
        },
        flags={"allow_objects": True},
    )


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("train.max_iter=10", "train.max_iter", 10),
        ("train.amp.enabled=true", "train.amp.enabled", True),
        ("model.first.1.a=5", "model.first.1.a", 5),
        ("model.second=7", "model.second", 7),
        ("open.whatever=7", "open.whatever", 7),
        ("by_name.betas=[0.9,0.99]", "by_name.betas", [0.9, 0.99]),
        ("+train.note=hello", "train.note", "hello"),
        ("later=3", "later", 3),
        ("same=4", "same", 4),
        ("train.output_dir=/a/b=c", "train.output_dir", "/a/b=c"),
        ("train.output_dir=it's=c", "train.output_dir", "it's=c"),
        ("train.output_dir='a b=c'", "train.output_dir", "a b=c"),
        ("train.output_dir=", "train.output_dir", ""),
        ("~train.max_iter", "train.max_iter", None),
        ("~model.first.0", "model.first", [{"a": 2}]),
    ],
)
def test_good_overrides_are_applied(cfg, override, key, value):
    before = copy.deepcopy(cfg)
    assert OmegaConf.select(apply_overrides(cfg, [override]), key) == value
    assert cfg == before


def test_a_value_that_cannot_be_read_is_named(cfg):
    with pytest.raises(ValueError, match=r"train\.output_dir=\[1"):
        apply_overrides(cfg, ["train.output_dir=[1"])


@pytest.mark.parametrize(
    ("override", "nearest"),
    [
        ("train.max_itre=10", "train.max_iter"),
        ("train.amp.enable=true", "train.amp.enabled"),
        ("max_iter=10", "train.max_iter"),
        ("model.frist=1", "model.first"),
        ("by_name.larning_rate=1", "by_name.lr"),
        ("train.max_iter.value=1", "train.max_iter"),
        ("model.first.2.a=1", "model.first"),
        ("~train.max_itre", "train.max_iter"),
        ("~model.second", "model.first"),
    ],
)
def test_a_key_that_does_not_exist_is_an_error_with_the_nearest_key(cfg, override, nearest):
    before = OmegaConf.to_yaml(cfg.train)
    with pytest.raises(KeyError) as error:
        apply_overrides(cfg, ["train.max_iter=1", override])
    key = override.split("=")[0].removeprefix("~")
    assert f"no key '{key}'" in str(error.value)
    assert nearest in str(error.value)
    assert OmegaConf.to_yaml(cfg.train) == before


def test_several_mistakes_are_reported_together(cfg):
    problems = unknown_keys(cfg, ["train.max_itre=1", "train.max_iter=1", "mdel.first=1"])
    assert len(problems) == 2
    assert "train.max_iter" in problems[0]


@pytest.mark.parametrize("override", ["train.max_iter", "--num-gpus"])
def test_what_is_not_key_value_is_named(cfg, override):
    with pytest.raises(ValueError, match=f"'{override}' is not of the form key=value"):
        apply_overrides(cfg, [override])

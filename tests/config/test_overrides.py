from __future__ import annotations

import copy

import pytest
from omegaconf import OmegaConf
from override_cases import GOOD, UNKNOWN, make_cfg

from detrex.config import apply_overrides, try_get_key, unknown_keys


@pytest.fixture
def cfg():
    return make_cfg()


@pytest.mark.parametrize(("override", "key", "value"), GOOD)
def test_good_overrides_are_applied(cfg, override, key, value):
    before = copy.deepcopy(cfg)
    assert OmegaConf.select(apply_overrides(cfg, [override]), key) == value
    assert cfg == before


def test_a_value_that_cannot_be_read_is_named(cfg):
    with pytest.raises(ValueError, match=r"train\.output_dir=\[1"):
        apply_overrides(cfg, ["train.output_dir=[1"])


@pytest.mark.parametrize(("override", "nearest"), UNKNOWN)
def test_a_key_that_does_not_exist_is_an_error_with_the_nearest_key(cfg, override, nearest):
    before = OmegaConf.to_yaml(cfg.train)
    with pytest.raises(KeyError) as error:
        apply_overrides(cfg, ["train.max_iter=1", override])
    key = override.split("=")[0].lstrip("~+").replace("[", ".").replace("]", "")
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


def test_try_get_key_takes_the_first_there_is(cfg):
    assert try_get_key(cfg, "SEED", "train.seed", "train.max_iter") == 90
    assert try_get_key(cfg, "train.amp.nothing", "SEED", default=-1) == -1
    assert try_get_key({"a": {"b": [1]}}, "a.b") == [1]
    assert try_get_key(cfg, "SEED") is None

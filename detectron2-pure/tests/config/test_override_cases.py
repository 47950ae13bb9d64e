"""The table of overrides that detrex has to pass as well."""

from __future__ import annotations

import pytest
from detectron2.config import LazyConfig
from omegaconf import OmegaConf
from override_cases import GOOD, UNKNOWN, make_cfg


@pytest.mark.parametrize(("override", "key", "value"), GOOD)
def test_good_overrides_are_applied(override, key, value):
    cfg = make_cfg()
    assert LazyConfig.apply_overrides(cfg, [override]) is cfg
    assert OmegaConf.select(cfg, key) == value


@pytest.mark.parametrize(("override", "nearest"), UNKNOWN)
def test_keys_that_do_not_exist_change_nothing(override, nearest):
    cfg = make_cfg()
    with pytest.raises(KeyError):
        LazyConfig.apply_overrides(cfg, ["train.max_iter=1", override])
    assert cfg == make_cfg()

"""LazyConfig: configs as Python files, instantiated when they are needed."""

from detectron2._left_out import explain_missing as _explain_missing
from detectron2.config.config import (
    CfgNode,
    configurable,
    downgrade_config,
    get_cfg,
    upgrade_config,
)
from detectron2.config.errors import ConfigError
from detectron2.config.instantiate import instantiate
from detectron2.config.lazy import LazyCall, LazyConfig

__all__ = [
    "CfgNode",
    "ConfigError",
    "LazyCall",
    "LazyConfig",
    "configurable",
    "downgrade_config",
    "get_cfg",
    "instantiate",
    "upgrade_config",
]

__getattr__ = _explain_missing(__name__)

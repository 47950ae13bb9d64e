"""The public detrex's module of configs; :mod:`detrex.config` has its names."""

from detrex.config.finder import get_config
from detrex.config.overrides import try_get_key

__all__ = ["get_config", "try_get_key"]

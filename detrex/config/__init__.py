"""The configs that come with detrex, and strict command line overrides."""

from detrex.config.finder import get_config, get_config_file
from detrex.config.overrides import apply_overrides, unknown_keys

__all__ = ["apply_overrides", "get_config", "get_config_file", "unknown_keys"]

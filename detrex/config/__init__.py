"""The configs that come with detrex, strict command line overrides, and complete configs."""

from detrex.config.finder import get_config, get_config_file
from detrex.config.load import find_config_file, load_config, load_sections, select_device
from detrex.config.overrides import apply_overrides, try_get_key, unknown_keys

__all__ = [
    "apply_overrides",
    "find_config_file",
    "get_config",
    "get_config_file",
    "load_config",
    "load_sections",
    "select_device",
    "try_get_key",
    "unknown_keys",
]

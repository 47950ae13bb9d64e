"""Arguments on their way from a LazyConfig to a network that knows nothing of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omegaconf import OmegaConf


def plain_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """``arguments`` with omegaconf's lists and dictionaries as Python's own."""
    return {
        name: OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
        for name, value in arguments.items()
    }

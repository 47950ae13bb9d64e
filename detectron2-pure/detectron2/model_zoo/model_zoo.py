"""Find the configs that come with the package."""

from __future__ import annotations

import difflib
from importlib.resources import files
from typing import Any, NoReturn

from detectron2.config import LazyConfig

__all__ = ["get", "get_checkpoint_url", "get_config", "get_config_file"]

_FULL = "the R-CNN models and their weights come with the full detectron2"


def get_config_file(config_path: str) -> str:
    """The path of a config such as ``common/data/coco.py``.

    Raises:
        RuntimeError: there is no such config.
    """
    root = files("detectron2.model_zoo").joinpath("configs")
    config = root.joinpath(*config_path.split("/"))
    if not config.is_file():
        known = available_configs()
        close = difflib.get_close_matches(config_path, known, n=3, cutoff=0.6) or known
        raise RuntimeError(
            f"{config_path} not available in Model Zoo! There is {', '.join(close)}; {_FULL}."
        )
    return str(config)


def available_configs() -> list[str]:
    """What ``get_config_file`` accepts."""
    pending = [("", files("detectron2.model_zoo").joinpath("configs"))]
    found = []
    while pending:
        prefix, folder = pending.pop()
        for entry in folder.iterdir():
            if entry.is_dir():
                pending.append((f"{prefix}{entry.name}/", entry))
            elif entry.name.endswith(".py"):
                found.append(prefix + entry.name)
    return sorted(found)


def get_config(config_path: str, trained: bool = False) -> Any:
    """Load a config such as ``common/train.py``.

    Args:
        config_path: as of ``get_config_file``.
        trained: set the checkpoint of the trained model; there is none here.

    Raises:
        RuntimeError: there is no such config, or a checkpoint was asked for.
    """
    path = get_config_file(config_path)
    if trained:
        get_checkpoint_url(config_path)
    return LazyConfig.load(path)


def get_checkpoint_url(config_path: str) -> NoReturn:
    """Trained models are part of the full detectron2: always an error that says so."""
    raise RuntimeError(f"No checkpoint of {config_path} available in Model Zoo: {_FULL}.")


def get(config_path: str, trained: bool = False, device: str | None = None) -> NoReturn:
    """Whole models are part of the full detectron2: always an error that says so."""
    raise RuntimeError(f"{config_path} not available in Model Zoo as a model: {_FULL}.")

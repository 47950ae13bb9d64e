"""From a config file and the command line to a complete, checked config."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from detectron2.config import LazyConfig
from detectron2.utils import comm
from omegaconf import DictConfig, OmegaConf

from detrex.config.finder import get_config, get_config_file
from detrex.config.overrides import apply_overrides

__all__ = ["find_config_file", "load_config", "load_sections", "select_device"]

_TAGS_OF_CODE = tuple(f"tag:yaml.org,2002:python/{kind}" for kind in ("object", "module"))
_TAG_OF_NAMES = "tag:yaml.org,2002:python/name:"
_SECTIONS = ("model", "dataloader", "optimizer", "lr_multiplier", "train")


def load_config(
    config_file: str, overrides: Sequence[str] = (), eval_only: bool = False
) -> DictConfig:
    """Load the config of a training and complete it.

    Args:
        config_file: a path, or the name of a config that comes with detrex.
        overrides: ``key=value`` strings.
        eval_only: the training data need not be there.

    Returns:
        The config; ``train`` has every key of ``common/train.py``, a device and a seed.

    Raises:
        FileNotFoundError: there is no such file.
        KeyError: an override names a key that does not exist, or a section is missing.
        ValueError: a value that the config leaves to the user (``???``) is not given.
    """
    cfg = _read(config_file, overrides, _SECTIONS, "a training")
    missing = _missing_keys(cfg)
    if eval_only:
        missing = (key for key in missing if not key.startswith("dataloader.train."))
    _require_values(missing)
    if cfg.train.fast_dev_run.enabled:
        _shorten(cfg.train)
    cfg.train.init_checkpoint = _without_hint(cfg.train.init_checkpoint)
    cfg.train.device = str(select_device(cfg.train.device))
    if cfg.train.seed < 0:
        cfg.train.seed = comm.shared_random_seed() % 2**31
    return cfg


def load_sections(
    config_file: str, overrides: Sequence[str], sections: Sequence[str], purpose: str
) -> DictConfig:
    """Load a config of which some sections are needed; the others may be absent or lack values.

    Args:
        config_file: a path, or the name of a config that comes with detrex.
        overrides: ``key=value`` strings.
        sections: what is needed, such as ``model``, ``optimizer``, ``dataloader.train``.
        purpose: what for, in the words of an error message.

    Returns:
        The config; ``train`` has every key of ``common/train.py``.

    Raises:
        FileNotFoundError: there is no such file.
        KeyError: an override names a key that does not exist, or a section is missing.
        ValueError: a value of these sections that the config leaves to the user is not given.
    """
    cfg = _read(config_file, overrides, sections, purpose)
    parts = {name: OmegaConf.select(cfg, name) for name in sections}
    _require_values(key for name, part in parts.items() for key in _missing_keys(part, f"{name}."))
    cfg.train.init_checkpoint = _without_hint(cfg.train.init_checkpoint)
    return cfg


def _read(
    config_file: str, overrides: Sequence[str], sections: Sequence[str], purpose: str
) -> DictConfig:
    """A config with overrides and with defaults for ``train``; values may be missing."""
    config_file = find_config_file(config_file)
    _make_importable(config_file)
    cfg = LazyConfig.load(config_file)
    missing = [name for name in sections if OmegaConf.select(cfg, name) is None]
    if missing:
        raise KeyError(
            f"{config_file} does not describe {purpose}: it has no {', '.join(missing)} "
            f"(it needs {', '.join(sections)})."
        )
    cfg.train = OmegaConf.merge(get_config("common/train.py").train, cfg.get("train", {}))
    return apply_overrides(cfg, overrides)


def _make_importable(config_file: str) -> None:
    """Let a config import ``projects.NAME`` from wherever it is run.

    Python looks in the folder of the script that runs, not in the working directory, nor in that
    which holds the ``projects`` folder of the config. Both come last, so they hide nothing.
    """
    parents = Path(config_file).resolve().parents
    roots = [Path.cwd(), *(folder.parent for folder in parents if folder.name == "projects")]
    known = {os.path.abspath(entry) for entry in sys.path}
    sys.path.extend(str(root) for root in dict.fromkeys(roots) if str(root) not in known)


def _require_values(missing: Iterable[str]) -> None:
    keys = sorted(missing)
    if keys:
        raise ValueError(
            "the config leaves these values to you, give them as key=value: "
            + " ".join(f"{key}=..." for key in keys)
        )


def _missing_keys(node: Any, prefix: str = "") -> Iterator[str]:
    """Keys set to ``???``; those that refer to them are not named again."""
    if not OmegaConf.is_config(node):
        return
    keys: list[Any] = list(node) if isinstance(node, DictConfig) else list(range(len(node)))
    for key in keys:
        if OmegaConf.is_missing(node, key):
            yield f"{prefix}{key}"
        elif not OmegaConf.is_interpolation(node, key):
            yield from _missing_keys(node[key], f"{prefix}{key}.")


def select_device(name: str) -> torch.device:
    """The device that ``train.device`` stands for: "auto" (or "") is a GPU if there is one.

    Raises:
        ValueError: the device does not exist here.
    """
    if name in ("", "auto"):
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as e:
        raise ValueError(f"train.device={name!r} is no device: {e}") from e
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f"train.device={name!r}, but torch sees no CUDA device; train.device=auto takes what "
            "there is."
        )
    return device


def find_config_file(config_file: str) -> str:
    """A config file by its path, or by its name among those that come with detrex.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is a yaml file that would run code when it is read, or no yaml.
    """
    if not config_file:
        raise FileNotFoundError("no config: say which one with --config-file path/to/config.py.")
    if os.path.isfile(config_file):
        if config_file.endswith((".yaml", ".yml")):
            _refuse_code(config_file)
        return config_file
    try:
        # An installed detrex carries its configs along, and people know them by this name.
        return get_config_file(config_file.removeprefix("configs/"))
    except FileNotFoundError as e:
        raise FileNotFoundError(f"config file {config_file!r} does not exist; {e}") from e


def _refuse_code(yaml_file: str) -> None:
    """Refuse a yaml config that would run code; readers differ in what they let a file do."""
    try:
        with open(yaml_file, encoding="utf-8") as f:
            tags = [getattr(event, "tag", None) or "" for event in yaml.parse(f)]
    except yaml.YAMLError as e:
        raise ValueError(f"config file {yaml_file} is not valid yaml: {e}") from e
    for tag in tags:
        module = tag.removeprefix(_TAG_OF_NAMES).rpartition(".")[0]
        unknown = tag.startswith(_TAG_OF_NAMES) and module not in sys.modules  # would be imported
        if unknown or tag.startswith(_TAGS_OF_CODE):
            raise ValueError(
                f"config file {yaml_file} asks to run code ({tag.rpartition('2002:')[2]}), which "
                "no yaml file may; write it without this tag, or as a Python config."
            )


def _shorten(train: Any) -> None:
    """Apply ``train.fast_dev_run``: a run that only shows whether everything works."""
    train.max_iter = 20
    train.eval_period = 10
    train.log_period = 1
    train.checkpointer.period = 10


def _without_hint(checkpoint: str) -> str:
    """A checkpoint path without the ``?matching_heuristics=True`` of older configs.

    ``detrex.checkpoint`` knows the names of other libraries, so it needs no such hint.
    """
    return checkpoint if os.path.exists(checkpoint) else checkpoint.split("?", 1)[0]

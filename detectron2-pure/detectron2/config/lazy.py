"""Configs that are Python files, with objects described before they are made."""

from __future__ import annotations

import dataclasses
import inspect
import logging
import os
import uuid
from collections.abc import Callable, Mapping
from typing import Any

import cloudpickle
from detectron2.config._files import as_config, require_file, run_config_file
from detectron2.config._overrides import apply_overrides
from detectron2.config._to_py import config_to_py
from detectron2.config._yaml import dump_config, load_yaml
from detectron2.utils.file_io import PathManager
from detectron2.utils.registry import _convert_target_to_string
from omegaconf import DictConfig, ListConfig, OmegaConf

__all__ = ["LazyCall", "LazyConfig"]

logger = logging.getLogger(__name__)


class LazyCall:
    """Describes a call without making it: ``LazyCall(Conv2d)(in_channels=3, ...)``.

    The result is a ``DictConfig`` of the keyword arguments with the callable itself under
    ``_target_``; ``instantiate`` makes the call. The target may also be a dotted name, or
    itself lazy.
    """

    def __init__(self, target: Callable[..., Any] | str | Mapping[str, Any]) -> None:
        if not (callable(target) or isinstance(target, str | Mapping)):
            raise TypeError(
                f"LazyCall takes a callable, the dotted name of one, or a LazyCall; got {target!r}."
            )
        self._target = target

    def __call__(self, **kwargs: Any) -> DictConfig:
        target = self._target
        if inspect.isclass(target) and (dataclasses.is_dataclass(target) or target is dict):
            # omegaconf would take these types themselves as a description of a config.
            target = _convert_target_to_string(target)
        content = {"_target_": target, **kwargs}
        return DictConfig(content=content, flags={"allow_objects": True})


class LazyConfig:
    """Load, override, save and show configs made of ``LazyCall`` and plain values."""

    @staticmethod
    def load_rel(filename: str, keys: str | tuple[str, ...] | None = None) -> Any:
        """Like ``load``, with a path relative to the file that calls this."""
        caller = inspect.stack()[1].filename
        if caller.startswith("<"):
            raise ValueError(f"load_rel({filename!r}) needs a caller in a file, not in {caller}.")
        return LazyConfig.load(os.path.join(os.path.dirname(caller), filename), keys)

    @staticmethod
    def load(filename: str, keys: str | tuple[str, ...] | None = None) -> Any:
        """Load a ``.py`` or ``.yaml`` config.

        Args:
            filename: path of the file.
            keys: the top-level name, or tuple of names, to return instead of the whole.

        Returns:
            A ``DictConfig`` of the top-level dictionaries and configs whose names do not start
            with an underscore (of yaml: everything). With ``keys`` the value, or a tuple of
            the values, of any type.

        Raises:
            FileNotFoundError: there is no such file; near-by ones are named.
            ConfigError: the file failed, at the file and line that it names.
        """
        filename = os.fspath(filename).replace("/./", "/")
        suffix = os.path.splitext(filename)[1]
        if suffix not in (".py", ".yaml", ".yml"):
            raise ValueError(f"Config file {filename} has to be a .py, .yaml or .yml file.")
        require_file(filename)
        if suffix == ".py":
            content: Any = vars(run_config_file(filename))
        else:
            with PathManager.open(filename, "r", encoding="utf-8") as f:
                content = load_yaml(f.read(), filename)
            content = OmegaConf.create(content, flags={"allow_objects": True})
        if keys is not None:
            return _select(content, keys, filename)
        return _public_configs(content) if suffix == ".py" else content

    @staticmethod
    def save(cfg: DictConfig | ListConfig, filename: str) -> None:
        """Write ``cfg`` as yaml, whole or not at all.

        Live objects that yaml cannot hold, such as lambdas, are written as readable text, and
        ``{filename}.pkl`` then holds the whole config (by cloudpickle, loading it runs code).
        """
        text, lost = dump_config(cfg)
        _write(filename, text.encode())
        pickled = f"{filename}.pkl"
        if not lost:
            return
        logger.warning(
            "%s is readable but cannot be loaded again: yaml cannot hold %s.", filename, lost[0]
        )
        try:
            _write(pickled, cloudpickle.dumps(cfg))
        except Exception as e:  # whatever an object's own pickling code raises
            logger.warning("The config could not be pickled to %s either: %s", pickled, e)
            return
        logger.warning("The whole config is pickled in %s.", pickled)

    @staticmethod
    def apply_overrides(cfg: DictConfig, overrides: list[str]) -> DictConfig:
        """Apply command line overrides in place, all of them or, if one is wrong, none.

        ``a.b=1`` changes a key that exists, or gives an argument that the ``_target_`` of
        ``a`` takes (by ``**kwargs``, unless its name is almost a known one); ``+a.c=1`` adds a
        key; ``~a.b`` removes one; ``a.0.b=1`` reaches into lists. Values follow hydra's
        grammar: numbers, ``true``, ``null``, ``[1,2]``, ``{x: 1}``, ``'quoted text'``. A
        dictionary is merged into a dictionary.

        Returns:
            ``cfg`` itself.

        Raises:
            ConfigKeyError: no such key; the nearest ones and the way out are named.
            ValueError: a text is not an override, or its value does not fit there.
        """
        return apply_overrides(cfg, overrides)

    @staticmethod
    def to_py(cfg: DictConfig | ListConfig, prefix: str = "cfg.") -> str:
        """``cfg`` as Python-like text with one assignment per line, to read, not to run."""
        return config_to_py(cfg, prefix)


def _select(content: Mapping[str, Any], keys: str | tuple[str, ...], filename: str) -> Any:
    missing = [k for k in ([keys] if isinstance(keys, str) else keys) if k not in content]
    if missing:
        public = [str(k) for k in content if not str(k).startswith("_")]
        raise KeyError(f"Config file {filename} has no {missing[0]!r}; it has {', '.join(public)}.")
    if isinstance(keys, str):
        return as_config(content[keys])
    return tuple(as_config(content[key]) for key in keys)


def _public_configs(content: Mapping[str, Any]) -> DictConfig:
    configs = {
        name: as_config(value)
        for name, value in content.items()
        if isinstance(value, DictConfig | ListConfig | dict) and not name.startswith("_")
    }
    return DictConfig(configs, flags={"allow_objects": True})


def _write(filename: str, content: bytes) -> None:
    """Write to a temporary file beside ``filename``, then move it into place."""
    part = f"{filename}.{uuid.uuid4().hex[:8]}.part"
    try:
        with PathManager.open(part, "wb") as f:
            f.write(content)
        PathManager.mv(part, filename) if "://" in filename else os.replace(part, filename)
    except BaseException:
        if PathManager.isfile(part):
            PathManager.rm(part)
        raise

"""Turn a description of an object into the object."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from detectron2.config.errors import ConfigError, describe, located
from detectron2.utils.registry import _convert_target_to_string, locate
from omegaconf import DictConfig, ListConfig, OmegaConf

__all__ = ["dump_dataclass", "instantiate"]


def dump_dataclass(obj: Any) -> dict[str, Any]:
    """The dictionary from which ``instantiate`` makes an equal dataclass instance.

    Dataclasses inside its fields, also inside their lists and tuples, are dumped likewise.
    """
    if not dataclasses.is_dataclass(obj) or isinstance(obj, type):
        raise TypeError(f"dump_dataclass() takes an instance of a dataclass, not {obj!r}.")
    fields = {f.name: _dump(getattr(obj, f.name)) for f in dataclasses.fields(obj)}
    return {"_target_": _convert_target_to_string(type(obj)), **fields}


def _dump(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dump_dataclass(value)
    if isinstance(value, list | tuple):
        return [_dump(v) for v in value]
    return value


def instantiate(cfg: Any) -> Any:
    """Call the ``_target_`` of ``cfg`` with its other entries, depth first.

    Arguments that have a ``_target_`` of their own are instantiated before. A list becomes a
    list and a ``ListConfig`` a ``ListConfig`` of the instantiated elements; a structured config
    becomes its dataclass. Anything else, such as a mapping without ``_target_``, is returned
    unchanged: arguments reach the callee as ``DictConfig`` and ``ListConfig``. With
    ``_recursive_=False`` beside a ``_target_`` its arguments are not instantiated.

    Raises:
        ConfigError: a target cannot be found or called, or raised; the message names it and
            its place in the config, and it can be caught as the original type, its cause.
    """
    if isinstance(cfg, ListConfig):
        return ListConfig([instantiate(x) for x in cfg], flags={"allow_objects": True})
    if isinstance(cfg, list):
        # Tuples stay untouched: namedtuples could not be rebuilt from their elements.
        return [instantiate(x) for x in cfg]
    if isinstance(cfg, DictConfig) and dataclasses.is_dataclass(OmegaConf.get_type(cfg)):
        return OmegaConf.to_object(cfg)
    if isinstance(cfg, Mapping) and "_target_" in cfg:
        return _call(cfg)
    return cfg


def _call(cfg: Mapping[str, Any]) -> Any:
    arguments = dict(cfg.items())
    target, name = _resolve(instantiate(arguments.pop("_target_")), cfg)
    if arguments.pop("_recursive_", True):
        arguments = {key: instantiate(value) for key, value in arguments.items()}
    try:
        return target(**arguments)
    except ConfigError:
        raise
    except Exception as e:
        message = f"Cannot instantiate {name}{_place(cfg)}: {describe(e)}"
        raise located(e, message) from e


def _resolve(target: Any, cfg: Mapping[str, Any]) -> tuple[Callable[..., Any], str]:
    """The callable that a ``_target_`` stands for, and its name."""
    name = target if isinstance(target, str) else target_name(target)
    if isinstance(target, str):
        try:
            target = locate(target)
        except ImportError as e:
            raise located(e, f"Cannot find _target_ {name!r}{_place(cfg)}: {e}") from e
    if not callable(target):
        kind = type(target).__name__
        error = TypeError(f"_target_ {name}{_place(cfg)} is a {kind}, which cannot be called.")
        raise located(error, str(error))
    return target, name


def target_name(target: Any) -> str:
    """How messages call a target: its dotted name where it has one."""
    try:
        return _convert_target_to_string(target)
    except AttributeError:
        return repr(target)


def _place(cfg: Mapping[str, Any]) -> str:
    """`` (model.backbone in the config)`` for a node below the top level."""
    parent = cfg._get_parent() if isinstance(cfg, DictConfig) else None
    if not isinstance(cfg, DictConfig) or parent is None:
        return ""
    return f" ({parent._get_full_key(cfg._key())} in the config)"

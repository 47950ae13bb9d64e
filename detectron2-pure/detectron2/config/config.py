"""Functions and classes whose arguments can come from a config object."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import IO, Any, NoReturn

from detectron2._left_out import FULL_PACKAGE
from detectron2.utils.file_io import PathManager
from fvcore.common.config import CfgNode as _CfgNode
from omegaconf import DictConfig

__all__ = ["CfgNode", "configurable", "downgrade_config", "get_cfg", "upgrade_config"]


class CfgNode(_CfgNode):
    """A yacs node whose files may be at any path that ``PathManager`` knows."""

    @classmethod
    def _open_cfg(cls, filename: str) -> IO[str]:
        return PathManager.open(filename, "r")


def get_cfg(*args: Any, **kwargs: Any) -> NoReturn:
    """Not part of this package: calling it says what to use.

    It can be imported, since scripts and test-suites do so beside what they need.
    """
    raise NotImplementedError(
        "detectron2's yacs configuration tree is not part of detectron2-pure; use a LazyConfig, or "
        f"install the full detectron2 ({FULL_PACKAGE})."
    )


upgrade_config = downgrade_config = get_cfg  # between versions of that tree


def configurable(
    init_func: Callable[..., Any] | None = None,
    *,
    from_config: Callable[..., dict[str, Any]] | None = None,
) -> Any:
    """Let an ``__init__`` or a function also be called with one config object.

    Explicit arguments go straight through. If the first argument, or the keyword ``cfg``, is
    a ``CfgNode`` or ``DictConfig``, then ``from_config(cfg, ...)`` translates the call.

    Use ``@configurable`` on ``__init__`` of a class with a classmethod ``from_config``, or
    ``@configurable(from_config=f)`` on a function, where ``f`` becomes its ``from_config``
    attribute. ``from_config`` returns keyword arguments; what it does not accept itself is
    passed on to the decorated callable.
    """
    if init_func is not None:
        if not inspect.isfunction(init_func) or init_func.__name__ != "__init__":
            raise AssertionError(
                "Incorrect use of @configurable: without arguments it decorates __init__ only; "
                "functions need @configurable(from_config=...)."
            )
        return _configurable_init(init_func)
    if from_config is None:
        return configurable
    if not inspect.isfunction(from_config):
        raise AssertionError(f"from_config of @configurable is not a function: {from_config!r}.")
    return functools.partial(_configurable_function, from_config)


def _configurable_init(init_func: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(init_func)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> None:
        # Asked for in all cases: who forgets it should not have to call with a config to notice.
        from_config = _from_config_of(type(self))
        if _called_with_cfg(*args, **kwargs):
            kwargs = _get_args_from_config(from_config, *args, **kwargs)
            args = ()
        init_func(self, *args, **kwargs)

    return wrapped


def _from_config_of(cls: type) -> Callable[..., dict[str, Any]]:
    from_config = getattr(cls, "from_config", None)
    if from_config is None:
        raise AttributeError(f"{cls.__name__} uses @configurable and needs a 'from_config'.")
    if not inspect.ismethod(from_config):
        raise TypeError(f"{cls.__name__}.from_config has to be a classmethod.")
    return from_config


def _configurable_function(
    from_config: Callable[..., dict[str, Any]], function: Callable[..., Any]
) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if _called_with_cfg(*args, **kwargs):
            return function(**_get_args_from_config(from_config, *args, **kwargs))
        return function(*args, **kwargs)

    wrapped.from_config = from_config  # type: ignore[attr-defined]
    return wrapped


def _called_with_cfg(*args: Any, **kwargs: Any) -> bool:
    first = args[0] if args else kwargs.get("cfg")
    return isinstance(first, _CfgNode | DictConfig)


def _get_args_from_config(
    from_config: Callable[..., dict[str, Any]], *args: Any, **kwargs: Any
) -> dict[str, Any]:
    """Keyword arguments made by ``from_config``, and those it does not know of."""
    parameters = inspect.signature(from_config).parameters
    if next(iter(parameters), None) != "cfg":
        name = getattr(from_config, "__qualname__", repr(from_config))
        raise TypeError(f"The first argument of {name} has to be 'cfg'.")
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return from_config(*args, **kwargs)
    known = {key: kwargs.pop(key) for key in list(kwargs) if key in parameters}
    return {**from_config(*args, **known), **kwargs}

"""Stand-ins for what needs an optional dependency: importing them works, using them explains."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

__all__ = ["create_dummy_class", "create_dummy_func"]


def _message(name: str, dependency: str | list[str] | tuple[str, ...], message: str) -> str:
    needed = dependency if isinstance(dependency, str) else ", ".join(dependency)
    return f"Cannot import {needed!r}, therefore {name!r} is not available. {message}".rstrip()


def create_dummy_class(klass: str, dependency: str, message: str = "") -> type:
    """A class that raises ImportError when it is instantiated or an attribute is asked for.

    Args:
        klass: name of the class.
        dependency: what could not be imported.
        message: more help.
    """
    text = _message(klass, dependency, message)

    class _DummyMeta(type):
        def __getattr__(cls, name: str) -> NoReturn:
            raise ImportError(text)

    class _Dummy(metaclass=_DummyMeta):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            raise ImportError(text)

    return _Dummy


def create_dummy_func(
    func: str, dependency: str | list[str] | tuple[str, ...], message: str = ""
) -> Callable[..., NoReturn]:
    """A function that raises ImportError when it is called.

    Args:
        func: name of the function.
        dependency: what could not be imported.
        message: more help.
    """
    text = _message(func, dependency, message)

    def _dummy(*args: Any, **kwargs: Any) -> NoReturn:
        raise ImportError(text)

    return _dummy

"""Errors that say where in a configuration something went wrong."""

from __future__ import annotations

from typing import Any


class ConfigError(Exception):
    """A failure with its place in a configuration; the original exception is its cause."""

    def __init__(self, message: str) -> None:
        Exception.__init__(self, message)
        self.message = message

    def __str__(self) -> str:
        # KeyError, one of the types this is mixed with, would print its argument's repr.
        return self.message


def located(error: Exception, message: str) -> Exception:
    """A ``ConfigError`` with ``message`` that callers can still catch as ``type(error)``.

    Raise it ``from error``.
    """
    result: Any
    kind = type(error)
    try:
        mixed = type("ConfigError", (ConfigError, kind), {"__module__": __name__})
        result = mixed(message)
    except TypeError:
        # Two C-level exception layouts cannot always be combined.
        return ConfigError(message)
    if isinstance(error, SyntaxError):
        # Tracebacks print these attributes of a SyntaxError instead of its text.
        result.msg = message
        for name in ("filename", "lineno", "offset", "text"):
            setattr(result, name, getattr(error, name))
    return result


def describe(error: BaseException) -> str:
    """``TypeName: text`` on one line, as the last line of a traceback has it."""
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__

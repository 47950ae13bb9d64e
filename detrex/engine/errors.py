"""One sentence instead of a traceback for what a user can put right."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from omegaconf.errors import OmegaConfBaseException

from detrex.checkpoint import CheckpointError

__all__ = ["SetupError", "setup_errors", "usage_errors"]

# What wrong paths, keys, values and files raise. Others are mistakes in code: their traceback is
# what one needs to see.
_USER_ERRORS = (
    AssertionError,
    CheckpointError,
    ImportError,
    KeyError,
    OSError,
    OmegaConfBaseException,
    ValueError,
)


class SetupError(Exception):
    """A run cannot start, for a reason that its message explains completely."""


@contextmanager
def setup_errors() -> Iterator[None]:
    """Turn errors with a self-contained message into ``SetupError``, keeping them as its cause."""
    try:
        yield
    except _USER_ERRORS as e:
        raise SetupError(_message(e)) from e


@contextmanager
def usage_errors() -> Iterator[None]:
    """End the program with exit code 2 and one sentence for what a user can put right."""
    try:
        with setup_errors():
            yield
    except SetupError as e:
        print(f"error: {e}", file=sys.stderr)
        raise SystemExit(2) from e


def _message(error: BaseException) -> str:
    if isinstance(error, KeyError) and len(error.args) == 1:
        # str() of a KeyError puts its message in quotes.
        return str(error.args[0])
    text = str(error)
    return text if text else f"{type(error).__name__} without a message."

"""Reports of predictions that aren't finite, from where they show to whoever knows the images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True)
class NonFinite:
    """Predictions that are NaN or infinite.

    Attributes:
        images: by layer, their places in the batch.
        times: how often there have been any, this time included.
    """

    images: dict[str, list[int]]
    times: int


Handler = Callable[[NonFinite], None]

_HANDLER: ContextVar[Handler | None] = ContextVar("nonfinite_handler", default=None)


@contextmanager
def nonfinite_handled_by(handler: Handler) -> Iterator[None]:
    """Give the reports to ``handler`` inside."""
    token = _HANDLER.set(handler)
    try:
        yield
    finally:
        _HANDLER.reset(token)


def hand_over(found: NonFinite) -> bool:
    """Report to the handler; False if there is none."""
    handler = _HANDLER.get()
    if handler is not None:
        handler(found)
    return handler is not None

"""Whether pretrained weights are worth fetching: not if others are about to overwrite them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_SKIPPED: ContextVar[bool] = ContextVar("pretrained_skipped", default=False)


@contextmanager
def skip_pretrained() -> Iterator[None]:
    """Build backbones inside without their pretrained weights: a checkpoint will fill them."""
    token = _SKIPPED.set(True)
    try:
        yield
    finally:
        _SKIPPED.reset(token)


def pretrained_skipped() -> bool:
    """Whether a backbone that is being built should leave its pretrained weights where they are."""
    return _SKIPPED.get()

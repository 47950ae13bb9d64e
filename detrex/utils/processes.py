"""Sums over all processes of a training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch.distributed as dist
from torch import Tensor

_SINGLE: ContextVar[bool] = ContextVar("single_process", default=False)


@contextmanager
def single_process() -> Iterator[None]:
    """Let this process compute without the others inside; they do something else meanwhile."""
    token = _SINGLE.set(True)
    try:
        yield
    finally:
        _SINGLE.reset(token)


def sum_over_processes(x: Tensor) -> tuple[Tensor, int]:
    """The sum over all processes, and their number; ``x`` may be written to."""
    if _SINGLE.get() or not (dist.is_available() and dist.is_initialized()):
        return x, 1
    dist.all_reduce(x)
    return x, dist.get_world_size()

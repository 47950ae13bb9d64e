"""Going on after the GPU is out of memory."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

__all__ = ["retry_if_cuda_oom"]

Result = TypeVar("Result")


@contextmanager
def _ignore_torch_cuda_oom() -> Iterator[None]:
    """Swallow out-of-memory errors of CUDA, and only those."""
    try:
        yield
    except RuntimeError as e:
        # Compiled extensions raise plain RuntimeErrors with the same text.
        is_oom = isinstance(e, torch.cuda.OutOfMemoryError) or "CUDA out of memory" in str(e)
        if not is_oom:
            raise
        logging.getLogger(__name__).debug("CUDA ran out of memory.", exc_info=True)


def _to_cpu(value: Any) -> Any:
    """CPU copy of a CUDA tensor (or of anything with ``.to`` and a CUDA ``device``)."""
    device = getattr(value, "device", None)
    return value.to(device="cpu") if getattr(device, "type", None) == "cuda" else value


def retry_if_cuda_oom(func: Callable[..., Result]) -> Callable[..., Result]:
    """Make a function survive CUDA out-of-memory errors.

    It is tried as it is, then after emptying torch's cache, then with its tensor arguments on
    the CPU (its results are then on the CPU too). It may run several times, so it must be
    stateless. Tensors inside containers are not moved.

    Args:
        func: a function of tensors or objects with ``.to(device=...)``.
    """

    @functools.wraps(func)
    def wrapped(*args: Any, **kwargs: Any) -> Result:
        with _ignore_torch_cuda_oom():
            return func(*args, **kwargs)
        torch.cuda.empty_cache()
        with _ignore_torch_cuda_oom():
            return func(*args, **kwargs)
        name = getattr(func, "__qualname__", repr(func))
        logging.getLogger(__name__).info(f"CUDA is out of memory: running {name} on the CPU.")
        cpu_kwargs = {name: _to_cpu(value) for name, value in kwargs.items()}
        return func(*(_to_cpu(value) for value in args), **cpu_kwargs)

    return wrapped

"""Sending functions to other processes that plain pickle refuses."""

from __future__ import annotations

from typing import Any

import cloudpickle


def _unwrap_from_bytes(data: bytes) -> PicklableWrapper:
    return PicklableWrapper(cloudpickle.loads(data))


class PicklableWrapper:
    """Make an object picklable with cloudpickle and otherwise behave like it.

    Lambdas and local functions, common as dataset mappers, cross the border to worker
    processes this way. Calls and attribute reads go to the wrapped object.

    Args:
        obj: what to wrap; a wrapper is unwrapped first.
    """

    _obj: Any

    def __init__(self, obj: Any) -> None:
        while isinstance(obj, PicklableWrapper):
            obj = obj._obj
        self._obj = obj

    def __reduce__(self) -> tuple[Any, tuple[bytes]]:
        return _unwrap_from_bytes, (cloudpickle.dumps(self._obj),)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._obj(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name == "_obj":  # not there yet while copy/pickle rebuilds the wrapper
            raise AttributeError(name)
        return getattr(self._obj, name)

"""Whether a model is being traced by torch.fx, where values cannot be looked at."""

from __future__ import annotations

import torch
from torch.fx._symbolic_trace import is_fx_tracing

__all__ = ["assert_fx_safe", "is_fx_tracing"]


def assert_fx_safe(condition: bool | torch.Tensor, message: str) -> None:
    """``assert condition, message``, skipped while torch traces or scripts.

    Args:
        condition: what has to be true; in a trace it may be a placeholder without a value.
        message: the text of the error.

    Raises:
        AssertionError: the condition is false.
    """
    if torch.jit.is_scripting() or is_fx_tracing() or isinstance(condition, torch.fx.Proxy):
        return
    assert condition, message

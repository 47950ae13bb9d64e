"""The exponential moving average of weights (Polyak averaging), as arithmetic on tensors."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


@torch.no_grad()
def average_into(pairs: Iterable[tuple[Tensor, Tensor]], decay: float) -> None:
    """Move averages towards present values: ``average = decay * average + (1 - decay) * value``.

    Integers (counters) are copied, since an average of them would be cut off.

    Args:
        pairs: an average, changed in place, and the present value, which may be on another device.
        decay: between 0 (no memory) and 1 (never changes).
    """
    for average, value in pairs:
        value = value.detach().to(average.device)
        if average.is_floating_point():
            average.lerp_(value, 1 - decay)
        else:
            average.copy_(value)

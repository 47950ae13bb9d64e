"""Exponential moving average of a model's weights (Polyak averaging)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from detectron2.engine import HookBase
from torch import Tensor, nn

from detrex.utils.averaging import average_into

__all__ = ["EmaHook", "ModelEma"]


class ModelEma:
    """Shadow weights: after each step ``shadow = decay * shadow + (1 - decay) * weight``.

    Floating point parameters and buffers are averaged; integer buffers (counters) are copied,
    since an average of them would be cut off. The average runs in the weights' own dtype.

    Args:
        model: the model whose weights are averaged (not its DDP wrapper).
        decay: between 0 (no memory) and 1 (never changes).
        device: where the shadow lives; "" is where the model is.
    """

    def __init__(self, model: nn.Module, decay: float = 0.999, device: str = "") -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"train.model_ema.decay must be in [0, 1), got {decay}.")
        self.model = model
        self.decay = decay
        self.device = device
        self.shadow = {name: self._copy(value) for name, value in model.state_dict().items()}

    def update(self) -> None:
        """Take in the model's present weights."""
        now = self.model.state_dict()
        average_into(((self.shadow[name], value) for name, value in now.items()), self.decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Run a block with the model holding the averaged weights."""
        own = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        self.model.load_state_dict(self.shadow)
        try:
            yield
        finally:
            self.model.load_state_dict(own)

    def state_dict(self) -> dict[str, Tensor]:
        """The averaged weights, under the model's names."""
        return self.shadow

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over averaged weights.

        Raises:
            ValueError: the names are not those of the model.
        """
        differing = state_dict.keys() ^ self.shadow.keys()
        if differing:
            raise ValueError(
                f"the averaged weights belong to another model: {len(differing)} names differ, "
                f"for example {min(differing)}."
            )
        with torch.no_grad():
            for name, value in state_dict.items():
                self.shadow[name].copy_(value)

    def _copy(self, value: Tensor) -> Tensor:
        copy = value.detach().clone()
        return copy.to(self.device) if self.device else copy


class EmaHook(HookBase):
    """Updates a ``ModelEma`` after each iteration."""

    def __init__(self, ema: ModelEma) -> None:
        self.ema = ema

    def after_step(self) -> None:
        self.ema.update()

"""Learning rates over training, on top of fvcore's parameter schedulers."""

from __future__ import annotations

from typing import Any

import torch
from fvcore.common.param_scheduler import (
    CompositeParamScheduler,
    ConstantParamScheduler,
    LinearParamScheduler,
    ParamScheduler,
)
from torch.optim.lr_scheduler import LRScheduler

__all__ = ["LRMultiplier", "WarmupParamScheduler"]


class WarmupParamScheduler(CompositeParamScheduler):
    """Another scheduler with a warm-up at its start.

    The warm-up goes from ``warmup_factor * scheduler(0)`` to the value that the scheduler has
    where the warm-up ends.

    Args:
        scheduler: the schedule without warm-up.
        warmup_factor: where to start, relative to ``scheduler(0)``.
        warmup_length: length of the warm-up as a fraction of training, in [0, 1).
        warmup_method: "linear", or "constant" to stay at the start value.
        rescale_interval: squeeze the whole schedule into what is left after the warm-up, instead
            of replacing its beginning.

    Raises:
        ValueError: an unknown method, or a length that is not a fraction of training.
    """

    def __init__(
        self,
        scheduler: ParamScheduler,
        warmup_factor: float,
        warmup_length: float,
        warmup_method: str = "linear",
        rescale_interval: bool = False,
    ) -> None:
        if not 0 <= warmup_length < 1:
            raise ValueError(
                f"warmup_length is a fraction of training in [0, 1), not {warmup_length}. Divide "
                "the iterations of the warm-up by those of the training."
            )
        start_value = warmup_factor * scheduler(0.0)
        # With the interval rescaled, the schedule begins where the warm-up ends.
        end_value = scheduler(0.0 if rescale_interval else warmup_length)
        warmup: ParamScheduler
        if warmup_method == "constant":
            warmup = ConstantParamScheduler(start_value)
        elif warmup_method == "linear":
            warmup = LinearParamScheduler(start_value, end_value)
        else:
            raise ValueError(f'warmup_method is "linear" or "constant", not {warmup_method!r}.')
        super().__init__(
            [warmup, scheduler],
            interval_scaling=["rescaled", "rescaled" if rescale_interval else "fixed"],
            lengths=[warmup_length, 1 - warmup_length],
        )


class LRMultiplier(LRScheduler):
    """A torch scheduler that multiplies each group's learning rate by a ``ParamScheduler``.

    Step it once per iteration. Its state has no schedule in it: a training can be resumed with
    another one.

    Args:
        optimizer: its learning rates are those for a factor of 1.
        multiplier: gives the factor from the fraction of training that is done.
        max_iter: iterations of the whole training.
        last_iter: the last finished iteration; -1 for a new training.

    Raises:
        ValueError: the multiplier is no fvcore ParamScheduler.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        multiplier: ParamScheduler,
        max_iter: int,
        last_iter: int = -1,
    ) -> None:
        if not isinstance(multiplier, ParamScheduler):
            raise ValueError(
                "LRMultiplier(multiplier=) must be an instance of fvcore ParamScheduler. Got "
                f"{multiplier!r} instead."
            )
        self._multiplier = multiplier
        self._max_iter = max_iter
        super().__init__(optimizer, last_epoch=last_iter)

    def state_dict(self) -> dict[str, Any]:
        return {"base_lrs": self.base_lrs, "last_epoch": self.last_epoch}

    def get_lr(self) -> list[float | torch.Tensor]:
        """The learning rate of each group at the current iteration."""
        # Schedulers are defined on [0, 1), and some refuse 1, the step after the last iteration.
        # They add an epsilon before they round.
        end = 1 - 2 * ParamScheduler.WHERE_EPSILON
        where = min(self.last_epoch / self._max_iter, end)
        factor = self._multiplier(where)
        return [base_lr * factor for base_lr in self.base_lrs]

"""Averaged weights that live on the model, for training loops of the public detrex.

Such a loop calls :func:`may_build_model_ema` on a model, gives :func:`may_get_ema_checkpointer` to
its checkpointer, registers an :class:`EMAHook`, and evaluates in
:func:`apply_model_ema_and_restore`. What it saves is ``ema_state``, as in checkpoints of
``tools/train_net.py``, whose own averages are :class:`detrex.engine.ModelEma`.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from detectron2.engine import HookBase
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from detrex.utils.averaging import average_into

__all__ = [
    "EMAHook",
    "EMAState",
    "EMAUpdater",
    "apply_model_ema",
    "apply_model_ema_and_restore",
    "get_model_ema_state",
    "may_build_model_ema",
    "may_get_ema_checkpointer",
]


class EMAState:
    """Weights and buffers by their names in a model, on a device of their own."""

    def __init__(self) -> None:
        self.state: dict[str, Tensor] = {}

    @classmethod
    def FromModel(cls, model: nn.Module, device: str | torch.device = "") -> EMAState:
        """A copy of a model's present weights; "" keeps their device."""
        found = cls()
        found.save_from(model, device)
        return found

    def save_from(self, model: nn.Module, device: str | torch.device = "") -> None:
        """Take a copy of a model's present weights; "" keeps their device."""
        self.state = {
            name: value.detach().clone().to(device or value.device)
            for name, value in self.get_model_state_iterator(model)
        }

    @torch.no_grad()
    def apply_to(self, model: nn.Module) -> None:
        """Overwrite a model's weights with these.

        Raises:
            ValueError: it has weights that these lack; nothing is changed then.
        """
        own = dict(self.get_model_state_iterator(model))
        missing = [name for name in own if name not in self.state]
        if missing:
            raise ValueError(
                f"The averaged weights are not this model's: they lack {len(missing)} of its "
                f"weights, for example {missing[0]}. Build them with may_build_model_ema and "
                "register an EMAHook, or load a checkpoint that has them."
            )
        for name, value in own.items():
            value.copy_(self.state[name])

    @contextmanager
    def apply_and_restore(self, model: nn.Module) -> Iterator[EMAState]:
        """Lend these weights to a model for a block; gives what it had."""
        own = EMAState.FromModel(model, self.device)
        self.apply_to(model)
        try:
            yield own
        finally:
            own.apply_to(model)

    def get_ema_model(self, model: nn.Module) -> nn.Module:
        """A copy of a model with these weights."""
        averaged = copy.deepcopy(model)
        self.apply_to(averaged)
        return averaged

    @property
    def device(self) -> torch.device | str:
        """Where the weights are; "" if there are none yet."""
        return next((value.device for value in self.state.values()), "")

    def to(self, device: str | torch.device) -> EMAState:
        """Move the weights, in place."""
        self.state = {name: value.to(device) for name, value in self.state.items()}
        return self

    def has_inited(self) -> bool:
        """Whether there are weights."""
        return bool(self.state)

    def clear(self) -> EMAState:
        """Forget the weights, in place."""
        self.state = {}
        return self

    def get_model_state_iterator(self, model: nn.Module) -> Iterator[tuple[str, Tensor]]:
        """Names and values of what is averaged: parameters once each, and buffers in files."""
        saved = model.state_dict().keys()
        buffers = ((name, value) for name, value in model.named_buffers() if name in saved)
        return itertools.chain(model.named_parameters(), buffers)

    def state_dict(self) -> dict[str, Tensor]:
        """The weights by name."""
        return self.state

    def load_state_dict(self, state_dict: Mapping[str, Tensor], strict: bool = True) -> None:
        """Take over weights, to the device of those that are here.

        Raises:
            ValueError: with ``strict``, weights that are here are not in ``state_dict``.
        """
        missing = [name for name in self.state if name not in state_dict]
        if missing and strict:
            raise ValueError(
                f"The averaged weights in the file are of another model: {len(missing)} are "
                f"missing, for example {missing[0]}."
            )
        device = self.device
        self.state = {
            k: value.clone().to(device or value.device) for k, value in state_dict.items()
        }


class EMAUpdater:
    """Keeps ``state`` at ``decay * state + (1 - decay) * weights`` of a model; counters are copied.

    Args:
        state: the averages.
        decay: between 0 (no memory) and 1 (never changes).
        device: where averages live that :meth:`init_state` makes; "" is where the model is.
    """

    def __init__(self, state: EMAState, decay: float = 0.999, device: str = "") -> None:
        self.state = state
        self.decay = decay
        self.device = device

    def init_state(self, model: nn.Module) -> None:
        """Start from a model's present weights."""
        self.state.save_from(model, self.device)

    def update(self, model: nn.Module) -> None:
        """Take in a model's present weights.

        Raises:
            RuntimeError: there is nothing to average with.
        """
        if not self.state.has_inited():
            raise RuntimeError("There are no averaged weights yet; call init_state(model) before.")
        names, values = zip(*self.state.get_model_state_iterator(model), strict=True)
        averages = [self.state.state[name] for name in names]
        self._ema_avg(values, averages, self.decay)

    def _ema_avg(self, values: Sequence[Tensor], averages: Sequence[Tensor], decay: float) -> None:
        """Move averages, in place, towards present values."""
        average_into(zip(averages, values, strict=True), decay)


class EMAHook(HookBase):
    """Averages the weights of a model after each iteration.

    Args:
        cfg: a whole config; ``train.model_ema.decay`` and ``device`` are read.
        model: the model, in its DDP wrapper or not, that :func:`may_build_model_ema` was called on.
    """

    def __init__(self, cfg: DictConfig, model: nn.Module) -> None:
        self.model = _without_ddp(model)
        self.ema = get_model_ema_state(model)
        options = cfg.train.model_ema
        self.device = options.device
        self.ema_updater = EMAUpdater(self.ema, decay=options.decay, device=options.device)

    def before_train(self) -> None:
        """Start from the model's weights, unless a checkpoint brought averages."""
        if not self.ema.has_inited():
            self.ema_updater.init_state(self.model)
        elif self.device:
            self.ema.to(self.device)

    def after_step(self) -> None:
        self.ema_updater.update(self.model)


def may_build_model_ema(cfg: DictConfig, model: nn.Module) -> None:
    """Give a model its (yet empty) ``ema_state``, if ``train.model_ema.enabled``."""
    if cfg.train.model_ema.enabled:
        _without_ddp(model).ema_state = EMAState()  # type: ignore[assignment]


def may_get_ema_checkpointer(cfg: DictConfig, model: nn.Module) -> dict[str, Any]:
    """What a checkpointer is to save beside a model: ``ema_state``, if it has one by the config."""
    if not cfg.train.model_ema.enabled:
        return {}
    return {"ema_state": get_model_ema_state(model)}


def get_model_ema_state(model: nn.Module) -> EMAState:
    """The averaged weights of a model, in its DDP wrapper or not.

    Raises:
        ValueError: it has none.
    """
    state = getattr(_without_ddp(model), "ema_state", None)
    if not isinstance(state, EMAState):
        raise ValueError(
            "This model has no averaged weights: call may_build_model_ema(cfg, model) before, "
            "with train.model_ema.enabled=true."
        )
    return state


def apply_model_ema(
    model: nn.Module, state: EMAState | None = None, save_current: bool = False
) -> EMAState | None:
    """Overwrite a model's weights with averaged ones, by default its own.

    Returns:
        what it had, if ``save_current``.
    """
    model = _without_ddp(model)
    state = get_model_ema_state(model) if state is None else state
    own = EMAState.FromModel(model, state.device) if save_current else None
    state.apply_to(model)
    return own


@contextmanager
def apply_model_ema_and_restore(
    model: nn.Module, state: EMAState | None = None
) -> Iterator[EMAState]:
    """Lend averaged weights, by default its own, to a model for a block; gives what it had."""
    model = _without_ddp(model)
    state = get_model_ema_state(model) if state is None else state
    with state.apply_and_restore(model) as own:
        yield own


def _without_ddp(model: nn.Module) -> nn.Module:
    return model.module if isinstance(model, DistributedDataParallel) else model

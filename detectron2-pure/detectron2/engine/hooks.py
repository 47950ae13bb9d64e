"""Hooks for ``TrainerBase``: timing, learning rate, checkpoints, evaluation, writing, profiling.

The usual order is ``IterationTimer``, ``LRScheduler``, ``PeriodicCheckpointer``, ``EvalHook``,
``BestCheckpointer``, ``PeriodicWriter``: a checkpoint then holds the scheduler's state after the
step, and what an evaluation stores is written in the same iteration.
"""

from __future__ import annotations

import datetime
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from detectron2.engine.checkpoint_hooks import BestCheckpointer, PeriodicCheckpointer
from detectron2.engine.profile_hooks import AutogradProfiler, TorchMemoryStats, TorchProfiler
from detectron2.engine.trainer_base import HookBase, TrainerBase
from detectron2.solver.lr_scheduler import LRMultiplier
from detectron2.utils import comm
from detectron2.utils.env import preserve_rng_state
from detectron2.utils.events import EventWriter
from fvcore.common.param_scheduler import ParamScheduler
from fvcore.common.timer import Timer

__all__ = [
    "AutogradProfiler",
    "BestCheckpointer",
    "CallbackHook",
    "EvalHook",
    "IterationTimer",
    "LRScheduler",
    "PeriodicCheckpointer",
    "PeriodicWriter",
    "PreciseBN",
    "TorchMemoryStats",
    "TorchProfiler",
]

logger = logging.getLogger(__name__)


class CallbackHook(HookBase):
    """A hook made of functions that take the trainer.

    Args:
        before_train, after_train, before_step, after_step: called at these points, if given.
    """

    def __init__(
        self,
        *,
        before_train: Callable[[TrainerBase], None] | None = None,
        after_train: Callable[[TrainerBase], None] | None = None,
        before_step: Callable[[TrainerBase], None] | None = None,
        after_step: Callable[[TrainerBase], None] | None = None,
    ) -> None:
        self._before_train = before_train
        self._after_train = after_train
        self._before_step = before_step
        self._after_step = after_step

    def _call(self, function: Callable[[TrainerBase], None] | None) -> None:
        if function is not None:
            function(self.trainer)

    def before_train(self) -> None:
        self._call(self._before_train)

    def after_train(self) -> None:
        self._call(self._after_train)

    def before_step(self) -> None:
        self._call(self._before_step)

    def after_step(self) -> None:
        self._call(self._after_step)


class IterationTimer(HookBase):
    """Stores the seconds of each iteration as ``time`` and logs a summary at the end.

    ``time`` does not include what hooks do outside of ``run_step`` and the hooks before this
    one; register it first.

    Args:
        warmup_iter: iterations at the start that are not timed.
    """

    def __init__(self, warmup_iter: int = 3) -> None:
        self._warmup_iter = warmup_iter
        self._step_timer = Timer()
        self._total_timer = Timer()
        self._start_time = time.perf_counter()

    def before_train(self) -> None:
        self._start_time = time.perf_counter()
        self._total_timer.reset()
        self._total_timer.pause()

    def before_step(self) -> None:
        self._step_timer.reset()
        self._total_timer.resume()

    def after_step(self) -> None:
        done = self.trainer.iter - self.trainer.start_iter + 1
        if done > self._warmup_iter:
            self.trainer.storage.put_scalars(time=self._step_timer.seconds())
        else:
            self._start_time = time.perf_counter()
            self._total_timer.reset()
        if not self._total_timer.is_paused():
            self._total_timer.pause()

    def after_train(self) -> None:
        timed = self.trainer.iter - self.trainer.start_iter - self._warmup_iter
        if timed <= 0:
            return
        total = time.perf_counter() - self._start_time
        in_steps = self._total_timer.seconds()
        logger.info(
            f"Overall training speed: {timed} iterations in {_clock(in_steps)} "
            f"({in_steps / timed:.4f} s / it)"
        )
        logger.info(f"Total training time: {_clock(total)} ({_clock(total - in_steps)} on hooks)")


def _clock(seconds: float) -> str:
    return str(datetime.timedelta(seconds=int(seconds)))


class PeriodicWriter(HookBase):
    """Calls writers every so often, at the last iteration, and at the end.

    Args:
        writers: ``EventWriter`` objects; they are closed after training.
        period: in iterations.
    """

    def __init__(self, writers: Sequence[EventWriter], period: int = 20) -> None:
        for writer in writers:
            if not isinstance(writer, EventWriter):
                raise TypeError(f"PeriodicWriter takes EventWriter objects, not {writer!r}.")
        self._writers = writers
        self._period = period

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if done % self._period == 0 or done == self.trainer.max_iter:
            for writer in self._writers:
                writer.write()

    def after_train(self) -> None:
        for writer in self._writers:
            # An evaluation after the last iteration has stored something since after_step.
            writer.write()
            writer.close()


class LRScheduler(HookBase):
    """Steps a learning-rate scheduler and stores the rate as ``lr``.

    Args:
        optimizer: by default the trainer's.
        scheduler: a torch scheduler, or an fvcore ParamScheduler that gives the factor on the
            optimizer's learning rates; by default the trainer's ``scheduler``.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer | None = None,
        scheduler: torch.optim.lr_scheduler.LRScheduler | ParamScheduler | None = None,
    ) -> None:
        self._optimizer: Any = optimizer
        self._scheduler: Any = scheduler

    def before_train(self) -> None:
        trainer: Any = self.trainer
        self._optimizer = self._optimizer or trainer.optimizer
        if isinstance(self.scheduler, ParamScheduler):
            self._scheduler = LRMultiplier(
                self._optimizer,
                self.scheduler,
                self.trainer.max_iter,
                last_iter=self.trainer.iter - 1,
            )
        self._best_param_group_id = self.get_best_param_group_id(self._optimizer)

    @staticmethod
    def get_best_param_group_id(optimizer: torch.optim.Optimizer) -> int:
        """The parameter group whose learning rate stands for all in the log.

        That is the largest one; if every group has one parameter, one with the commonest rate.
        """
        groups = optimizer.param_groups
        sizes = [len(group["params"]) for group in groups]
        if max(sizes) > 1:
            return sizes.index(max(sizes))
        rates = [group.get("initial_lr", group["lr"]) for group in groups]
        return rates.index(Counter(rates).most_common(1)[0][0])

    def after_step(self) -> None:
        lr = self._optimizer.param_groups[self._best_param_group_id]["lr"]
        self.trainer.storage.put_scalar("lr", lr, smoothing_hint=False)
        self.scheduler.step()

    @property
    def scheduler(self) -> Any:
        """The scheduler in use."""
        trainer: Any = self.trainer
        return self._scheduler or trainer.scheduler

    def state_dict(self) -> dict[str, Any]:
        if isinstance(self.scheduler, torch.optim.lr_scheduler.LRScheduler):
            return self.scheduler.state_dict()
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        # A ParamScheduler has no state yet; before_train starts it at the right iteration.
        if isinstance(self.scheduler, torch.optim.lr_scheduler.LRScheduler):
            self.scheduler.load_state_dict(state)


class EvalHook(HookBase):
    """Runs an evaluation every so often and after a training that came to its end.

    The results are stored as metrics, nested dicts with names joined by "/". The evaluation does
    not touch training's random numbers.

    Args:
        eval_period: in iterations; 0 for only at the end.
        eval_function: takes nothing, returns a nested dict of floats or None. All ranks call it.
        eval_after_train: evaluate after the last iteration.
    """

    def __init__(
        self,
        eval_period: int,
        eval_function: Callable[[], Mapping[str, Any] | None],
        eval_after_train: bool = True,
    ) -> None:
        self._period = eval_period
        self._func = eval_function
        self._eval_after_train = eval_after_train

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        # The last iteration is left to after_train: never evaluate it twice.
        if self._period > 0 and done % self._period == 0 and done != self.trainer.max_iter:
            self._do_eval()

    def after_train(self) -> None:
        if self._eval_after_train and self.trainer.iter >= self.trainer.max_iter:
            self._do_eval()

    def _do_eval(self) -> None:
        with preserve_rng_state():
            results = self._func()
        if results:
            assert isinstance(results, Mapping), (
                f"The evaluation function must return a dict. Got {results!r} instead."
            )
            for name, value in _flatten(results).items():
                self.trainer.storage.put_scalar(name, value, smoothing_hint=False)
        # Ranks need different times to evaluate; none should time out in the next iteration.
        comm.synchronize()


def _flatten(results: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    flat: dict[str, float] = {}
    for name, value in results.items():
        if isinstance(value, Mapping):
            flat.update(_flatten(value, f"{prefix}{name}/"))
            continue
        try:
            flat[f"{prefix}{name}"] = float(value)
        except (TypeError, ValueError) as e:
            raise ValueError(
                "[EvalHook] eval_function should return a nested dict of float. "
                f"Got '{prefix}{name}: {value}' instead."
            ) from e
    return flat


class PreciseBN(HookBase):
    """Re-estimates BatchNorm statistics from many batches, with the weights as they are.

    Args:
        period: in iterations; 0 for only after the last one.
        model: its BatchNorm layers that are in training mode are updated.
        data_loader: gives the batches; not the training one, whose order it would change.
        num_iter: how many batches.
    """

    def __init__(
        self, period: int, model: torch.nn.Module, data_loader: Any, num_iter: int
    ) -> None:
        from fvcore.nn.precise_bn import get_bn_modules

        self._has_bn = bool(get_bn_modules(model))
        if not self._has_bn:
            logger.info("PreciseBN is off: the model has no BatchNorm in training mode.")
        self._period = period
        self._model = model
        self._data_loader = data_loader
        self._num_iter = num_iter
        self._data_iter: Any = None

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        is_due = self._period > 0 and done % self._period == 0
        if is_due or done == self.trainer.max_iter:
            self.update_stats()

    def update_stats(self) -> None:
        """Compute the statistics now."""
        from fvcore.nn.precise_bn import update_bn_stats

        if not self._has_bn:
            return
        if self._data_iter is None:
            self._data_iter = iter(self._data_loader)
        logger.info(f"Computing precise BatchNorm statistics from {self._num_iter} batches.")
        update_bn_stats(self._model, self._data_iter, self._num_iter)

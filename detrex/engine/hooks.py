"""Hooks that detectron2's engine lacks."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from detectron2.engine import HookBase, hooks
from detectron2.utils import comm
from fvcore.common.checkpoint import Checkpointer

__all__ = ["BestCheckpointer", "StopOnSignal", "TrainingStopped"]

logger = logging.getLogger(__name__)


class TrainingStopped(KeyboardInterrupt):
    """Training ended between two iterations because somebody asked for it."""


class BestCheckpointer(hooks.BestCheckpointer):
    """Saves the model whenever a metric is better than ever before, also before it was resumed.

    Args:
        eval_period: iterations between two evaluations.
        checkpointer: saves the file, ``model_best.pth``.
        metric: such as "bbox/AP"; more is better.
    """

    def __init__(self, eval_period: int, checkpointer: Checkpointer, metric: str) -> None:
        super().__init__(eval_period, checkpointer, metric)
        self.metric = metric

    def state_dict(self) -> dict[str, Any]:
        best = {"metric": self.metric, "value": self.best_metric, "iteration": self.best_iter}
        return best if self.best_metric is not None else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over the best value so far, if it is one of the same metric."""
        if state.get("metric") == self.metric:
            self.best_metric, self.best_iter = state["value"], state["iteration"]


class StopOnSignal(HookBase):
    """Ctrl-C (or SIGTERM) ends training after the current iteration, not in the middle of it.

    Weights, optimizer, averages and random states then belong to the same iteration, and are
    saved, before ``TrainingStopped`` is raised. A second Ctrl-C interrupts at once. This hook is to
    be registered last.

    Args:
        save: makes a checkpoint of the present iteration; all processes call it.
        agree_period: with several processes, iterations between two agreements whether to stop.
    """

    def __init__(self, save: Callable[[], None], agree_period: int = 20) -> None:
        self.save = save
        self.agree_period = agree_period
        self.requested = False
        self._pid = os.getpid()
        self._previous: dict[int, Any] = {}

    def before_train(self) -> None:
        # Python allows signal handlers in the main thread only.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._on_signal)

    def after_train(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()

    def after_step(self) -> None:
        if self._stop_now():
            self.save()
            raise TrainingStopped(f"stopped after iteration {self.trainer.iter}")

    def _stop_now(self) -> bool:
        if comm.get_world_size() == 1:
            return self.requested
        if (self.trainer.iter + 1) % self.agree_period:
            return False
        return any(comm.all_gather(self.requested))

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:
            self._in_forked_worker(number)
        elif self.requested or self.trainer.iter >= self.trainer.max_iter:
            raise KeyboardInterrupt
        else:
            self.requested = True
            name = signal.Signals(number).name
            logger.warning("%s: stopping after this iteration; once more stops at once", name)

    def _in_forked_worker(self, number: int) -> None:
        """A data loader's worker: it outlives a Ctrl-C, but is ended by the loader as usual."""
        if number == signal.SIGTERM:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

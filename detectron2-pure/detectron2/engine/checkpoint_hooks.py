"""Hooks that save checkpoints. Exported by ``detectron2.engine.hooks``."""

from __future__ import annotations

import logging
import math
import operator
import os
import re
import sys
from typing import Any

from detectron2.engine.trainer_base import HookBase
from detectron2.utils import comm
from fvcore.common.checkpoint import Checkpointer
from fvcore.common.checkpoint import PeriodicCheckpointer as _PeriodicCheckpointer

logger = logging.getLogger("detectron2.engine.hooks")


class PeriodicCheckpointer(_PeriodicCheckpointer, HookBase):
    """Saves ``<prefix>_<iteration>`` every period and ``<prefix>_final`` at the end.

    Arguments are those of ``fvcore.common.checkpoint.PeriodicCheckpointer``: checkpointer, period,
    max_iter (set by the trainer), max_to_keep, file_prefix. A period of 0 saves the final
    checkpoint only. It is needed in the main process, and does no harm in the others.
    """

    def __init__(self, checkpointer: Checkpointer, period: int, *args: Any, **kwargs: Any) -> None:
        super().__init__(checkpointer, period if period > 0 else sys.maxsize, *args, **kwargs)
        self.saves_every = self.period
        if not comm.is_main_process():
            self.max_to_keep = None  # who does not save must not delete

    def before_train(self) -> None:
        self.max_iter = self.trainer.max_iter
        if self.max_to_keep is not None:
            self.recent_checkpoints = self._saved_before(self.trainer.start_iter)

    def _saved_before(self, start_iter: int) -> list[str]:
        """What the interrupted part of a resumed training left: it counts as recent, too."""
        pattern = re.compile(re.escape(self.file_prefix) + r"_(\d{7})\.pth")
        folder = self.checkpointer.save_dir
        names = os.listdir(folder) if start_iter > 0 and os.path.isdir(folder) else []
        matches = [match for match in map(pattern.fullmatch, sorted(names)) if match]
        return [os.path.join(folder, m[0]) for m in matches if int(m[1]) < start_iter]

    def after_step(self) -> None:
        self.step(self.trainer.iter)


class BestCheckpointer(HookBase):
    """Saves a checkpoint whenever a metric is better than ever before.

    Register it after the hook that stores the metric. The best value is part of the trainer's
    state, so a resumed training goes on comparing with it.

    Args:
        eval_period: how often the metric is computed, in iterations; also looked at after
            training.
        checkpointer: saves the file.
        val_metric: name of the metric, as "bbox/AP50".
        mode: "max" or "min": which values are better.
        file_prefix: name of the file, without ending.
    """

    def __init__(
        self,
        eval_period: int,
        checkpointer: Checkpointer,
        val_metric: str,
        mode: str = "max",
        file_prefix: str = "model_best",
    ) -> None:
        if mode not in ("max", "min"):
            raise ValueError(f'mode of BestCheckpointer is "max" or "min", not {mode!r}.')
        self._period = eval_period
        self.saves_every = eval_period if eval_period > 0 else sys.maxsize
        self._checkpointer = checkpointer
        self._val_metric = val_metric
        self._is_better = operator.gt if mode == "max" else operator.lt
        self._file_prefix = file_prefix
        self.best_metric: float | None = None
        self.best_iter: int | None = None

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if self._period > 0 and done % self._period == 0 and done != self.trainer.max_iter:
            self._update()

    def after_train(self) -> None:
        if self.trainer.iter >= self.trainer.max_iter:
            self._update()

    def _update(self) -> None:
        if not comm.is_main_process():
            return
        if self._val_metric not in self.trainer.storage.latest():
            logger.warning(
                f"There is no metric {self._val_metric!r} yet, so no best checkpoint is saved. "
                f"Known are: {', '.join(sorted(self.trainer.storage.latest()))}."
            )
            return
        value, at = self.trainer.storage.latest()[self._val_metric]
        if not math.isfinite(value):
            return
        if self.best_metric is not None and not self._is_better(value, self.best_metric):
            logger.info(
                f"Not saving: {self._val_metric} is {value:.5f} at iteration {at}, the best is "
                f"{self.best_metric:.5f} at iteration {self.best_iter}."
            )
            return
        previous = "the first" if self.best_metric is None else f"before {self.best_metric:.5f}"
        self.best_metric, self.best_iter = value, at
        logger.info(
            f"Saving the best model: {self._val_metric} is {value:.5f} at iteration {at} "
            f"({previous})."
        )
        # One less where ``at`` is the end of training, which is past the last iteration.
        last = min(at, self.trainer.max_iter - 1)
        self._checkpointer.save(self._file_prefix, iteration=last)

    def state_dict(self) -> dict[str, Any]:
        if self.best_metric is None:
            return {}
        return {
            "val_metric": self._val_metric,
            "best_metric": self.best_metric,
            "best_iter": self.best_iter,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["val_metric"] != self._val_metric:
            logger.warning(
                f"The checkpoint has the best {state['val_metric']}, but {self._val_metric} is "
                "asked for now: starting anew."
            )
            return
        self.best_metric, self.best_iter = state["best_metric"], state["best_iter"]

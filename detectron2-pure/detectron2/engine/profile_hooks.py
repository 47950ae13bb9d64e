"""Hooks that look at time and memory. Exported by ``detectron2.engine.hooks``."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from typing import Any

import torch
from detectron2.engine.trainer_base import HookBase, TrainerBase
from detectron2.utils.file_io import PathManager

logger = logging.getLogger("detectron2.engine.hooks")


class TorchProfiler(HookBase):
    """Runs ``torch.profiler`` in some iterations.

    Args:
        enable_predicate: takes the trainer; true for the iterations to profile, for example
            ``lambda trainer: 10 < trainer.iter < 13``.
        output_dir: where the results go.
        activities: as in ``torch.profiler.profile``; CPU and what else there is by default.
        save_tensorboard: write for TensorBoard's profiler page into ``output_dir/log``, else a
            Chrome trace and tables as text.
    """

    def __init__(
        self,
        enable_predicate: Callable[[TrainerBase], bool],
        output_dir: str,
        *,
        activities: Sequence[Any] | None = None,
        save_tensorboard: bool = True,
    ) -> None:
        self._enable_predicate = enable_predicate
        self._output_dir = output_dir
        self._activities = activities
        self._save_tensorboard = save_tensorboard
        self._profiler: torch.profiler.profile | None = None

    def before_step(self) -> None:
        if not self._enable_predicate(self.trainer):
            return
        handler = None
        if self._save_tensorboard:
            folder = os.path.join(self._output_dir, "log", f"profiler-iter{self.trainer.iter}")
            handler = torch.profiler.tensorboard_trace_handler(folder)
        self._profiler = torch.profiler.profile(
            activities=self._activities,
            on_trace_ready=handler,
            record_shapes=True,
            profile_memory=True,
        )
        self._profiler.__enter__()

    def after_step(self) -> None:
        if self._profiler is None:
            return
        profiler, self._profiler = self._profiler, None
        profiler.__exit__(None, None, None)
        if not self._save_tensorboard:
            self._export(profiler)

    def _export(self, profiler: torch.profiler.profile) -> None:
        PathManager.mkdirs(self._output_dir)
        stem = os.path.join(self._output_dir, f"profiler-iter{self.trainer.iter}")
        profiler.export_chrome_trace(f"{stem}.json")
        with PathManager.open(f"{stem}.txt", "w") as f:
            f.write(profiler.key_averages().table(sort_by="cpu_time_total", row_limit=100))

    def after_train(self) -> None:
        if self._profiler is not None:  # an exception came between before_step and after_step
            self._profiler.__exit__(None, None, None)
            self._profiler = None


class AutogradProfiler(TorchProfiler):
    """``TorchProfiler`` under the older name: a Chrome trace and a table per iteration.

    Args:
        enable_predicate: see ``TorchProfiler``.
        output_dir: see ``TorchProfiler``.
        use_cuda: also profile CUDA kernels.
    """

    def __init__(
        self,
        enable_predicate: Callable[[TrainerBase], bool],
        output_dir: str,
        *,
        use_cuda: bool = True,
    ) -> None:
        kinds = torch.profiler.ProfilerActivity
        with_cuda = use_cuda and torch.cuda.is_available()
        activities = [kinds.CPU, kinds.CUDA] if with_cuda else [kinds.CPU]
        super().__init__(
            enable_predicate, output_dir, activities=activities, save_tensorboard=False
        )


class TorchMemoryStats(HookBase):
    """Logs how much GPU memory torch has reserved and allocated. Silent without CUDA.

    Args:
        step_period: log every so many iterations, and at the last one.
        max_runs: at most so many times.
    """

    def __init__(self, step_period: int = 20, max_runs: int = 10) -> None:
        self._step_period = step_period
        self._max_runs = max_runs
        self._runs = 0

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        is_due = done % self._step_period == 0 or done == self.trainer.max_iter
        if not is_due or self._runs >= self._max_runs or not torch.cuda.is_available():
            return
        self._runs += 1
        figures = {
            "max_reserved": torch.cuda.max_memory_reserved(),
            "reserved": torch.cuda.memory_reserved(),
            "max_allocated": torch.cuda.max_memory_allocated(),
            "allocated": torch.cuda.memory_allocated(),
        }
        text = "; ".join(f"{name}_mem: {size / 1024**2:.0f}MB" for name, size in figures.items())
        logger.info(f"iter: {self.trainer.iter}  {text}")
        torch.cuda.reset_peak_memory_stats()

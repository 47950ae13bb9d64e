"""Metrics of a training run: `EventStorage` collects them, writers send them somewhere."""

from __future__ import annotations

import datetime
import functools
import json
import logging
import os
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from detectron2.utils.file_io import PathManager
from fvcore.common.history_buffer import HistoryBuffer

__all__ = [
    "CommonMetricPrinter",
    "EventStorage",
    "EventWriter",
    "JSONWriter",
    "TensorboardXWriter",
    "get_event_storage",
    "has_event_storage",
]

_CURRENT_STORAGE_STACK: list[EventStorage] = []


def get_event_storage() -> EventStorage:
    """The innermost `EventStorage` whose ``with`` block is active.

    Raises:
        AssertionError: there is none.
    """
    assert _CURRENT_STORAGE_STACK, (
        "get_event_storage() has to be called inside a 'with EventStorage(...)' context! "
        "A trainer opens one for the time of its train() method."
    )
    return _CURRENT_STORAGE_STACK[-1]


def has_event_storage() -> bool:
    """Whether `get_event_storage` would find one."""
    return bool(_CURRENT_STORAGE_STACK)


class EventStorage:
    """The metrics of one run, and the place where code anywhere can add to them.

    Memory is bounded: of each scalar the last ``max_history`` values are kept, and the mean of
    all of them. Use it as a context manager to make it the current storage.

    Args:
        start_iter: the first iteration.
        max_history: values kept per scalar; the largest window of any smoothing.
    """

    def __init__(self, start_iter: int = 0, max_history: int = 1024) -> None:
        self._max_history = max_history
        self._history: dict[str, HistoryBuffer] = {}
        self._smoothing_hints: dict[str, bool] = {}
        self._latest_scalars: dict[str, tuple[float, int]] = {}
        self._iter = start_iter
        self._current_prefix = ""
        self._vis_data: list[tuple[str, Any, int]] = []
        self._histograms: list[dict[str, Any]] = []

    @property
    def iter(self) -> int:
        """The current iteration. The trainer sets it; in loops of your own call `step`."""
        return self._iter

    @iter.setter
    def iter(self, value: int) -> None:
        self._iter = int(value)

    @property
    def iteration(self) -> int:
        """Same as `iter`."""
        return self._iter

    def step(self) -> None:
        """Go to the next iteration. Needed only where no trainer sets `iter`."""
        self._iter += 1

    def put_scalar(
        self, name: str, value: float, smoothing_hint: bool = True, cur_iter: int | None = None
    ) -> None:
        """Add a scalar.

        Args:
            name: its name; the current `name_scope` is put before it.
            value: anything that ``float`` takes.
            smoothing_hint: whether writers should smooth it, as they should noisy values; must
                be the same for each value of a name.
            cur_iter: its iteration, the current one by default.

        Raises:
            AssertionError: the name has been used with the other smoothing hint.
        """
        name = self._current_prefix + name
        hint = self._smoothing_hints.setdefault(name, smoothing_hint)
        assert hint == smoothing_hint, (
            f"Scalar {name} was put with a different smoothing_hint! It was {hint} before."
        )
        at = self._iter if cur_iter is None else int(cur_iter)
        number = float(value)
        history = self._history.setdefault(name, HistoryBuffer(self._max_history))
        history.update(number, at)
        self._latest_scalars[name] = (number, at)

    def put_scalars(
        self, *, smoothing_hint: bool = True, cur_iter: int | None = None, **kwargs: float
    ) -> None:
        """Add several scalars, as ``put_scalars(loss=my_loss, accuracy=my_accuracy)``.

        Args:
            smoothing_hint: see `put_scalar`.
            cur_iter: see `put_scalar`.
            kwargs: names and values.
        """
        for name, value in kwargs.items():
            self.put_scalar(name, value, smoothing_hint=smoothing_hint, cur_iter=cur_iter)

    def put_image(self, img_name: str, img_tensor: torch.Tensor | np.ndarray) -> None:
        """Add an image for writers that can show it.

        Args:
            img_name: its name in the writer.
            img_tensor: (3, H, W), uint8, or float in [0, 1]; RGB.
        """
        self._vis_data.append((img_name, img_tensor, self._iter))

    def put_histogram(self, hist_name: str, hist_tensor: torch.Tensor, bins: int = 1000) -> None:
        """Add a histogram of a tensor's values for writers that can show it.

        Args:
            hist_name: its name in the writer.
            hist_tensor: a tensor of any shape.
            bins: number of bins.
        """
        values = hist_tensor.detach().float().cpu()
        low, high = values.min().item(), values.max().item()
        counts = torch.histc(values, bins=bins)
        edges = torch.linspace(low, high, steps=bins + 1, dtype=torch.float32)
        self._histograms.append(
            {
                "tag": hist_name,
                "min": low,
                "max": high,
                "num": values.numel(),
                "sum": values.sum().item(),
                "sum_squares": values.square().sum().item(),
                "bucket_limits": edges[1:].tolist(),
                "bucket_counts": counts.tolist(),
                "global_step": self._iter,
            }
        )

    def history(self, name: str) -> HistoryBuffer:
        """The last values of a scalar, with its mean over all values.

        Raises:
            KeyError: nothing was put under this name.
        """
        if name not in self._history:
            raise KeyError(f"No history metric available for {name}!")
        return self._history[name]

    def histories(self) -> dict[str, HistoryBuffer]:
        """All scalars' histories by name."""
        return dict(self._history)

    def latest(self) -> dict[str, tuple[float, int]]:
        """The newest value of each scalar and its iteration."""
        return self._latest_scalars

    def latest_with_smoothing_hint(self, window_size: int = 20) -> dict[str, tuple[float, int]]:
        """Like `latest`, but the median over a window for the scalars that asked for smoothing.

        Args:
            window_size: in iterations.
        """
        return {
            name: (self._smoothed(name, window_size) if self._smoothing_hints[name] else value, at)
            for name, (value, at) in self._latest_scalars.items()
        }

    def _smoothed(self, name: str, window_size: int) -> float:
        return float(self._history[name].median(self.count_samples(name, window_size)))

    def count_samples(self, name: str, window_size: int = 20) -> int:
        """How many values of a scalar fall in its last ``window_size`` iterations."""
        values = self._history[name].values()
        newest = values[-1][1]
        count = 0
        for _, at in reversed(values):
            if at <= newest - window_size:
                break
            count += 1
        return count

    def smoothing_hints(self) -> dict[str, bool]:
        """For each scalar, whether it is to be smoothed."""
        return self._smoothing_hints

    @contextmanager
    def name_scope(self, name: str) -> Iterator[None]:
        """Put ``name/`` before the names of all scalars added inside."""
        outer = self._current_prefix
        self._current_prefix = name.rstrip("/") + "/"
        try:
            yield
        finally:
            self._current_prefix = outer

    def clear_images(self) -> None:
        """Forget the images; the writer that stored them calls it."""
        self._vis_data = []

    def clear_histograms(self) -> None:
        """Forget the histograms; the writer that stored them calls it."""
        self._histograms = []

    def __enter__(self) -> EventStorage:
        _CURRENT_STORAGE_STACK.append(self)
        return self

    def __exit__(self, *exc_info: object) -> None:
        assert _CURRENT_STORAGE_STACK[-1] is self, "EventStorage blocks must close in order."
        _CURRENT_STORAGE_STACK.pop()


class EventWriter:
    """Base of what reads the current `EventStorage` and writes it somewhere."""

    def write(self) -> None:
        """Write what is new since the last call."""
        raise NotImplementedError

    def close(self) -> None:
        """Finish; called once after the last `write`."""


def _new_scalars(
    storage: EventStorage, window_size: int, last_write: int
) -> dict[int, dict[str, float]]:
    """Scalars put after iteration ``last_write``, by iteration in ascending order."""
    by_iter: dict[int, dict[str, float]] = defaultdict(dict)
    for name, (value, at) in storage.latest_with_smoothing_hint(window_size).items():
        if at > last_write:
            by_iter[at][name] = value
    return dict(sorted(by_iter.items()))


def _repair_last_line(path: str) -> None:
    """Make a file of JSON lines end with a complete line.

    A process that is killed can leave half a line; appending to it would spoil one more.
    """
    if not os.path.isfile(path):
        return
    with open(path, "rb+") as f:
        content = f.read()
        if not content or content.endswith(b"\n"):
            return
        start = content.rfind(b"\n") + 1
        try:
            json.loads(content[start:])
        except ValueError:
            f.truncate(start)
            logging.getLogger(__name__).warning(f"Removed a half-written last line from {path}.")
        else:
            f.write(b"\n")


class JSONWriter(EventWriter):
    """Appends one JSON object per line and iteration, with sorted keys.

    Every object has "iteration" and the scalars that were put at it. The file reads with
    ``[json.loads(line) for line in open(path)]``. NaN is written as ``NaN``.

    Args:
        json_file: the file; a half-written last line of an earlier run is removed from it.
        window_size: of the median, for scalars with a smoothing hint.
    """

    def __init__(self, json_file: str | os.PathLike[str], window_size: int = 20) -> None:
        path = os.fspath(json_file)
        _repair_last_line(path)
        self._file_handle = PathManager.open(path, "a")
        self._window_size = window_size
        self._last_write = -1

    def write(self) -> None:
        new = _new_scalars(get_event_storage(), self._window_size, self._last_write)
        for at, scalars in new.items():
            line = json.dumps({**scalars, "iteration": at}, sort_keys=True)
            self._file_handle.write(line + "\n")
            self._last_write = at
        self._file_handle.flush()

    def close(self) -> None:
        self._file_handle.close()


class TensorboardXWriter(EventWriter):
    """Writes scalars, images and histograms for TensorBoard.

    Nothing is created on disk before the first `write`.

    Args:
        log_dir: the folder.
        window_size: of the median, for scalars with a smoothing hint.
        kwargs: for `torch.utils.tensorboard.SummaryWriter`.
    """

    def __init__(self, log_dir: str | os.PathLike[str], window_size: int = 20, **kwargs: Any):
        self._window_size = window_size
        self._writer_args = {"log_dir": os.fspath(log_dir), **kwargs}
        self._last_write = -1

    @functools.cached_property
    def _writer(self) -> Any:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as e:
            raise ImportError(
                "TensorboardXWriter needs the tensorboard package: `pip install tensorboard`, or "
                "leave the writer out."
            ) from e
        return SummaryWriter(**self._writer_args)

    def write(self) -> None:
        storage = get_event_storage()
        for at, scalars in _new_scalars(storage, self._window_size, self._last_write).items():
            for name, value in scalars.items():
                self._writer.add_scalar(name, value, at)
            self._last_write = at
        for name, image, at in storage._vis_data:
            self._writer.add_image(name, image, at)
        storage.clear_images()
        for histogram in storage._histograms:
            self._writer.add_histogram_raw(**histogram)
        storage.clear_histograms()

    def close(self) -> None:
        if "_writer" in self.__dict__:  # asking for it would create it
            self._writer.close()


class CommonMetricPrinter(EventWriter):
    """Logs one line with the time left, losses, learning rate, speed and memory.

    Losses are the scalars with "loss" in their name; of the others, those with "[metric]" are
    shown too.

    Args:
        max_iter: last iteration, for the time left; None if unknown.
        window_size: of the median, for losses and times.
    """

    def __init__(self, max_iter: int | None = None, window_size: int = 20) -> None:
        self.logger = logging.getLogger("detectron2.utils.events")
        self._max_iter = max_iter
        self._window_size = window_size
        self._last_write: tuple[int, float] | None = None  # (iteration, clock)

    def write(self) -> None:
        storage = get_event_storage()
        if storage.iter == self._max_iter:
            return  # after the end only evaluation results are new; their evaluator logs them
        names = list(storage.histories())
        parts = [
            self._eta(storage),
            f"iter: {storage.iter}",
            self._medians(storage, [name for name in names if "loss" in name]),
            self._medians(storage, [name for name in names if "[metric]" in name]),
            self._times(storage, "time"),
            self._times(storage, "data_time"),
            self._learning_rate(storage.latest()),
            self._max_memory(),
        ]
        self.logger.info(" " + "  ".join(part for part in parts if part))

    def _eta(self, storage: EventStorage) -> str:
        """Time left from the median iteration, or between two writes if nobody timed them."""
        if self._max_iter is None:
            return ""
        left = self._max_iter - storage.iter - 1
        times = storage.histories().get("time")
        if times is not None:
            seconds = float(times.median(1000)) * left
            storage.put_scalar("eta_seconds", seconds, smoothing_hint=False)
            return f"eta: {datetime.timedelta(seconds=int(seconds))}"
        previous, now = self._last_write, time.perf_counter()
        self._last_write = (storage.iter, now)
        if previous is None or storage.iter == previous[0]:
            return ""
        per_iter = (now - previous[1]) / (storage.iter - previous[0])
        return f"eta: {datetime.timedelta(seconds=int(per_iter * left))}"

    def _medians(self, storage: EventStorage, names: list[str]) -> str:
        return "  ".join(
            f"{name}: {storage._smoothed(name, self._window_size):.4g}" for name in names
        )

    def _times(self, storage: EventStorage, name: str) -> str:
        history = storage.histories().get(name)
        if history is None:  # the first iterations are not timed
            return ""
        window = storage.count_samples(name, self._window_size)
        return f"{name}: {history.avg(window):.4f}  last_{name}: {history.latest():.4f}"

    @staticmethod
    def _learning_rate(latest: Mapping[str, tuple[float, int]]) -> str:
        return f"lr: {latest['lr'][0]:.5g}" if "lr" in latest else "lr: N/A"

    @staticmethod
    def _max_memory() -> str:
        if not torch.cuda.is_available():
            return ""
        return f"max_mem: {torch.cuda.max_memory_allocated() / 1024**2:.0f}M"

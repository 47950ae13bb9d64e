"""Metrics of a training run: ``EventStorage`` collects them, writers send them somewhere."""

from __future__ import annotations

import datetime
import functools
import json
import logging
import os
import time
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch
from detectron2.utils.event_storage import EventStorage, get_event_storage, has_event_storage
from detectron2.utils.file_io import PathManager

__all__ = [
    "CommonMetricPrinter",
    "EventStorage",
    "EventWriter",
    "JSONWriter",
    "TensorboardXWriter",
    "get_event_storage",
    "has_event_storage",
]


class EventWriter:
    """Base of what reads the current ``EventStorage`` and writes it somewhere."""

    def write(self) -> None:
        """Write what is new since the last call."""
        raise NotImplementedError

    def close(self) -> None:
        """Finish; called once after the last ``write``."""


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

    Nothing is created on disk before the first ``write``.

    Args:
        log_dir: the folder.
        window_size: of the median, for scalars with a smoothing hint.
        kwargs: for ``torch.utils.tensorboard.SummaryWriter``.
    """

    def __init__(
        self, log_dir: str | os.PathLike[str], window_size: int = 20, **kwargs: Any
    ) -> None:
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

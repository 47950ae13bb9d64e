"""Metrics of a training run while it goes on. Exported by ``detectron2.utils.events``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from fvcore.common.history_buffer import HistoryBuffer

__all__ = ["EventStorage", "get_event_storage", "has_event_storage"]

_CURRENT_STORAGE_STACK: list[EventStorage] = []

# Images and histograms wait for a writer, which only the main process has.
_MAX_PENDING = 256


def get_event_storage() -> EventStorage:
    """The innermost ``EventStorage`` whose ``with`` block is active.

    Raises:
        AssertionError: there is none.
    """
    assert _CURRENT_STORAGE_STACK, (
        "get_event_storage() has to be called inside a 'with EventStorage(...)' context! "
        "A trainer opens one for the time of its train() method."
    )
    return _CURRENT_STORAGE_STACK[-1]


def has_event_storage() -> bool:
    """Whether ``get_event_storage`` would find one."""
    return bool(_CURRENT_STORAGE_STACK)


class EventStorage:
    """The metrics of one run, and the place where code anywhere can add to them.

    Memory is bounded: of each scalar the last ``max_history`` values are kept, and the mean of
    all of them; of images and histograms the last few hundred that no writer took. Use it as a
    context manager to make it the current storage.

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
        """The current iteration. The trainer sets it; in loops of your own call ``step``."""
        return self._iter

    @iter.setter
    def iter(self, value: int) -> None:
        self._iter = int(value)

    @property
    def iteration(self) -> int:
        """Same as ``iter``."""
        return self._iter

    def step(self) -> None:
        """Go to the next iteration. Needed only where no trainer sets ``iter``."""
        self._iter += 1

    def put_scalar(
        self, name: str, value: float, smoothing_hint: bool = True, cur_iter: int | None = None
    ) -> None:
        """Add a scalar.

        Args:
            name: its name; the current ``name_scope`` is put before it.
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
            smoothing_hint: see ``put_scalar``.
            cur_iter: see ``put_scalar``.
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
        del self._vis_data[:-_MAX_PENDING]

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
        del self._histograms[:-_MAX_PENDING]

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
        """Like ``latest``, but the median over a window for the scalars that asked for smoothing.

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

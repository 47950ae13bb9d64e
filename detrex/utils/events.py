"""Metrics for Weights & Biases."""

from __future__ import annotations

from typing import Any

from detectron2.utils.events import EventWriter, get_event_storage
from omegaconf import DictConfig, OmegaConf

__all__ = ["WandbWriter"]


class WandbWriter(EventWriter):
    """Sends scalar metrics to a Weights & Biases run, at the periods of the other writers.

    Args:
        cfg: a whole config; ``train.wandb.params`` are the arguments of ``wandb.init``.
        window_size: values that a loss is the median of, as in the other writers.

    Raises:
        ImportError: the wandb package is not installed.
    """

    def __init__(self, cfg: DictConfig, window_size: int = 20) -> None:
        try:
            import wandb
        except ImportError as e:
            raise ImportError(
                "train.wandb.enabled=true needs the wandb package: pip install wandb."
            ) from e
        params: Any = OmegaConf.to_container(cfg.train.wandb.params, resolve=True)
        train: Any = OmegaConf.to_container(cfg.train, resolve=True)
        self._run = wandb.init(config={"train": train}, **params)
        self._window_size = window_size
        self._last_iter = -1

    def write(self) -> None:
        """Send what is new since the last call."""
        storage = get_event_storage()
        latest = storage.latest_with_smoothing_hint(self._window_size)
        new = {name: value for name, (value, it) in latest.items() if it > self._last_iter}
        if new:
            self._last_iter = max(it for _, it in latest.values())
            self._run.log(new, step=storage.iter)

    def close(self) -> None:
        """End the run."""
        self._run.finish()

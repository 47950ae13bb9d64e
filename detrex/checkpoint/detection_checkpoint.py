"""detectron2's checkpointer, which also finds places for names of elsewhere."""

from __future__ import annotations

import logging
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer as _DetectionCheckpointer
from fvcore.common.checkpoint import (
    get_missing_parameters_message,
    get_unexpected_parameters_message,
)

from detrex.checkpoint.load import load_weights

__all__ = [
    "DetectionCheckpointer",
    "get_missing_parameters_message",
    "get_unexpected_parameters_message",
]

logger = logging.getLogger(__name__)


class DetectionCheckpointer(_DetectionCheckpointer):
    """Saves and loads a model with its training state, as detectron2's of this name.

    A model's weights may have the names of :func:`~detrex.checkpoint.load_weights`: this library's,
    the public detrex's, torchvision's, timm's or detectron2's. What finds no place is logged. A
    file that asks for ``matching_heuristics`` is matched by detectron2.

    Args:
        model: the model, in a (distributed) data parallel wrapper or not.
        save_dir: the folder of the checkpoints.
        save_to_disk: whether this process writes; by default if it is the main one.
        checkpointables: more objects with ``state_dict`` and ``load_state_dict``.
    """

    def load(self, path: str, checkpointables: list[str] | None = None) -> dict[str, Any]:
        """Load a file into the model and the checkpointables, by default all; "" loads nothing.

        Returns:
            what the file holds beyond that, for example ``{"iteration": 99}``.

        Raises:
            FileNotFoundError: no such file.
            ValueError: nothing in the file fits the model.
        """
        self._path = path
        return super().load(path, checkpointables)

    def _load_model(self, checkpoint: dict[str, Any]) -> Any:
        if checkpoint.get("matching_heuristics", False):
            return super()._load_model(checkpoint)
        weights = checkpoint.pop("model")
        report = load_weights(self.model, {k: torch.as_tensor(v) for k, v in weights.items()})
        report.check(self._path, allow_partial_backbone=True)
        logger.info("%s: %s", self._path, report)
        return None  # the report has said what differs

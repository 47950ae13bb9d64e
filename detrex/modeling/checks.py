"""What is wrong with a config or a batch, said before anything is computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


def check_counts(**counts: int) -> None:
    """Numbers of things that a model can't be without.

    Raises:
        ValueError: one is less than 1; names it.
    """
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"model.{name} is {count}, but must be at least 1.")


def check_can_checkpoint(part: Any) -> None:
    """An encoder or decoder that knows of activation checkpointing.

    Raises:
        ValueError: it doesn't, so that the switch would do nothing.
    """
    if not hasattr(part, "activation_checkpointing"):
        raise ValueError(
            f"model.activation_checkpointing is true, but {type(part).__name__} has no attribute "
            "of that name: run its layers by detrex.layers.checkpointed, or leave it false."
        )


def check_same_classes(of_model: int, of_criterion: int) -> None:
    """The criterion counts the model's classes.

    Raises:
        ValueError: the numbers differ.
    """
    if of_model != of_criterion:
        raise ValueError(
            f"model.num_classes is {of_model}, but model.criterion.num_classes {of_criterion}: let "
            "the latter refer to the former."
        )


def check_inputs(batch: Sequence[Mapping[str, Any]]) -> None:
    """Pixels are numbers. Images on a GPU are not looked at, as that would wait for it.

    Raises:
        ValueError: naming the image.
    """
    for x in batch:
        if not _finite(x["image"]):
            raise ValueError(
                f"{_name(x)} has pixels that are NaN or infinite: repair the image or the "
                "augmentation that made them."
            )


def check_targets(batch: Sequence[Mapping[str, Any]], num_classes: int) -> None:
    """Classes are below ``num_classes`` and boxes are finite, as far as they are on the CPU.

    Raises:
        ValueError: naming the image.
    """
    for x in batch:
        classes, boxes = x["instances"].gt_classes, x["instances"].gt_boxes.tensor
        if not _finite(boxes):
            raise ValueError(
                f"{_name(x)} has a box that is NaN or infinite: correct or remove the annotation."
            )
        if classes.is_cuda or not len(classes):
            continue
        wrong = [c for c in (int(classes.min()), int(classes.max())) if not 0 <= c < num_classes]
        if wrong:
            raise ValueError(
                f"{_name(x)} has an object of class {wrong[0]}, the model only 0 to "
                f"{num_classes - 1}: set model.num_classes to the number of categories."
            )


def _finite(x: Tensor) -> bool:
    return x.is_cuda or not x.is_floating_point() or bool(torch.isfinite(x).all())


def _name(x: Mapping[str, Any]) -> str:
    return str(x.get("file_name", "an image"))

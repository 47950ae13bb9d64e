"""What can be known to be wrong before a training starts."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer
from omegaconf import DictConfig, OmegaConf
from torch import nn

__all__ = [
    "check_checkpoint_exists",
    "check_images",
    "check_optimizer",
    "check_output_dir",
    "last_checkpoint",
    "local_checkpoint",
]

logger = logging.getLogger(__name__)

# Differences below a tenth of a gray value are rounding.
_SAME_PIXELS = 0.1


def check_output_dir(output_dir: str, resume: bool) -> None:
    """Create the output directory, and refuse one that holds another run.

    Raises:
        FileExistsError: it holds a run and `resume` is False.
        OSError: it cannot be created or written to.
    """
    traces = ("last_checkpoint", "metrics.json")
    paths = {name: os.path.join(output_dir, name) for name in traces}
    # A run that failed before its first iteration leaves empty files.
    found = [name for name, path in paths.items() if os.path.exists(path) and os.path.getsize(path)]
    if found and not resume:
        raise FileExistsError(
            f"{output_dir} already holds a run ({', '.join(found)}): continue it with --resume, or "
            "give this one a directory of its own with train.output_dir=..."
        )
    try:
        Path(output_dir).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=output_dir):
            pass
    except OSError as e:
        raise OSError(
            f"train.output_dir={output_dir} cannot be written to: {e.strerror or e}"
        ) from e


def local_checkpoint(path: str) -> str:
    """A checkpoint path without the `?matching_heuristics=True` of older configs.

    `detrex.checkpoint` knows the names of other libraries, so it needs no such hint.
    """
    return path.split("?", 1)[0] if not os.path.exists(path) else path


def last_checkpoint(output_dir: str) -> str:
    """The checkpoint that a run in `output_dir` would be resumed from, or ""."""
    checkpointer = DetectionCheckpointer(nn.Module(), output_dir)
    return checkpointer.get_checkpoint_file() if checkpointer.has_checkpoint() else ""


def check_checkpoint_exists(path: str) -> None:
    """Check `train.init_checkpoint` as far as that is possible without reading it.

    Raises:
        FileNotFoundError: it is a local path where no file is.
    """
    path = local_checkpoint(path)
    if path and "://" not in path and not os.path.isfile(path):
        raise FileNotFoundError(
            f"train.init_checkpoint={path} does not exist; correct the path, or set "
            'train.init_checkpoint="" to start without'
        )


def check_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Every trainable parameter is updated, exactly once.

    Raises:
        ValueError: naming the parameters that are not in the optimizer, or are so repeatedly.
    """
    listed = [id(p) for group in optimizer.param_groups for p in group["params"]]
    held = set(listed)
    if len(listed) != len(held):
        repeated = [n for n, p in model.named_parameters() if listed.count(id(p)) > 1]
        raise ValueError(
            f"{len(repeated)} parameters are in the optimizer several times: "
            f"{', '.join(repeated[:5])}; each belongs into one group of cfg.optimizer.params"
        )
    forgotten = [n for n, p in model.named_parameters() if p.requires_grad and id(p) not in held]
    if forgotten:
        raise ValueError(
            f"{len(forgotten)} trainable parameters are not in the optimizer and would never "
            f"change: {', '.join(forgotten[:5])}; add them to cfg.optimizer.params or freeze them"
        )


def check_images(model: nn.Module, dataloader: DictConfig) -> None:
    """Warn where the images that the model gets are not those its backbone's weights expect.

    Args:
        model: compared are `model.pixel_mean` and `pixel_std` with the backbone's attributes of
            the same names; what isn't there isn't checked.
        dataloader: config node; `img_format` of its mappers is compared with the backbone's
            `pixel_order`.
    """
    for warning in (*_pixel_differences(model), *_order_differences(model, dataloader)):
        logger.warning(warning)


def _pixel_differences(model: nn.Module) -> Iterator[str]:
    for name in ("pixel_mean", "pixel_std"):
        ours, expected = getattr(model, name, None), _of_backbone(model, name)
        if not isinstance(ours, torch.Tensor) or expected is None:
            continue
        values, wanted = ([round(float(v), 3) for v in x] for x in (ours.flatten(), expected))
        if len(values) != len(wanted) or any(
            abs(a - b) > _SAME_PIXELS for a, b in zip(values, wanted, strict=True)
        ):
            yield (
                f"model.{name} is {values}, but the weights of the backbone expect {wanted}: "
                f"model.{name}=null takes that; keep yours if the weights were trained with it"
            )


def _order_differences(model: nn.Module, dataloader: DictConfig) -> Iterator[str]:
    expected = _of_backbone(model, "pixel_order")
    for split in ("train", "test"):
        given = OmegaConf.select(dataloader, f"{split}.mapper.img_format")
        if expected is not None and given is not None and given != expected:
            yield (
                f"dataloader.{split}.mapper.img_format is {given}, but the weights of the backbone "
                f"expect {expected}: set dataloader.{split}.mapper.img_format={expected}, or keep "
                "yours if the weights were trained with it"
            )


def _of_backbone(model: nn.Module, name: str) -> Any:
    return getattr(getattr(model, "backbone", None), name, None)

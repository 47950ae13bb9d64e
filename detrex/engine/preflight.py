"""What is checked before a run: once before anything is built, once when everything is."""

from __future__ import annotations

import argparse
import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from detectron2.engine import default_setup
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger
from omegaconf import DictConfig, OmegaConf
from torch import nn

from detrex.config import find_config_file
from detrex.data import check_dataloaders
from detrex.engine.build import checkpoint_to_evaluate

__all__ = ["check_built", "preflight"]

logger = logging.getLogger(__name__)

# Differences below a tenth of a gray value are rounding.
_SAME_PIXELS = 0.1


def preflight(cfg: DictConfig, args: argparse.Namespace) -> None:
    """Check all that can be known before a model is built, the cheapest first, and open the log.

    All processes call it; it comes back when all of them may go on.

    Args:
        cfg: a complete config (:func:`~detrex.config.load_config`).
        args: the command line that it is from.

    Raises:
        FileNotFoundError: the weights to start from, the annotations or images do not exist.
        FileExistsError: the output directory holds another run.
        OSError: the output directory cannot be written to.
        DatasetError: the data cannot be used, or not by this model.
    """
    if args.eval_only:
        checkpoint_to_evaluate(cfg)
    if args.eval_only or not args.resume:
        check_init_checkpoint(cfg.train.init_checkpoint)
    if comm.is_main_process():
        check_output_dir(cfg.train.output_dir, args.resume or args.eval_only)
    comm.synchronize()
    _open_log(cfg, args)  # in the output directory; it is to have the warnings that follow
    if comm.is_main_process():
        check_dataloaders(
            cfg.dataloader,
            num_classes=cfg.model.get("num_classes"),
            num_queries=cfg.model.get("num_queries"),
            splits=("test",) if args.eval_only else ("train", "test"),
        )
    comm.synchronize()


def check_built(
    model: nn.Module, dataloader: DictConfig, optimizer: torch.optim.Optimizer | None = None
) -> None:
    """Check what only shows when the model, and for a training its optimizer, are built.

    Raises:
        ValueError: a parameter is not in the optimizer, or is so several times.
    """
    check_images(model, dataloader)
    if optimizer is not None:
        check_optimizer(model, optimizer)


def check_init_checkpoint(path: str) -> None:
    """Check ``train.init_checkpoint`` as far as that is possible without reading it.

    Raises:
        FileNotFoundError: it is a local path where no file is.
    """
    if path and "://" not in path and not os.path.isfile(path):
        raise FileNotFoundError(
            f"train.init_checkpoint={path} does not exist; correct the path, or set "
            'train.init_checkpoint="" to start without.'
        )


def check_output_dir(output_dir: str, resume: bool) -> None:
    """Create the output directory, and refuse one that holds another run.

    Raises:
        FileExistsError: it holds a run and ``resume`` is False.
        OSError: it cannot be created or written to.
    """
    traces = ("last_checkpoint", "metrics.json")
    paths = {name: os.path.join(output_dir, name) for name in traces}
    # A run that failed before its first iteration leaves empty files.
    found = [name for name, path in paths.items() if os.path.exists(path) and os.path.getsize(path)]
    if found and not resume:
        raise FileExistsError(
            f"{output_dir} already holds a run ({', '.join(found)}): continue it with --resume, or "
            "give this one a directory of its own with train.output_dir=path/to/it."
        )
    try:
        Path(output_dir).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=output_dir):
            pass
    except OSError as e:
        raise OSError(
            f"train.output_dir={output_dir} cannot be written to: {e.strerror or e}"
        ) from e


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
            f"{', '.join(repeated[:5])}; each belongs into one group of cfg.optimizer.params."
        )
    forgotten = [n for n, p in model.named_parameters() if p.requires_grad and id(p) not in held]
    if forgotten:
        raise ValueError(
            f"{len(forgotten)} trainable parameters are not in the optimizer and would never "
            f"change: {', '.join(forgotten[:5])}; add them to cfg.optimizer.params or freeze them."
        )


def check_images(model: nn.Module, dataloader: DictConfig) -> None:
    """Warn where the images that the model gets are not those its backbone's weights expect.

    Args:
        model: compared are ``model.pixel_mean`` and ``pixel_std`` with the backbone's attributes
            of the same names; what isn't there isn't checked.
        dataloader: config node; ``img_format`` of its mappers is compared with the backbone's
            ``pixel_order``.
    """
    for warning in (*_pixel_differences(model), *_order_differences(model, dataloader)):
        logger.warning(warning)


def _open_log(cfg: DictConfig, args: argparse.Namespace) -> None:
    """Log to the output directory, and begin with the machine, the command line and the config."""
    setup_logger(cfg.train.output_dir, distributed_rank=comm.get_rank(), name="detrex")
    config_file = find_config_file(args.config_file)
    default_setup(cfg, argparse.Namespace(**{**vars(args), "config_file": config_file}))


def _pixel_differences(model: nn.Module) -> Iterator[str]:
    for name in ("pixel_mean", "pixel_std"):
        given, expected = getattr(model, name, None), _of_backbone(model, name)
        if not isinstance(given, torch.Tensor) or expected is None:
            continue
        values, wanted = ([round(float(v), 3) for v in x] for x in (given.flatten(), expected))
        if len(values) != len(wanted) or any(
            abs(a - b) > _SAME_PIXELS for a, b in zip(values, wanted, strict=True)
        ):
            yield (
                f"model.{name} is {values}, but the weights of the backbone expect {wanted}: "
                f"model.{name}=null takes that; keep yours if the weights were trained with it."
            )


def _order_differences(model: nn.Module, dataloader: DictConfig) -> Iterator[str]:
    expected = _of_backbone(model, "pixel_order")
    for split in ("train", "test"):
        given = OmegaConf.select(dataloader, f"{split}.mapper.img_format")
        if expected is not None and given is not None and given != expected:
            yield (
                f"dataloader.{split}.mapper.img_format is {given}, but the weights of the backbone "
                f"expect {expected}: set dataloader.{split}.mapper.img_format={expected}, or keep "
                "yours if the weights were trained with it."
            )


def _of_backbone(model: nn.Module, name: str) -> Any:
    return getattr(getattr(model, "backbone", None), name, None)

"""The model of a config, and the weights that it starts with."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import nullcontext

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import instantiate
from detectron2.engine import create_ddp_model
from detectron2.utils.file_io import PathManager
from omegaconf import DictConfig
from torch import nn

from detrex.checkpoint import CheckpointError, LoadReport, load_weights
from detrex.engine.ema import ModelEma
from detrex.utils.pretrained import skip_pretrained
from detrex.utils.weight_files import read_weight_file

__all__ = [
    "build_ema",
    "build_evaluated_model",
    "build_filled_model",
    "build_model",
    "build_optimizer",
    "build_resumed_model",
    "build_trained_model",
    "checkpoint_to_evaluate",
    "distributed",
    "fill_model",
    "last_checkpoint",
    "to_device",
]

logger = logging.getLogger(__name__)


def to_device(model: nn.Module, device: str | torch.device) -> nn.Module:
    """``model`` on its device, on a CPU with the channels of convolutions last, which is faster."""
    model = model.to(device)
    on_cpu = torch.device(device).type == "cpu"
    return model.to(memory_format=torch.channels_last) if on_cpu else model


def build_trained_model(
    cfg: DictConfig, resumed_from: str, class_names: Sequence[str] | None = None
) -> nn.Module:
    """The model of a config, to be trained.

    Args:
        cfg: a complete config.
        resumed_from: a checkpoint of the same training, which gives the weights; without one
            ``train.init_checkpoint`` does, and without that the model itself.
        class_names: of the data.

    Raises:
        FileNotFoundError, CheckpointError: the weights can't be read or don't fit the model.
    """
    if resumed_from:
        return build_resumed_model(cfg, resumed_from)
    if cfg.train.init_checkpoint:
        return build_filled_model(cfg, cfg.train.init_checkpoint, class_names)
    return build_model(cfg)


def build_model(cfg: DictConfig) -> nn.Module:
    """The model of a config, on its device, with the weights that the model itself names."""
    model = to_device(instantiate(cfg.model), cfg.train.device)
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    logger.info(
        "%s on %s: %.1f million parameters, %.1f million of them trained",
        type(model).__name__,
        cfg.train.device,
        sum(n for n, _ in sizes) / 1e6,
        sum(n for n, trained in sizes if trained) / 1e6,
    )
    return model


def build_filled_model(
    cfg: DictConfig, path: str, class_names: Sequence[str] | None = None
) -> nn.Module:
    """The model of a config with the weights in a file, to train it further.

    The backbone's pretrained weights are only fetched if the file turns out not to fill it.

    Args:
        cfg: a complete config.
        path: the file.
        class_names: of the data; a file for other classes then gives what it knows of them.

    Raises:
        FileNotFoundError, CheckpointError: the file can't be read or doesn't fit the model.
    """
    model, report = fill_model(cfg, path, class_names)
    _check(report, path, cfg.train.allow_partial_backbone)
    unfilled = report.unfilled_backbone()
    if unfilled:
        logger.warning(
            "%s has nothing for %d weights of the backbone, which start from those that "
            "model.backbone names; without any there they start from random ones",
            path,
            len(unfilled),
        )
        model = build_model(cfg)
        report = load_weights(model, path, class_names)
    logger.info("%s: %s", path, report)
    return model


def build_evaluated_model(
    cfg: DictConfig, path: str, class_names: Sequence[str] | None = None
) -> nn.Module:
    """The model of a config with all of its weights from a file.

    Raises:
        FileNotFoundError, CheckpointError: the file can't be read, lacks weights of the model, or
            is for other classes than the data.
    """
    model, report = fill_model(cfg, path)
    report.check_complete(path, class_names)
    logger.info("%s: %s", path, report)
    return model


def build_resumed_model(cfg: DictConfig, path: str) -> nn.Module:
    """The model of a config with the weights of a checkpoint of its own training.

    Raises:
        CheckpointError: the checkpoint is of another model.
    """
    model, report = fill_model(cfg, path)
    lacking = [*report.missing, *report.mismatched]
    if lacking:
        raise CheckpointError(
            f"--resume: {path} is of another model: it doesn't fit {len(lacking)} weights of this "
            f"one ({', '.join(lacking[:3])}). Resume with the config of that training, or start a "
            "new one with another train.output_dir."
        )
    return model


def build_ema(cfg: DictConfig, model: nn.Module, path: str = "") -> ModelEma | None:
    """Averaged weights, if the config asks for them.

    Args:
        cfg: a complete config.
        model: whose weights are averaged.
        path: a checkpoint, whose averaged weights are taken over if it has any: only checkpoints
            of our own training do, others are their own average.

    Raises:
        ValueError: those in the checkpoint are of another model.
    """
    if not cfg.train.model_ema.enabled:
        return None
    ema = ModelEma(model, cfg.train.model_ema.decay, cfg.train.model_ema.device)
    averaged = read_weight_file(PathManager.get_local_path(path)).averaged if path else None
    if averaged is not None:
        ema.load_state_dict(averaged)
    return ema


def build_optimizer(cfg: DictConfig, model: nn.Module) -> torch.optim.Optimizer:
    """The optimizer of a config, over the parameters of a model."""
    cfg.optimizer.params.model = model
    optimizer: torch.optim.Optimizer = instantiate(cfg.optimizer)
    return optimizer


def distributed(cfg: DictConfig, model: nn.Module) -> nn.Module:
    """A model whose gradients several processes share as ``train.ddp`` says; alone as it is."""
    options = dict(cfg.train.ddp)
    if next(model.parameters()).device.type == "cpu":
        options.setdefault("device_ids", None)  # those of GPUs otherwise
    wrapped: nn.Module = create_ddp_model(model, **options)
    return wrapped


def checkpoint_to_evaluate(cfg: DictConfig) -> str:
    """``train.init_checkpoint``, or else the last checkpoint of ``train.output_dir``.

    Raises:
        FileNotFoundError: there is neither.
    """
    path = cfg.train.init_checkpoint or last_checkpoint(cfg.train.output_dir)
    if not path:
        raise FileNotFoundError(
            f"nothing to evaluate: train.output_dir={cfg.train.output_dir} has no checkpoint; "
            "name one with train.init_checkpoint=path/to/model.pth."
        )
    return str(path)


def last_checkpoint(output_dir: str) -> str:
    """The checkpoint that a run in ``output_dir`` would be resumed from, or ""."""
    checkpointer = DetectionCheckpointer(nn.Module(), output_dir)
    return checkpointer.get_checkpoint_file() if checkpointer.has_checkpoint() else ""


def fill_model(
    cfg: DictConfig, path: str, class_names: Sequence[str] | None = None
) -> tuple[nn.Module, LoadReport]:
    """The model of a config with what a file has for it, and what became of each weight."""
    # What the file fills can only be told apart for a backbone that is called so.
    with skip_pretrained() if "backbone" in cfg.model else nullcontext():
        model = build_model(cfg)
    return model, load_weights(model, path, class_names)


def _check(report: LoadReport, path: str, allow_partial_backbone: bool) -> None:
    try:
        report.check(path, allow_partial_backbone)
    except CheckpointError as e:
        raise CheckpointError(
            f"{e} If the config has another backbone than the recipe that it changes, give its "
            'weights as train.init_checkpoint=..., or say train.init_checkpoint="" to start from '
            "those that model.backbone names."
        ) from e

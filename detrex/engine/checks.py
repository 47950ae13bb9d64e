"""What can be known to be wrong before a training starts."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import torch
from torch import nn

__all__ = ["check_checkpoint_exists", "check_optimizer", "check_output_dir", "local_checkpoint"]


def check_output_dir(output_dir: str, resume: bool) -> None:
    """Create the output directory, and refuse one that holds another run.

    Raises:
        FileExistsError: it holds a run and `resume` is False.
        OSError: it cannot be created or written to.
    """
    traces = ("last_checkpoint", "metrics.json")
    found = [name for name in traces if os.path.exists(os.path.join(output_dir, name))]
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

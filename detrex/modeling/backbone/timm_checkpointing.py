"""Gradient checkpointing in timm's networks, whose own switch runs the forward pass of a block
again during the backward pass. Batch norms would count the same images twice then."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = ["checkpoint_gradients"]


def checkpoint_gradients(trunk: nn.Module, model_name: str) -> None:
    """Let ``trunk`` keep less for the backward pass and compute it again.

    Raises:
        ValueError: if the network has no switch for it.
    """
    network: Any = dict(trunk.named_children()).get("model", trunk)
    try:
        network.set_grad_checkpointing(True)
    except (AttributeError, AssertionError) as error:
        raise ValueError(
            f"{model_name} cannot checkpoint its gradients; leave grad_checkpointing out."
        ) from error
    for module in trunk.modules():
        if isinstance(module, _BatchNorm) and module.track_running_stats:
            module.register_forward_pre_hook(_set_statistics_aside)
            module.register_forward_hook(_put_statistics_back, always_call=True)


def _set_statistics_aside(norm: _BatchNorm, _: Any) -> None:
    """In a backward pass, give ``norm`` copies of its running statistics to write into."""
    if norm.training and torch._C._current_graph_task_id() >= 0:
        own = dict(norm.named_buffers(recurse=False))
        norm.__dict__["_set_aside"] = own
        for name, value in own.items():
            setattr(norm, name, value.clone())


def _put_statistics_back(norm: _BatchNorm, *_: Any) -> None:
    for name, value in norm.__dict__.pop("_set_aside", {}).items():
        setattr(norm, name, value)

"""Batch norms as constants, in networks that others wrote."""

from __future__ import annotations

from typing import Any

import torchvision
from detectron2.layers import FrozenBatchNorm2d
from timm.layers import FrozenBatchNormAct2d, freeze_batch_norm_2d
from torch import Tensor, nn
from torch.nn import functional as F

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm)


class FrozenBatchNorm1d(nn.Module):
    """A constant batch norm over rows: (N, C) -> (N, C), as LeViT has it after linear layers."""

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, norm: nn.BatchNorm1d) -> None:
        super().__init__()
        self.eps = norm.eps
        for name in ("weight", "bias", "running_mean", "running_var"):
            self.register_buffer(name, getattr(norm, name).detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
        )


_FROZEN_NORMS = (torchvision.ops.FrozenBatchNorm2d, FrozenBatchNormAct2d, FrozenBatchNorm1d)


def is_frozen_norm(norm_layer: Any) -> bool:
    """Whether a ``norm_layer`` argument asks for constant batch norms."""
    if isinstance(norm_layer, str):
        return norm_layer == "FrozenBN"
    return norm_layer in (FrozenBatchNorm2d, torchvision.ops.FrozenBatchNorm2d)


def freeze_all_norms(network: nn.Module, name: str) -> nn.Module:
    """``network`` with its batch norms made constant, outputs and activations unchanged.

    Raises:
        ValueError: if it has none.
    """
    if not any(isinstance(module, _BATCH_NORMS + _FROZEN_NORMS) for module in network.modules()):
        kinds = {type(m).__name__ for m in network.modules() if "norm" in type(m).__name__.lower()}
        raise ValueError(
            f"{name} has no batch norm that could be frozen (its norms are "
            f"{', '.join(sorted(kinds)) or 'none'}); leave norm_layer and freeze_norm out."
        )
    return _freeze(network)


def _freeze(network: nn.Module) -> nn.Module:
    if isinstance(network, nn.BatchNorm1d):
        return FrozenBatchNorm1d(network)
    network = freeze_batch_norm_2d(network)
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.BatchNorm1d):
            network.set_submodule(name, FrozenBatchNorm1d(module))
    return network


def freeze_parameters(network: nn.Module, names: set[str]) -> None:
    """Make parameters constant, and the batch norms among them too, whatever ``.train()`` says."""
    for key, parameter in network.named_parameters():
        if key in names:
            parameter.requires_grad_(False)
    for key, module in list(network.named_modules()):
        if isinstance(module, _BATCH_NORMS) and f"{key}.weight" in names:
            network.set_submodule(key, _freeze(module))

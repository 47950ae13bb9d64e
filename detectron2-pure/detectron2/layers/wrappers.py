"""Thin extensions of torch.nn layers and functions."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.functional import interpolate

__all__ = [
    "BatchNorm2d",
    "Conv2d",
    "ConvTranspose2d",
    "Linear",
    "cat",
    "check_if_dynamo_compiling",
    "cross_entropy",
    "empty_input_loss_func_wrapper",
    "interpolate",
    "move_device_like",
    "nonzero_tuple",
    "shapes_to_tensor",
]

# These accept empty batches in every torch that is supported.
ConvTranspose2d = nn.ConvTranspose2d
BatchNorm2d = nn.BatchNorm2d
Linear = nn.Linear


class Conv2d(nn.Conv2d):
    """torch.nn.Conv2d with an optional norm and activation after it.

    Parameters are named ``weight``, ``bias`` and ``norm.*``.

    Args:
        norm: module applied to the output.
        activation: function applied after the norm.
    """

    def __init__(
        self,
        *args: Any,
        norm: nn.Module | None = None,
        activation: Callable[[Tensor], Tensor] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.norm = norm
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) -> (B, C_out, H', W')."""
        # super().forward(x), which TorchScript cannot compile
        x = self._conv_forward(x, self.weight, self.bias)
        if self.norm is not None:
            x = self.norm(x)
        return x if self.activation is None else self.activation(x)


def cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """torch.cat that returns a single tensor as it is, without a copy."""
    if not isinstance(tensors, list | tuple):
        raise TypeError(f"cat() takes a list or tuple of tensors, not {type(tensors).__name__}.")
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors, dim)


def empty_input_loss_func_wrapper(loss_func: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """``loss_func`` whose mean over no elements is 0, connected to the graph, not NaN."""

    def wrapped(input: Tensor, target: Tensor, *, reduction: str = "mean", **kwargs: Any) -> Tensor:
        if target.numel() == 0 and reduction == "mean":
            return input.sum() * 0.0
        return loss_func(input, target, reduction=reduction, **kwargs)

    return wrapped


cross_entropy = empty_input_loss_func_wrapper(F.cross_entropy)


def nonzero_tuple(x: Tensor) -> tuple[Tensor, ...]:
    """Indices of the nonzero elements, one 1-d tensor per dimension (one for a scalar)."""
    return x.nonzero(as_tuple=True)


def shapes_to_tensor(x: Sequence[Any], device: torch.device | None = None) -> Tensor:
    """A sequence of integers, or of scalar tensors as in tracing, as one int64 tensor."""
    if torch.jit.is_tracing() and any(isinstance(v, Tensor) for v in x):
        result = torch.stack([torch.as_tensor(v) for v in x])
        return result if device is None or result.device == device else result.to(device)
    return torch.as_tensor([int(v) for v in x], device=device)


def move_device_like(src: Tensor, dst: Tensor) -> Tensor:
    """``src`` on the device of ``dst``."""
    return src.to(dst.device)


def check_if_dynamo_compiling() -> bool:
    """Whether torch.compile is tracing the code that asks."""
    return torch.compiler.is_compiling()

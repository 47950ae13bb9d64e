"""Arithmetic shared by layers and models."""

import torch
from torch import Tensor
from torch.nn import functional as F


def inverse_sigmoid(x: Tensor, eps: float = 1e-3) -> Tensor:
    """The logit of ``x``, finite at 0 and 1.

    Args:
        x: values of any shape; those outside [0, 1] count as 0 or 1.
        eps: ``x`` and ``1 - x`` are held at or above this, so the result lies within
            ``log(eps) .. -log(eps)``. The published models use 1e-3.
    """
    x = x.clamp(0, 1)
    return torch.log(x.clamp(min=eps) / (1 - x).clamp(min=eps))


def at_least_float32(x: Tensor) -> Tensor:
    """Half precision in single precision; double precision stays.

    For what half precision is too coarse for: boxes (a thousandth of an image is more than one
    pixel) and sums over all queries.
    """
    return x.to(torch.promote_types(x.dtype, torch.float32))


def softplus(x: Tensor) -> Tensor:
    """``log(1 + exp(x))``, to one rounding of numbers near 1.

    On CPUs several times as fast as torch's, whose ``log1p`` goes number by number.
    """
    size = x.abs()
    # Halving the sum, rather than taking the positive part, gives 0 its gradient of 1/2.
    return (x + size) / 2 - size.sigmoid().log()


def interpolate(
    input: Tensor,
    size: int | tuple[int, int] | None = None,
    scale_factor: float | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
) -> Tensor:
    """Maps (B, C, H, W) of another size, also of no images or no channels.

    Args:
        input: the maps.
        size: their new height and width; or
        scale_factor: what both are multiplied by.
        mode: ``"nearest"``, ``"bilinear"`` and others of torch's function of this name.
        align_corners: whether ``"bilinear"`` maps the centers of corner cells to each other.
    """
    if input.shape[1] == 0:  # torch refuses that
        like = input.new_empty(input.shape[0], 1, *input.shape[2:])
        return F.interpolate(like, size, scale_factor, mode, align_corners)[:, :0]
    return F.interpolate(input, size, scale_factor, mode, align_corners)

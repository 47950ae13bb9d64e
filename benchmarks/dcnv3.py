"""DCNv3 by deformable attention's kernels and by grid_sample, forward, and with gradients.

    python benchmarks/dcnv3.py --output dcnv3.json

One convolution of each level of InternImage-T (arXiv:2211.05778), without its projections, for one
image of 400 x 544. Offsets are a pixel or so.
"""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

import torch
from common import compare, options, write
from torch import Tensor

from detrex.benchmark import Work, prepare
from detrex.layers.dcn_v3 import DCNv3Function, dcnv3_core_pytorch

LEVELS = [(100, 136, 64), (50, 68, 128), (25, 34, 256), (13, 17, 512)]
"""Height, width and channels."""

WAYS = {"ours": DCNv3Function.apply, "grid_sample": dcnv3_core_pytorch}
Inputs = tuple[Tensor, Tensor, Tensor]


def inputs(height: int, width: int, channels: int, device: torch.device) -> Inputs:
    """Map, offsets and weights for groups of 16 channels and kernels of 3 x 3 points."""
    torch.manual_seed(0)
    size, points = (1, height, width), channels // 16 * 9
    weights = torch.randn(*size, channels // 16, 9).softmax(-1).flatten(-2)
    tensors = torch.randn(*size, channels), torch.randn(*size, 2 * points), weights
    x, offset, mask = (tensor.to(device).requires_grad_() for tensor in tensors)
    return x, offset, mask


def forward(name: str, x: Inputs) -> Tensor:
    """The convolution, without gradients."""
    with torch.no_grad():
        return convolve(name, x)


def forward_backward(name: str, x: Inputs) -> tuple[Tensor, ...]:
    """The gradients of all inputs."""
    y = convolve(name, x)
    return torch.autograd.grad(y, x, torch.ones_like(y))


def convolve(name: str, x: Inputs) -> Tensor:
    """Stride 1, padded to keep the size."""
    return WAYS[name](*x, *(3, 3), *(1,) * 6, *(x[0].shape[-1] // 16, 16, 1.0))


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Compare both ways in each level."""
    device, clock = prepare(args)
    results: dict[str, Any] = {}
    for height, width, channels in LEVELS:
        x = inputs(height, width, channels, device)
        for what, run in (("forward", forward), ("forward and backward", forward_backward)):
            name = f"{height} x {width}, {channels} channels, {what}"
            if args.only in name:
                print(name)
                works: dict[str, Work] = {way: partial(run, way, x) for way in WAYS}
                results[name] = compare("ours", works, args.repeats, device, clock)
    return results


def main() -> None:
    args = options(__doc__, repeats=15).parse_args()
    write(args, measure(args))


if __name__ == "__main__":
    main()

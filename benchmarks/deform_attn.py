"""Deformable attention by all implementations there are, forward, and forward and backward.

    python benchmarks/deform_attn.py --output deform_attn.json
    python benchmarks/deform_attn.py --device cuda --dtypes float32 bfloat16

One layer for one image of 800 x 1066: 17,821 tokens of four levels are the queries of the encoder,
900 boxes those of the decoder, and points lie as in trained models, a few cells around the token or
in the box. The peer is the way by grid_sample: transformers' and, always there, our own.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from common import compare, matmul_gflops, options, peer, write
from torch import Tensor

from detrex.benchmark import Work, prepare
from detrex.layers.ms_deform_attn import implementation, ms_deform_attn, use_implementation
from detrex.layers.ms_deform_attn.op import KERNELS

SHAPES = [(100, 134), (50, 67), (25, 34), (13, 17)]
TOKENS = sum(height * width for height, width in SHAPES)
HEADS, CHANNELS, POINTS, BOXES = 8, 32, 4, 900
Function = Callable[["Inputs"], Tensor]


class Inputs(NamedTuple):
    """Arguments of the operator and the cotangent of its result."""

    value: Tensor
    locations: Tensor
    weights: Tensor
    grad: Tensor


def encoder_locations(images: int) -> Tensor:
    """Each head looks into a direction of its own, point i about i cells away."""
    steps = [(torch.arange(n) + 0.5) / n for shape in SHAPES for n in shape]
    grids = [torch.cartesian_prod(y, x).flip(-1) for y, x in zip(steps[::2], steps[1::2])]  # noqa: B905
    centers = torch.cat(grids)[None, :, None, None, None]
    angle = torch.arange(HEADS) * (2 * torch.pi / HEADS)
    direction = torch.stack((angle.cos(), angle.sin()), -1)[:, None, None]
    offsets = direction * torch.arange(1, POINTS + 1)[:, None]
    noise = torch.randn(images, TOKENS, HEADS, len(SHAPES), POINTS, 2)
    cells = torch.tensor([(width, height) for height, width in SHAPES])[:, None]
    return centers + (offsets + noise) / cells


def decoder_locations(images: int) -> Tensor:
    """Points within boxes of all sizes, at most a few beyond them."""
    centers = torch.rand(images, BOXES, 1, 1, 1, 2)
    sizes = torch.rand(images, BOXES, 1, 1, 1, 2).square()
    noise = torch.randn(images, BOXES, HEADS, len(SHAPES), POINTS, 2)
    return centers + noise * sizes / 4


def inputs(locations: Tensor, dtype: torch.dtype, device: torch.device) -> Inputs:
    """Values and the cotangent in ``dtype``, points and weights in single precision."""
    images, queries = locations.shape[:2]
    value = torch.randn(images, TOKENS, HEADS, CHANNELS)
    logits = torch.randn(images, queries, HEADS, len(SHAPES) * POINTS)
    weights = logits.softmax(-1).view(locations.shape[:-1])
    grad = torch.randn(images, queries, HEADS * CHANNELS)
    return Inputs(
        value.to(device, dtype).requires_grad_(),
        locations.to(device).requires_grad_(),
        weights.to(device).requires_grad_(),
        grad.to(device, dtype),
    )


def run_implementation(name: str, x: Inputs) -> Tensor:
    """Our operator by one implementation."""
    with use_implementation(name):
        return ms_deform_attn(x.value, SHAPES, x.locations, x.weights)


def functions(device: torch.device) -> dict[str, Function]:
    """Implementations that can run there, the default one first."""
    found: dict[str, Function] = {}
    for name in (*KERNELS.get(device.type, ()), "pytorch"):
        with use_implementation(name):
            if implementation(device.type).name == name:
                found[f"ours, {name}"] = partial(run_implementation, name)
            else:
                print(f"{name} can't run here: {implementation(device.type).passed_over}")
    if peer("transformers"):
        from transformers.models.deformable_detr import modeling_deformable_detr

        module = modeling_deformable_detr.MultiScaleDeformableAttention()
        shapes = torch.tensor(SHAPES, device=device)

        def theirs(x: Inputs) -> Tensor:
            like = x.value.dtype  # grid_sample takes one dtype, so half precision moves points
            locations, weights = x.locations.to(like), x.weights.to(like)
            return module(x.value, shapes, SHAPES, None, locations, weights, 64)

        found["transformers"] = theirs
    return found


def forward(function: Function, x: Inputs) -> Tensor:
    """The result, without gradients."""
    with torch.no_grad():
        return function(x)


def forward_backward(function: Function, x: Inputs) -> tuple[Tensor, ...]:
    """The gradients of value, locations and weights."""
    return torch.autograd.grad(function(x), x[:3], x.grad)


def differences(works: dict[str, Work]) -> dict[str, float]:
    """From our grid_sample's result, relative to its largest number."""
    expected: Any = works["ours, pytorch"]()
    found: dict[str, Any] = {name: work() for name, work in works.items()}
    return {n: float((y - expected).abs().max() / expected.abs().max()) for n, y in found.items()}


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Compare all implementations in each dtype and shape."""
    device, clock = prepare(args)
    ways = functions(device)
    ours = next(iter(ways))
    results: dict[str, Any] = {}
    for dtype in (getattr(torch, name) for name in args.dtypes):
        results[f"matmul GFLOP/s, {dtype}"] = matmul_gflops(device, dtype, clock)
        for shape, make in (("encoder", encoder_locations), ("decoder", decoder_locations)):
            x = inputs(make(args.images), dtype, device)
            rows = 4 * x.weights.numel()
            gflop, gbyte = 2e-9 * rows * CHANNELS, 1e-9 * rows * CHANNELS * dtype.itemsize
            for what, run in (("forward", forward), ("forward and backward", forward_backward)):
                name = f"{shape}, {str(dtype).removeprefix('torch.')}, {what}"
                if args.only not in name:
                    continue
                works: dict[str, Work] = {key: partial(run, way, x) for key, way in ways.items()}
                print(name)
                once = {"GB": gbyte, "GFLOP": gflop} if run is forward else {}
                results[name] = compare(ours, works, args.repeats, device, clock, once)
                if run is forward:
                    results[name]["relative difference"] = wrong = differences(works)
                    print("  from grid_sample:", *(f"{k} {v:.1e};" for k, v in wrong.items()))
    return results


def main() -> None:
    parser = options(__doc__, repeats=9)
    parser.add_argument("--images", type=int, default=1)
    parser.add_argument("--dtypes", nargs="+", default=["float32"], choices=["float32", "bfloat16"])
    args = parser.parse_args()
    write(args, measure(args))


if __name__ == "__main__":
    main()

"""Whole models on one image: seconds beside peers, and the seconds and FLOPs of each stage.

    python benchmarks/inference.py --output inference.json
    python benchmarks/inference.py --only DINO --dtype bfloat16 --size 480 640

Ours, as it was trained and as `for_inference` makes it ready, and the peers run in turns in one
process, all with random weights. Where there is deformable attention ours also runs with
`grid_sample` in place of the kernels, as it is done elsewhere where nothing can be compiled.
transformers has no DINO; its two-stage Deformable-DETR with as many queries comes nearest.
torchvision's Faster R-CNN with the same backbone stands for what isn't a transformer.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from common import compare, matmul_gflops, options, peer, prepare, write
from peers import check_size, torchvision_inference, transformers_inference, without_gradients

from detrex.engine.benchmark import (
    benchmark_config,
    build_random_model,
    measure_stages,
    random_batch,
    stage_table,
)
from detrex.layers import MultiScaleDeformableAttention
from detrex.layers.ms_deform_attn import use_implementation
from detrex.modeling.inference import for_inference
from detrex.utils.measure import Clock, Work

MODELS = {
    "DINO-R50-4scale": (
        "dino/models/dino_r50.py",
        "two-stage Deformable-DETR, 900 queries",
    ),
    "Deformable-DETR-R50": ("deformable_detr/models/deformable_detr_r50.py", "Deformable-DETR"),
    "DETR-R50": ("detr/models/detr_r50.py", "DETR"),
    "Conditional-DETR-R50": (
        "conditional_detr/models/conditional_detr_r50.py",
        "Conditional-DETR",
    ),
    "DAB-DETR-R50": ("dab_detr/models/dab_detr_r50.py", "DAB-DETR"),
}


def by_grid_sample(work: Work) -> Work:
    def run() -> object:
        with use_implementation("pytorch"):
            return work()

    return run


def add_peer(works: dict[str, Work], name: str, work: Work) -> None:
    """Unless it can't be run, as some can't in half precision."""
    try:
        work()
    except RuntimeError as error:
        print(f"without {name}: {str(error).splitlines()[0]}")
    else:
        works[name] = work


def measure_model(
    name: str, args: argparse.Namespace, device: torch.device, clock: Clock
) -> dict[str, Any]:
    config, theirs = MODELS[name]
    size, dtype = tuple(args.size), getattr(torch, args.dtype)
    model = build_random_model(benchmark_config(config), device).eval().to(dtype)
    batch = random_batch(size)
    fast = for_inference(model)
    ours = without_gradients(lambda: fast(batch))
    works: dict[str, Work] = {
        f"detrex {name}": ours,
        "as it was trained": without_gradients(lambda: model(batch)),
    }
    if any(isinstance(m, MultiScaleDeformableAttention) for m in model.modules()):
        works["as it was trained, by grid_sample"] = by_grid_sample(
            without_gradients(lambda: model(batch))
        )
    if "transformers" in args.peers:
        work = transformers_inference(theirs, size, device, dtype)
        add_peer(works, f"transformers {theirs}", work)
    if "torchvision" in args.peers:
        work = torchvision_inference(size, device, dtype)
        add_peer(works, "torchvision Faster R-CNN", work)
    print(f"\n{name}, {args.size[0]} x {args.size[1]}, {args.dtype}")
    limit = matmul_gflops(device, dtype, clock)
    result = compare(f"detrex {name}", works, args.repeats, device, clock)
    stages = measure_stages(fast, ours, device, min(args.repeats, 3), clock)
    print(stage_table(stages, limit), flush=True)
    return {
        "works": result,
        "matmul GFLOP/s": limit,
        "stages": [stage._asdict() for stage in stages],
    }


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--size", type=int, nargs=2, default=(800, 1066), metavar=("H", "W"))
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument(
        "--peers", nargs="*", default=["transformers", "torchvision"], help="none: only ours"
    )
    args = parser.parse_args()
    device, clock = prepare(args)
    check_size(parser, args)
    args.peers = [name for name in args.peers if peer(name)]
    names = [name for name in MODELS if args.only in name]
    write(args, {name: measure_model(name, args, device, clock) for name in names})


if __name__ == "__main__":
    main()

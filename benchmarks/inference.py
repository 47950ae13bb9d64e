"""Whole models on one image: seconds beside peers, and the seconds and FLOPs of each stage.

    python benchmarks/inference.py --output inference.json
    python benchmarks/inference.py --only DINO --dtype bfloat16 --size 480 640

Ours, as it was trained and as ``for_inference`` makes it ready, and the peers run in turns in one
process, all with random weights. Where there is deformable attention ours also runs with
``grid_sample`` in place of the kernels, as it is done elsewhere where nothing can be compiled.
transformers has no DINO; its two-stage Deformable-DETR with as many queries comes nearest.
torchvision's Faster R-CNN with the same backbone stands for what isn't a transformer.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from common import compare_stages
from peers import (
    measure_models,
    torchvision_inference,
    transformers_inference,
    without_gradients,
)

from detrex.benchmark import Clock, Work, build_random_model, random_batch
from detrex.config import get_config
from detrex.layers import MultiScaleDeformableAttention
from detrex.layers.ms_deform_attn import use_implementation
from detrex.modeling.inference import for_inference

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


def with_grid_sample(work: Work) -> Work:
    """The work with deformable attention in plain PyTorch."""

    def run() -> object:
        with use_implementation("pytorch"):
            return work()

    return run


def add_peer(works: dict[str, Work], name: str, work: Work) -> None:
    """Add a peer unless it can't be run, as some can't in half precision."""
    try:
        work()
    except RuntimeError as error:
        print(f"without {name}: {str(error).splitlines()[0]}")
    else:
        works[name] = work


def measure_model(
    name: str, args: argparse.Namespace, device: torch.device, clock: Clock
) -> dict[str, Any]:
    """Compare one model with its peers."""
    config, theirs = MODELS[name]
    size, dtype = tuple(args.size), getattr(torch, args.dtype)
    model = build_random_model(get_config(config), device).eval().to(dtype)
    batch = random_batch(size)
    fast = for_inference(model)
    works: dict[str, Work] = {
        f"detrex {name}": without_gradients(lambda: fast(batch)),
        "as it was trained": without_gradients(lambda: model(batch)),
    }
    if any(isinstance(m, MultiScaleDeformableAttention) for m in model.modules()):
        works["as it was trained, by grid_sample"] = with_grid_sample(
            without_gradients(lambda: model(batch))
        )
    if "transformers" in args.peers:
        work = transformers_inference(theirs, size, device, dtype)
        add_peer(works, f"transformers {theirs}", work)
    if "torchvision" in args.peers:
        work = torchvision_inference(size, device, dtype)
        add_peer(works, "torchvision Faster R-CNN", work)
    print(f"\n{name}, {args.size[0]} x {args.size[1]}, {args.dtype}")
    return compare_stages(f"detrex {name}", works, fast, dtype, args, device, clock)


if __name__ == "__main__":
    peers, dtypes = ("transformers", "torchvision"), ("float32", "bfloat16", "float16")
    measure_models(__doc__, MODELS, (800, 1066), peers, measure_model, dtypes)

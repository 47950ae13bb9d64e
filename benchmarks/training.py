"""A training step: seconds beside transformers' Deformable-DETR, those of each stage, and memory.

    python benchmarks/training.py --output training.json

One image of 480 x 640 with ten objects, random weights. A step is forward, backward, clipping and
AdamW; ours is that of ``tools/train_net.py``, with its checks. Each runs in turns with its peer in
one process; memory is measured in a process for each.
"""

from __future__ import annotations

import argparse
import importlib
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import torch
from common import compare_stages
from peers import TransformersStep, measure_models

from detrex.benchmark import (
    Batch,
    Clock,
    TrainingStep,
    build_random_model,
    peak_memory,
    random_batch,
)
from detrex.config import load_sections
from detrex.layers import box_xyxy_to_cxcywh
from detrex.layers.ms_deform_attn import ms_deform_attn

MODELS = {
    "DAB-Deformable-DETR-R50": (
        "dab_deformable_detr/dab_deformable_detr_r50_50ep.py",
        "Deformable-DETR with refinement",
    ),
    "DINO-R50-4scale": (
        "dino/dino-resnet/dino_r50_4scale_12ep.py",
        "two-stage Deformable-DETR, 900 queries",
    ),
}
Size = tuple[int, int]


def our_step(name: str, size: Size, device: torch.device) -> TrainingStep:
    """A step of a model of ours, as its config says."""
    cfg = load_sections(MODELS[name][0], (), ("model", "optimizer"), "a training step")
    return TrainingStep(cfg, build_random_model(cfg, device), random_batch(size, num_classes=80))


def labels(batch: Batch) -> list[dict[str, torch.Tensor]]:
    """The objects of a batch as transformers wants them."""
    height, width = batch[0]["instances"].image_size
    scale = torch.tensor([width, height, width, height])
    return [
        {
            "class_labels": x["instances"].gt_classes,
            "boxes": box_xyxy_to_cxcywh(x["instances"].gt_boxes.tensor / scale),
        }
        for x in batch
    ]


def their_step(name: str, size: Size, device: torch.device) -> TransformersStep:
    """A step of the peer."""
    batch = random_batch(size, num_classes=80)
    return TransformersStep(MODELS[name][1], labels(batch), size, device)


def memory_of(
    ours: bool, name: str, size: Size, device: torch.device, threads: int | None
) -> int | None:
    """Bytes at the peak of two steps, gradients and the optimizer's state included."""
    if threads:
        torch.set_num_threads(threads)
    load_libraries()
    step = (our_step if ours else their_step)(name, size, device)
    return peak_memory(lambda: (step(), step()), device)


def load_libraries() -> None:
    """Compilers and solvers that a first step brings in are no part of what it needs."""
    importlib.import_module("scipy.optimize")
    value, locations = torch.rand(1, 1, 1, 32, requires_grad=True), torch.rand(1, 1, 1, 1, 1, 2)
    ms_deform_attn(value, [(1, 1)], locations, torch.rand(1, 1, 1, 1, 1)).sum().backward()


def in_own_process(*arguments: Any) -> int | None:
    """``memory_of`` in a process for it alone."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context) as pool:
        return pool.submit(memory_of, *arguments).result()


def measure_model(
    name: str, args: argparse.Namespace, device: torch.device, clock: Clock
) -> dict[str, Any]:
    """Compare one model with its peer, the memory in processes of their own."""
    size = tuple(args.size)
    print(f"\n{name}, {size[0]} x {size[1]}")
    works: dict[str, Any] = {f"detrex {name}": our_step(name, size, device)}
    if args.peers:
        works[f"transformers {MODELS[name][1]}"] = their_step(name, size, device)
    step = works[f"detrex {name}"]
    result = compare_stages(
        f"detrex {name}", works, step.trainer.model, torch.float32, args, device, clock
    )
    memory = {
        work: in_own_process(work.startswith("detrex"), name, size, device, args.threads)
        for work in works
    }
    for work, peak in memory.items():
        print(f"  {work:<36}", "unknown" if peak is None else f"{peak / 2**20:.0f} MiB at the peak")
    return {**result, "peak memory in bytes": memory}


if __name__ == "__main__":
    measure_models(__doc__, MODELS, (480, 640), ("transformers",), measure_model)

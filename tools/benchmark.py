#!/usr/bin/env python3
"""How fast a model of yours is, where its time goes, and how near it comes to the machine's limit.

    python tools/benchmark.py --config-file configs/dino/dino-resnet/dino_r50_4scale_12ep.py
    python tools/benchmark.py --config-file F --task training --size 480 640 model.num_classes=3
    python tools/benchmark.py --config-file F --task data --repeats 50
    python tools/benchmark.py --config-file F --task data_advanced

detectron2's names of tasks do as well: "eval" is inference, "train" is training. "data_advanced"
times the parts of the loader: records, mapper, workers, transport.

Inference and training take random weights and random images; a file with the model alone does for
inference. Settings of the config count: ``train.amp.enabled=true`` measures mixed precision. Names
of configs that come with detrex do as well as paths.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import time
from collections.abc import Callable, Sequence
from typing import cast

import torch
from detectron2.config import instantiate
from detectron2.data.benchmark import DataLoaderBenchmark
from detectron2.engine import launch
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger
from omegaconf import DictConfig
from torch import nn

from detrex.benchmark import (
    Batch,
    Clock,
    Result,
    TrainingStep,
    Work,
    add_options,
    build_random_model,
    device_name,
    matmul_rate,
    measure_stages,
    peak_memory,
    prepare,
    random_batch,
    report,
    spread,
    time_in_turns,
    write_json,
)
from detrex.config import load_sections
from detrex.engine.cli import check_processes
from detrex.engine.errors import SetupError, setup_errors
from detrex.engine.loaders import TrainStream
from detrex.engine.trainer import amp_dtype
from detrex.layers.ms_deform_attn import implementation
from detrex.modeling.detr import DETR
from detrex.modeling.inference import for_inference
from detrex.utils.allocator import keep_freed_memory

SECTIONS = {
    "inference": ("model",),
    "training": ("model", "optimizer"),
    "data": ("dataloader.train",),
    "data_advanced": ("dataloader.train",),
}
PURPOSES = {"inference": "a model", "training": "a training step"}
ALIASES = {"eval": "inference", "train": "training"}
PARTS = ("dataset", "mapper", "workers", "IPC", "distributed")
DTYPES = ("float32", "bfloat16", "float16")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, help="a LazyConfig file")
    parser.add_argument("--task", choices=[*SECTIONS, *ALIASES], default="inference")
    parser.add_argument(
        "--size", type=int, nargs=2, default=(800, 1066), metavar=("H", "W"), help="of the images"
    )
    parser.add_argument("--batch-size", type=int, default=1, help="of each process")
    add_options(parser, repeats=10, device="auto")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="of weights; inference")
    parser.add_argument("--compile", action="store_true", help="by torch.compile; inference")
    parser.add_argument(
        "--for-inference",
        action="store_true",
        help="the model as detrex.modeling.inference.for_inference makes it ready; inference",
    )
    parser.add_argument("--num-gpus", type=int, default=1, help="per machine; not for inference")
    parser.add_argument("--num-machines", type=int, default=1)
    parser.add_argument("--machine-rank", type=int, default=0, help="which machine this is")
    parser.add_argument("--dist-url", default="auto", help="where processes meet")
    parser.add_argument("overrides", nargs="*", help="changes to the config: key=value")
    return parser


def check(args: argparse.Namespace) -> None:
    """Check the options against their ranges and against the task.

    Raises:
        ValueError: an option is out of range or doesn't fit the task.
    """
    for name, least in (("repeats", 2), ("batch_size", 1), ("threads", 1)):
        value = getattr(args, name)
        if value is not None and value < least:
            raise ValueError(f"--{name.replace('_', '-')} {value}: it has to be at least {least}.")
    if min(args.size) < 1:
        raise ValueError(f"--size {args.size[0]} {args.size[1]}: sides are at least one pixel.")
    check_processes(args)
    if args.task == "inference" and args.num_gpus * args.num_machines > 1:
        raise ValueError("inference is measured on one GPU; leave --num-gpus out.")
    if args.cpu_time and args.task.startswith("data"):
        raise ValueError("--cpu-time doesn't see what the loader's processes take; leave it out.")
    if args.task != "inference" and (args.compile or args.for_inference or args.dtype != "float32"):
        raise ValueError(
            "--dtype, --compile and --for-inference are for inference; mixed precision in training "
            "is train.amp.enabled=true."
        )


def benchmark(args: argparse.Namespace) -> Result | dict[str, float | None]:
    """Measure what the command line asks for.

    Raises:
        SetupError: the config or an option can't be used, for the reason that it says.
    """
    with setup_errors():
        device, clock = prepare(args)
        sections, purpose = SECTIONS[args.task], PURPOSES.get(args.task, "a training's data")
        cfg = load_sections(args.config_file, args.overrides, sections, purpose)
        if args.task == "data":
            return benchmark_data(args, cfg)
        if args.task == "data_advanced":
            return benchmark_parts(args, cfg)
        model = build_random_model(cfg, device)
        if device.type == "cpu":
            keep_freed_memory()  # as training and evaluation do
        classes = cfg.model.get("num_classes", 1)
        batch = random_batch(tuple(args.size), args.batch_size, classes)
        prepare_work = training_work if args.task == "training" else inference_work
        model, work, uncompiled = prepare_work(args, cfg, model, batch)
    return benchmark_model(args, clock, model, work, uncompiled)


def inference_work(
    args: argparse.Namespace, cfg: DictConfig, model: nn.Module, batch: Batch
) -> tuple[nn.Module, Work, Work]:
    """The model, what to run, and the same without compilation, whose stages can be told apart."""
    dtype = getattr(torch, args.dtype)
    model = for_inference(model, dtype) if args.for_inference else model.eval().to(dtype)
    fast = compiled(model) if args.compile else model
    device = next(model.parameters()).device
    amp = cfg.train.amp

    def run(called: Callable[..., object]) -> object:
        with (
            torch.no_grad(),
            torch.autocast(device.type, amp_dtype(amp.dtype, device), enabled=amp.enabled),
        ):
            return called(batch)

    return model, lambda: run(fast), lambda: run(model)


def compiled(model: nn.Module) -> nn.Module:
    """As ``for_inference`` compiles a DETR; anything else as a whole."""
    if not isinstance(model, DETR):
        return cast(nn.Module, torch.compile(model))
    fast = copy.copy(model)
    fast.predict = torch.compile(fast.predict)  # type: ignore[method-assign]
    return fast


def training_work(
    args: argparse.Namespace, cfg: DictConfig, model: nn.Module, batch: Batch
) -> tuple[nn.Module, Work, Work]:
    """The model and what to run, twice."""
    step = TrainingStep(cfg, model, batch)
    return model, step, step


def benchmark_model(
    args: argparse.Namespace, clock: Clock, model: nn.Module, work: Work, uncompiled: Work
) -> Result:
    """Memory, seconds and stages of a model."""
    device = next(model.parameters()).device
    memory = peak_memory(work, device)  # the first run, which has everything before it
    seconds = spread(time_in_turns({"": work}, args.repeats, device, clock)[""])
    stages = measure_stages(model, uncompiled, device, min(args.repeats, 5), clock)
    gflop = sum(stage.flops for stage in stages) / 1e9
    counts = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return Result(
        config=args.config_file,
        task=args.task,
        batch_size=args.batch_size,
        size=tuple(args.size),
        device=device_name(device),
        threads=torch.get_num_threads(),
        dtype=args.dtype,
        deformable_attention=implementation(device.type).name,
        seconds=seconds,
        images_per_second=args.batch_size * comm.get_world_size() / seconds.median,
        parameters=sum(count for count, _ in counts),
        trained_parameters=sum(count for count, trained in counts if trained),
        peak_memory_bytes=memory,
        gflop=gflop,
        gflop_per_second=gflop / seconds.median,
        matmul_gflop_per_second=matmul_rate(device, getattr(torch, args.dtype), clock) / 1e9,
        stages=stages,
    )


def benchmark_data(args: argparse.Namespace, cfg: DictConfig) -> Result:
    """The training loader as a training would have it, and its mapper alone."""
    node = cfg.dataloader.train
    node.total_batch_size = args.batch_size * comm.get_world_size()
    loader = iter(TrainStream(node, seed=0).loader())
    (seconds,) = time_in_turns(
        {"": lambda: next(loader)}, args.repeats, torch.device("cpu"), warm_up=2
    ).values()
    mapper, records = instantiate(node.mapper), instantiate(node.dataset)
    mapped = []
    for record in itertools.islice(itertools.cycle(records), args.repeats):
        start = time.perf_counter()
        mapper(record)
        mapped.append(time.perf_counter() - start)
    return Result(
        config=args.config_file,
        task="data",
        batch_size=args.batch_size,
        seconds=spread(seconds),
        images_per_second=node.total_batch_size * len(seconds) / sum(seconds),
        mapper_seconds=spread(mapped),
    )


def benchmark_parts(args: argparse.Namespace, cfg: DictConfig) -> dict[str, float | None]:
    """Iterations per second of each part of the training loader, by detectron2's benchmark.

    The full detectron2 logs them alone; they are None then.
    """
    setup_logger(distributed_rank=comm.get_rank())
    node = cfg.dataloader.train
    parts = DataLoaderBenchmark(
        instantiate(node.dataset),
        mapper=instantiate(node.mapper),
        total_batch_size=args.batch_size * comm.get_world_size(),
        num_workers=node.num_workers,
    )
    return {part: getattr(parts, f"benchmark_{part}")(args.repeats) for part in PARTS}


def run(args: argparse.Namespace) -> None:
    """Measure; in the main process print and write the result."""
    result = benchmark(args)
    if not comm.is_main_process():
        return
    if isinstance(result, Result):
        print(report(result))
    if args.output:
        write_json(args.output, result)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write what the command line asks for."""
    args = parser().parse_args(arguments)
    args.task = ALIASES.get(args.task, args.task)
    try:
        with setup_errors():
            check(args)
        machines = (args.num_gpus, args.num_machines, args.machine_rank, args.dist_url)
        launch(run, *machines, args=(args,))
    except SetupError as e:
        raise SystemExit(f"error: {e}") from e


if __name__ == "__main__":
    main()

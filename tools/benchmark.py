#!/usr/bin/env python3
"""How fast a model of yours is, where its time goes, and how near it comes to the machine's limit.

    python tools/benchmark.py --config-file configs/dino/dino-resnet/dino_r50_4scale_12ep.py
    python tools/benchmark.py --config-file F --task training --size 480 640 model.num_classes=3
    python tools/benchmark.py --config-file F --task data --repeats 50

Inference and training take random weights and random images; a file with the model alone does for
inference. Settings of the config count: `train.amp.enabled=true` measures mixed precision. Names of
configs that come with detrex do as well as paths.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import itertools
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from detectron2.config import instantiate
from omegaconf import DictConfig
from torch import nn

from detrex.engine.benchmark import (
    Batch,
    Stage,
    TrainingStep,
    benchmark_config,
    build_random_model,
    measure_stages,
    random_batch,
    stage_table,
)
from detrex.engine.config import select_device
from detrex.engine.errors import SetupError, explained
from detrex.engine.loaders import TrainStream
from detrex.engine.trainer import amp_dtype
from detrex.layers.ms_deform_attn import implementation
from detrex.modeling.detr import DETR
from detrex.modeling.inference import for_inference
from detrex.utils.measure import (
    Clock,
    Spread,
    Work,
    matmul_rate,
    peak_memory,
    spread,
    time_in_turns,
)
from detrex.utils.memory import keep_freed_memory

SECTIONS = {
    "inference": ("model",),
    "training": ("model", "optimizer"),
    "data": ("dataloader.train",),
}
DTYPES = ("float32", "bfloat16", "float16")


@dataclasses.dataclass
class Result:
    """What is known of one config; see the fields' names. None is what was not measured."""

    config: str
    task: str
    batch_size: int
    seconds: Spread
    images_per_second: float
    size: tuple[int, int] | None = None
    device: str = ""
    threads: int = 0
    dtype: str = ""
    deformable_attention: str = ""
    parameters: int = 0
    trained_parameters: int = 0
    peak_memory_bytes: int | None = None
    gflop: float | None = None
    gflop_per_second: float | None = None
    matmul_gflop_per_second: float | None = None
    stages: list[Stage] | None = None
    mapper_seconds: Spread | None = None


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, help="a LazyConfig file")
    parser.add_argument("--task", choices=list(SECTIONS), default="inference")
    parser.add_argument(
        "--size", type=int, nargs=2, default=(800, 1066), metavar=("H", "W"), help="of the images"
    )
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=10, help="runs that count (data: batches)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, ...")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="of weights; inference")
    parser.add_argument("--threads", type=int, help="of torch on the CPU")
    parser.add_argument(
        "--cpu-time",
        action="store_true",
        help="of this process instead of time on the wall: tells more, with --threads 1, on a "
        "machine that does other things as well",
    )
    parser.add_argument("--compile", action="store_true", help="by torch.compile; inference")
    parser.add_argument(
        "--for-inference",
        action="store_true",
        help="the model as detrex.modeling.inference.for_inference makes it ready; inference",
    )
    parser.add_argument("--output", type=Path, help="json file for the result")
    parser.add_argument("overrides", nargs="*", help="changes to the config: key=value")
    return parser


def check(args: argparse.Namespace) -> None:
    """
    Raises:
        ValueError: an option is out of range or doesn't fit the task.
    """
    for name, least in (("repeats", 2), ("batch_size", 1), ("threads", 1)):
        value = getattr(args, name)
        if value is not None and value < least:
            raise ValueError(f"--{name.replace('_', '-')} {value}: it has to be at least {least}")
    if min(args.size) < 1:
        raise ValueError(f"--size {args.size[0]} {args.size[1]}: sides are at least one pixel")
    if args.cpu_time and args.task == "data":
        raise ValueError("--cpu-time doesn't see what the loader's processes take")
    if args.task != "inference" and (args.compile or args.for_inference or args.dtype != "float32"):
        raise ValueError(
            "--dtype, --compile and --for-inference are for inference; mixed precision in training "
            "is train.amp.enabled=true"
        )
    if args.output and not args.output.resolve().parent.is_dir():
        raise FileNotFoundError(f"--output {args.output}: its directory does not exist")


def benchmark(args: argparse.Namespace) -> Result:
    """Measure what the command line asks for.

    Raises:
        SetupError: the config or an option can't be used, for the reason that it says.
    """
    with explained():
        check(args)
        if args.threads:
            torch.set_num_threads(args.threads)
        cfg = benchmark_config(args.config_file, args.overrides, SECTIONS[args.task])
        if args.task == "data":
            return benchmark_data(args, cfg)
        device = select_device(args.device)
        model = build_random_model(cfg, device)
        if device.type == "cpu":
            keep_freed_memory()  # as training and evaluation do
        classes = cfg.model.get("num_classes", 1)
        batch = random_batch(tuple(args.size), args.batch_size, classes)
        prepare = training_work if args.task == "training" else inference_work
        prepared = prepare(args, cfg, model, batch)
    return benchmark_model(args, *prepared)


def inference_work(
    args: argparse.Namespace, cfg: DictConfig, model: nn.Module, batch: Batch
) -> tuple[nn.Module, Work, Work]:
    """The model, what to run, and the same by modules that can be told apart."""
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
    """As `for_inference` compiles a DETR; anything else as a whole."""
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


def clock_of(args: argparse.Namespace) -> Clock:
    """What the command line says to measure by."""
    return time.process_time if args.cpu_time else time.perf_counter


def benchmark_model(
    args: argparse.Namespace, model: nn.Module, work: Work, by_modules: Work
) -> Result:
    """Memory, seconds and stages of a model."""
    device = next(model.parameters()).device
    clock = clock_of(args)
    memory = peak_memory(work, device)  # the first run, which has everything before it
    seconds = spread(time_in_turns({"": work}, args.repeats, device, clock)[""])
    stages = measure_stages(model, by_modules, device, min(args.repeats, 5), clock)
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
        images_per_second=args.batch_size / seconds.median,
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
    node.total_batch_size = args.batch_size
    loader = iter(TrainStream(node, seed=0).loader())
    (seconds,) = time_in_turns(
        {"": lambda: next(loader)}, args.repeats, torch.device("cpu"), warm_up=2
    ).values()
    mapper, records = instantiate(node.mapper), instantiate(node.dataset)
    taken = []
    for record in itertools.islice(itertools.cycle(records), args.repeats):
        start = time.perf_counter()
        mapper(record)
        taken.append(time.perf_counter() - start)
    return Result(
        config=args.config_file,
        task="data",
        batch_size=args.batch_size,
        seconds=spread(seconds),
        images_per_second=args.batch_size * len(seconds) / sum(seconds),
        mapper_seconds=spread(taken),
    )


def device_name(device: torch.device) -> str:
    """With the model of a GPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def milliseconds(value: Spread) -> str:
    low, high = 1e3 * value.lower_quartile, 1e3 * value.upper_quartile
    return f"{1e3 * value.median:.1f} ms (quartiles {low:.1f} to {high:.1f}, {value.runs} runs)"


def report(result: Result) -> str:
    """The result for people to read."""
    rows = [("config", result.config)]
    what = "one batch" if result.task == "data" else result.task
    if result.size:
        height, width = result.size
        rows += [
            ("device", f"{result.device}, {result.threads} threads, {result.dtype}"),
            ("images", f"{result.batch_size} x {height} x {width}"),
            ("attention", f"deformable attention, if any, by {result.deformable_attention}"),
            (
                "parameters",
                f"{result.parameters / 1e6:.1f} million, "
                f"{result.trained_parameters / 1e6:.1f} million of them trained",
            ),
        ]
    rows += [(what, milliseconds(result.seconds))]
    rows += [("throughput", f"{result.images_per_second:.2f} images/s")]
    if result.mapper_seconds:
        rows += [("one image", f"{milliseconds(result.mapper_seconds)} in the mapper, one process")]
    if result.gflop and result.gflop_per_second and result.matmul_gflop_per_second:
        share = result.gflop_per_second / result.matmul_gflop_per_second
        rows += [
            (
                "computation",
                f"{result.gflop:.1f} GFLOP, {result.gflop_per_second:.1f} GFLOP/s: {share:.0%} of "
                f"what matrix products reach here ({result.matmul_gflop_per_second:.0f})",
            )
        ]
    if result.peak_memory_bytes is not None:
        rows += [("peak memory", f"{result.peak_memory_bytes / 2**20:.0f} MiB above the model")]
    lines = [f"{name:<13}{value}" for name, value in rows]
    if result.stages and result.matmul_gflop_per_second:
        lines += ["", stage_table(result.stages, result.matmul_gflop_per_second)]
    return "\n".join(lines)


def as_json(result: Result) -> str:
    """All numbers with their names."""

    def plain(value: Any) -> Any:
        if isinstance(value, tuple) and hasattr(value, "_asdict"):
            return value._asdict()
        return [plain(item) for item in value] if isinstance(value, list) else value

    fields = {name: plain(value) for name, value in vars(result).items()}
    return json.dumps({**fields, "torch": torch.__version__}, indent=2)


def main(arguments: Sequence[str] | None = None) -> None:
    args = parser().parse_args(arguments)
    try:
        result = benchmark(args)
    except SetupError as e:
        raise SystemExit(f"error: {e}") from e
    print(report(result))
    if args.output:
        scratch = args.output.with_name(f".{args.output.name}.{os.getpid()}")
        scratch.write_text(as_json(result) + "\n")
        os.replace(scratch, args.output)


if __name__ == "__main__":
    main()

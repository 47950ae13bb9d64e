#!/usr/bin/env python3
"""Operations, activations, parameters and structure of a model.

    python tools/analyze_model.py --config-file config.py --tasks parameter structure
    python tools/analyze_model.py --config-file config.py --tasks flop activation --num-inputs 100
    python tools/analyze_model.py --config-file config.py --tasks flop --use-fixed-input-size

Operations are counted in evaluation, on images of the test set as its mapper makes them, or on
noise of --size where there is no data set; --use-fixed-input-size always takes noise. They are
those of convolutions, matrix products, attention and bilinear sampling (deformable attention
included), in the units of the papers: a multiplication and the addition to it are one. They are
counted as they run, so a model need not be traceable; images of one size are counted once.

Weights are random and nothing is fetched: no figure depends on them.
"""

from __future__ import annotations

import argparse
import functools
import statistics
from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import instantiate
from detectron2.utils.analysis import parameter_count_table
from omegaconf import DictConfig, OmegaConf
from torch import nn
from tqdm import tqdm

from detrex.benchmark import (
    Batch,
    ModuleCounts,
    build_random_model,
    count_modules,
    module_table,
    random_batch,
)
from detrex.config import load_sections, select_device
from detrex.engine.errors import SetupError, setup_errors, usage_errors

TASKS = ("flop", "activation", "parameter", "structure")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, metavar="FILE", help="a LazyConfig file")
    parser.add_argument(
        "--tasks", nargs="+", required=True, metavar="TASK", help=f"of {', '.join(TASKS)}"
    )
    parser.add_argument(
        "-n", "--num-inputs", type=int, default=100, help="images for the average; default: 100"
    )
    parser.add_argument(
        "--use-fixed-input-size", action="store_true", help="noise of --size instead of data"
    )
    parser.add_argument(
        "--size", type=int, nargs=2, default=(800, 1333), metavar=("H", "W"), help="of noise"
    )
    parser.add_argument("--depth", type=int, default=3, help="of the tables; default: 3")
    parser.add_argument("opts", nargs="*", metavar="KEY=VALUE", help="changes to the config")
    return parser


def check(args: argparse.Namespace) -> None:
    """Check the tasks, and the options against their ranges.

    Raises:
        ValueError: one is unknown or out of range.
    """
    unknown = [task for task in args.tasks if task not in TASKS]
    if unknown:
        raise ValueError(f"--tasks {unknown[0]}: tasks are {', '.join(TASKS)}.")
    for name, least in (("num_inputs", 1), ("depth", 0)):
        if getattr(args, name) < least:
            option = name.replace("_", "-")
            raise ValueError(f"--{option} {getattr(args, name)}: it is at least {least}.")
    if min(args.size) < 1:
        raise ValueError(f"--size {args.size[0]} {args.size[1]}: sides are at least one pixel.")


def inputs(args: argparse.Namespace, cfg: DictConfig) -> tuple[list[Batch], str]:
    """Batches of one image each, and what they are.

    Raises:
        SetupError: the data set is there, but its images or the mapper can't be used.
    """
    height, width = args.size
    noise = [[{k: v for k, v in x.items() if k != "instances"}] for x in random_batch(args.size)]
    what = f"noise of {height} x {width} pixels"
    if args.use_fixed_input_size:
        return noise, what
    node = OmegaConf.select(cfg, "dataloader.test")
    try:
        with setup_errors():
            if node is None:
                raise KeyError("the config has no dataloader.test.")
            records = instantiate(node.dataset)
    except SetupError as e:
        return noise, f"{what}, since there is no data set: {str(e).rstrip('.')}"
    mapper = instantiate(node.mapper)
    records = records[: args.num_inputs]
    with setup_errors():
        batches = [[mapper(record)] for record in tqdm(records, desc="images")]
    return batches, f"{len(batches)} images of the test set"


def count_all(model: nn.Module, batches: Sequence[Batch]) -> list[ModuleCounts]:
    """Counts of each batch; equal sizes are counted once."""
    known: dict[tuple[Any, ...], ModuleCounts] = {}
    counts = []
    for batch in tqdm(batches, desc="counted"):
        shapes = tuple(tuple(x["image"].shape) for x in batch)
        if shapes not in known:
            known[shapes] = count_modules(model, functools.partial(model, batch))
        counts.append(known[shapes])
    return counts


def average(counts: Sequence[ModuleCounts]) -> ModuleCounts:
    """The mean of each figure."""

    def mean(field: str) -> dict[str, Any]:
        tables = [getattr(c, field) for c in counts]
        names = dict.fromkeys(name for table in tables for name in table)
        return {name: sum(t.get(name, 0) for t in tables) / len(tables) for name in names}

    return ModuleCounts(mean("flops"), mean("activations"), mean("operators"))


def spread(values: Sequence[float]) -> str:
    """Mean and, of several, standard deviation."""
    deviation = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.2f}{deviation}"


def counted(model: nn.Module, counts: Sequence[ModuleCounts], tasks: Sequence[str]) -> str:
    """The totals that were asked for, and the operations by operator."""
    lines = []
    if "flop" in tasks:
        mean = average(counts)
        lines += ["GFLOPs by operator:"]
        lines += [f"  {name:<40} {flops / 1e9:10.3f}" for name, flops in mean.operators.items()]
        lines += [f"GFLOPs: {spread([c.flops[''] / 1e9 for c in counts])}"]
    if "activation" in tasks:
        lines += [f"Million activations: {spread([c.activations[''] / 1e6 for c in counts])}"]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print what the command line asks for."""
    args = parser().parse_intermixed_args(arguments)
    # Changes to the config that follow the tasks are none of them.
    args.opts += [task for task in args.tasks if "=" in task]
    args.tasks = [task for task in args.tasks if "=" not in task]
    with usage_errors():
        check(args)
        cfg = load_sections(args.config_file, args.opts, ("model",), "a model")
        device = select_device(cfg.train.device if torch.cuda.is_available() else "auto")
        model = build_random_model(cfg, device).eval()
    if "structure" in args.tasks:
        print(f"Structure:\n{model}\n")
    if "parameter" in args.tasks:
        print(f"Parameters:\n{parameter_count_table(model, max_depth=args.depth)}\n")
    if {"flop", "activation"} & set(args.tasks):
        with usage_errors():
            batches, what = inputs(args, cfg)
        counts = count_all(model, batches)
        print(f"Counted on {what}.\n{module_table(model, average(counts), args.depth)}\n")
        print(counted(model, counts, args.tasks))


if __name__ == "__main__":
    main()

"""What the scripts of this folder share: options, the table of seconds, the json file."""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from detrex.benchmark import (
    Clock,
    Work,
    add_options,
    device_name,
    matmul_rate,
    measure_stages,
    speedup,
    spread,
    stage_table,
    time_in_turns,
    write_json,
)
from detrex.config import select_device
from detrex.layers.ms_deform_attn import implementation


def options(doc: str | None, repeats: int = 5) -> argparse.ArgumentParser:
    """A parser with the options that all scripts have."""
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    parser.add_argument("--only", default="", help="measure what has this in its name")
    add_options(parser, repeats)
    return parser


def peer(name: str) -> ModuleType | None:
    """A package to compare with, or None, which is said, where it isn't installed."""
    try:
        return importlib.import_module(name)
    except ImportError as e:
        print(f"without {name}, which can't be imported ({e}): pip install '.[benchmark]'")
        return None


def compare(
    ours: str,
    works: Mapping[str, Work],
    repeats: int,
    device: torch.device,
    clock: Clock,
    quantities: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """Run works in turns, print a table, return it.

    Args:
        ours: the work whose speed over the others is reported.
        works: by name.
        repeats: runs of each.
        device, clock: as for ``time_in_turns``.
        quantities: by unit, such as ``GFLOP``, what every work does; its rate is reported.
    """
    seconds = time_in_turns(works, repeats, device, clock)
    rows: dict[str, Any] = {}
    for name, taken in seconds.items():
        row = rows[name] = {"seconds": spread(taken)._asdict()}
        median, low, high, *_ = (1e3 * value for value in spread(taken))
        text = f"  {name:<36}{median:10.1f} ms ({low:.1f} to {high:.1f})"
        if name != ours:
            ratio = row["speedup_of_ours"] = speedup(seconds[ours], taken)._asdict()
            text += f"   {ratio['median']:.2f} times {ours} "
            text += f"({ratio['lower_quartile']:.2f} to {ratio['upper_quartile']:.2f})"
        for unit, quantity in (quantities or {}).items():
            rate = row[f"{unit}/s"] = quantity / spread(taken).median
            text += f"   {rate:.1f} {unit}/s"
        print(text, flush=True)
    return rows


def compare_stages(
    ours: str,
    works: Mapping[str, Work],
    model: nn.Module,
    dtype: torch.dtype,
    args: argparse.Namespace,
    device: torch.device,
    clock: Clock,
) -> dict[str, Any]:
    """Compare works as :func:`compare` does, and show the stages of ours, which runs ``model``."""
    limit = matmul_gflops(device, dtype, clock)
    rows = compare(ours, works, args.repeats, device, clock)
    stages = measure_stages(model, works[ours], device, min(args.repeats, 3), clock)
    print(stage_table(stages, limit), flush=True)
    return {"works": rows, "matmul GFLOP/s": limit, "stages": stages}


def matmul_gflops(device: torch.device, dtype: torch.dtype, clock: Clock) -> float:
    """The rate of a large matrix product, the limit of a model; it is printed, too."""
    rate = matmul_rate(device, dtype, clock) / 1e9
    print(f"matrix products in {str(dtype).removeprefix('torch.')}: {rate:.0f} GFLOP/s")
    return rate


def write(args: argparse.Namespace, results: Mapping[str, Any]) -> None:
    """The results and what they depend on, if a file is asked for."""
    if args.output is None:
        return
    device = select_device(args.device)
    setting = {name: value for name, value in vars(args).items() if name != "output"}
    setting.update(
        machine=device_name(device) if device.type == "cuda" else _processor(),
        threads=torch.get_num_threads(),
        deformable_attention=implementation(device.type).name,
        commit=_commit(),
        versions={name: _version(name) for name in ("torch", "torchvision", "transformers")},
    )
    write_json(args.output, {"setting": setting, "results": results})


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), "")


def _commit() -> str | None:
    command = ["git", "describe", "--always", "--dirty"]
    folder = Path(__file__).parent
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()

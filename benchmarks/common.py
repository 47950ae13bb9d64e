"""What the scripts of this folder share: options, peers, the table of seconds, the json file."""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from detrex.engine.config import select_device
from detrex.layers.ms_deform_attn import implementation
from detrex.utils.measure import Clock, Work, matmul_rate, speedup, spread, time_in_turns


def options(doc: str, repeats: int = 5) -> argparse.ArgumentParser:
    """A parser with the options that all scripts have."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--only", default="", help="measure what has this in its name")
    parser.add_argument("--repeats", type=int, default=repeats, help="of each work, in turns")
    parser.add_argument("--device", default="cpu", help="auto, cpu, cuda, ...")
    parser.add_argument("--threads", type=int, help="of torch on the CPU")
    parser.add_argument("--cpu-time", action="store_true", help="instead of that on the wall")
    parser.add_argument("--output", type=output_path, help="json file for the results")
    return parser


def output_path(text: str) -> Path:
    """A file that can be written, known before anything is measured."""
    path = Path(text)
    if not path.resolve().parent.is_dir():
        raise argparse.ArgumentTypeError(f"the folder of {text} does not exist")
    return path


def prepare(args: argparse.Namespace) -> tuple[torch.device, Clock]:
    """Set the threads and the seed; the device, and what to measure by."""
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    return select_device(args.device), time.process_time if args.cpu_time else time.perf_counter


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
        device, clock: as for `time_in_turns`.
        quantities: by unit, such as `GFLOP`, what every work does; its rate is reported.
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


def matmul_gflops(device: torch.device, dtype: torch.dtype, clock: Clock) -> float:
    """Printed, too."""
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
        machine=torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        threads=torch.get_num_threads(),
        deformable_attention=implementation(device.type).name,
        commit=_commit(),
        versions={name: _version(name) for name in ("torch", "torchvision", "transformers")},
    )
    write_json(args.output, {"setting": setting, "results": results})


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Whole or not at all."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
        json.dump(content, file, indent=2)
    os.replace(file.name, path)


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

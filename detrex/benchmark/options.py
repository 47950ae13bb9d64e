"""The options that all benchmarks have, and what they stand for."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from detrex.benchmark.measure import Clock
from detrex.config import select_device

__all__ = ["add_options", "device_name", "output_path", "prepare"]


def add_options(parser: argparse.ArgumentParser, repeats: int, device: str = "cpu") -> None:
    """Add ``--repeats``, ``--device``, ``--threads``, ``--cpu-time`` and ``--output``."""
    parser.add_argument("--repeats", type=int, default=repeats, help="runs that count")
    parser.add_argument("--device", default=device, help="auto, cpu, cuda, ...")
    parser.add_argument("--threads", type=int, help="of torch on the CPU")
    parser.add_argument(
        "--cpu-time",
        action="store_true",
        help="of this process instead of time on the wall: tells more, with --threads 1, on a "
        "machine that does other things as well",
    )
    parser.add_argument("--output", type=output_path, help="json file for the result")


def output_path(text: str) -> Path:
    """A file that can be written, known before anything is measured."""
    path = Path(text)
    if not path.resolve().parent.is_dir():
        raise argparse.ArgumentTypeError(f"the folder of {text} does not exist.")
    return path


def prepare(args: argparse.Namespace) -> tuple[torch.device, Clock]:
    """Set the threads and the seed; the device, and what to measure by.

    Raises:
        ValueError: the device does not exist here.
    """
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    return select_device(args.device), time.process_time if args.cpu_time else time.perf_counter


def device_name(device: torch.device) -> str:
    """The kind of device, with the model of a GPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type

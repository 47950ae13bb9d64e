"""What was measured of one config, as a table for people and as json."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import torch

from detrex.benchmark.measure import Spread
from detrex.benchmark.stages import Stage, stage_table

__all__ = ["Result", "report", "write_json"]


@dataclasses.dataclass
class Result:
    """What is known of one config; None is what was not measured."""

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


def _milliseconds(value: Spread) -> str:
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
    rows += [(what, _milliseconds(result.seconds))]
    rows += [("throughput", f"{result.images_per_second:.2f} images/s")]
    if result.mapper_seconds:
        rows += [
            ("one image", f"{_milliseconds(result.mapper_seconds)} in the mapper, one process")
        ]
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


def write_json(path: Path, content: Any) -> None:
    """Write a json file, whole or not at all; named tuples become objects."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    scratch.write_text(json.dumps(_plain(content), indent=2) + "\n")
    os.replace(scratch, path)


def _plain(value: Any) -> Any:
    if isinstance(value, Result):
        return {**_plain(vars(value)), "torch": torch.__version__}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value

"""How fast a model is, where its time goes, and how near it comes to the machine's limit."""

from detrex.benchmark.measure import (
    Clock,
    Spread,
    Work,
    count_flops,
    flop_clock,
    matmul_rate,
    peak_memory,
    speedup,
    spread,
    time_in_turns,
)
from detrex.benchmark.modules import ModuleCounts, count_modules, module_table
from detrex.benchmark.options import add_options, device_name, output_path, prepare
from detrex.benchmark.result import Result, report, write_json
from detrex.benchmark.stages import Stage, StageMeter, measure_stages, stage_table
from detrex.benchmark.work import Batch, TrainingStep, build_random_model, random_batch

__all__ = [
    "Batch",
    "Clock",
    "ModuleCounts",
    "Result",
    "Spread",
    "Stage",
    "StageMeter",
    "TrainingStep",
    "Work",
    "add_options",
    "build_random_model",
    "count_flops",
    "count_modules",
    "device_name",
    "flop_clock",
    "matmul_rate",
    "measure_stages",
    "module_table",
    "output_path",
    "peak_memory",
    "prepare",
    "random_batch",
    "report",
    "speedup",
    "spread",
    "stage_table",
    "time_in_turns",
    "write_json",
]

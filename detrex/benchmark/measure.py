"""Seconds, floating-point operations and memory of a piece of work.

Whatever is to be measured is a function without arguments. FLOPs are those of convolutions, matrix
products, attention and bilinear samples (a multiplication and an addition are two), which is all
but a few per cent of what these models compute.
"""

from __future__ import annotations

import math
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, shape_wrapper

from detrex.utils.allocator import give_back_freed_memory

__all__ = [
    "Clock",
    "FlopCounter",
    "Spread",
    "Work",
    "count_flops",
    "flop_clock",
    "matmul_rate",
    "peak_memory",
    "speedup",
    "spread",
    "synchronize",
    "time_in_turns",
]

Work = Callable[[], object]
Clock = Callable[[], float]


class Spread(NamedTuple):
    """Median, quartiles and least of repeated measurements."""

    median: float
    lower_quartile: float
    upper_quartile: float
    least: float
    runs: int


def spread(values: Sequence[float]) -> Spread:
    """Median and quartiles of at least two values."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(middle, low, high, min(values), len(values))


def speedup(seconds: Sequence[float], peer: Sequence[float]) -> Spread:
    """How many times as long the peer takes, by the ratios of neighboring runs.

    What else the machine does then meets both alike.
    """
    return spread([b / a for a, b in zip(seconds, peer, strict=True)])


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all that it was given."""
    if device.type not in ("cpu", "meta"):
        getattr(torch, device.type).synchronize()


def time_in_turns(
    works: Mapping[str, Work],
    repeats: int,
    device: torch.device,
    clock: Clock = time.perf_counter,
    warm_up: int = 1,
) -> dict[str, list[float]]:
    """Seconds of each run by name, all works in turns; who comes first changes from turn to turn.

    Args:
        works: by name.
        repeats: runs of each that count.
        device: what has to have finished when a run ends.
        clock: ``time.process_time`` tells more on a CPU that does other things as well.
        warm_up: runs of each before, which don't count.
    """
    names = list(works)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(-warm_up, repeats):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            synchronize(device)
            start = clock()
            result = works[name]()
            synchronize(device)
            end = clock()
            del result  # giving its memory back is not measured
            if turn >= 0:
                seconds[name].append(end - start)
    return seconds


@torch.no_grad()
def matmul_rate(
    device: torch.device, dtype: torch.dtype = torch.float32, clock: Clock = time.perf_counter
) -> float:
    """FLOP/s that a large product of matrices reaches: the practical limit of a model."""
    size = 1024 if device.type == "cpu" else 8192
    a, b = (torch.rand(size, size, device=device).to(dtype) for _ in range(2))
    (seconds,) = time_in_turns({"": lambda: a @ b}, 5, device, clock).values()
    return 2 * size**3 / min(seconds)


def _sampling_flops(
    value: Sequence[int], shapes: Any, locations: Sequence[int], *_: Any, **__: Any
) -> int:
    """FLOPs of deformable attention: four cells for each point and channel."""
    return 8 * math.prod(locations[:-1]) * value[-1]


def _attention_flops(query: Sequence[int], key: Sequence[int], *_: Any, **__: Any) -> int:
    return 4 * math.prod(query) * key[-2]


def _formulas() -> dict[Any, Callable[..., int]]:
    """By operator, for those that PyTorch's counter doesn't know."""
    aten, own = torch.ops.aten, torch.ops.detrex
    attention = aten._scaled_dot_product_flash_attention_for_cpu
    attention_backward = aten._scaled_dot_product_flash_attention_for_cpu_backward
    formulas: dict[Any, Callable[..., int]] = {
        attention: _attention_flops,
        attention_backward: lambda grad, *args, **kwargs: 5 * _attention_flops(*args) // 2,
        aten.grid_sampler_2d: lambda *_, out_shape, **__: 8 * math.prod(out_shape),
        aten.grid_sampler_2d_backward: lambda grad, *_, **__: 16 * math.prod(grad),
    }
    if hasattr(own, "ms_deform_attn"):  # whoever measures something else need not have it
        formulas[own.ms_deform_attn] = _sampling_flops
        formulas[own.ms_deform_attn_backward] = lambda grad, *args, **_: 2 * _sampling_flops(*args)
    return formulas


class FlopCounter(TorchDispatchMode):
    """What PyTorch's own counter does but for its tracking of modules, which fails where a module
    gets a parameter as its argument and no gradients are wanted.

    Attributes:
        total: FLOPs so far.
        operators: the same by operator.
        activations: numbers that convolutions, matrix products and attention have put out.
    """

    def __init__(self) -> None:
        super().__init__()
        own = {operator: shape_wrapper(formula) for operator, formula in _formulas().items()}
        self.formulas = {**flop_registry, **own}
        self.total = 0
        self.operators: Counter[str] = Counter()
        self.activations = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func.overloadpacket in self.formulas:
            formula = self.formulas[func.overloadpacket]
            flops = formula(*args, **(kwargs or {}), out_val=result)
            name = func.overloadpacket.__name__
            self.total += flops
            self.operators[name] += flops
            if not any(part in name for part in ("backward", "grid_sampler", "ms_deform_attn")):
                self.activations += (result if isinstance(result, Tensor) else result[0]).numel()
        return result


@contextmanager
def flop_clock() -> Iterator[Clock]:
    """A clock that counts floating-point operations instead of seconds.

    Not for ``torch.inference_mode``, in which operators reach it undivided; ``torch.no_grad`` does.
    """
    with FlopCounter() as counter:
        yield lambda: counter.total


def count_flops(work: Work) -> int:
    """FLOPs of one run."""
    with flop_clock() as clock:
        work()
        return int(clock())


def peak_memory(work: Work, device: torch.device) -> int | None:
    """Bytes that a run needs at its peak beyond what is held before; None if that can't be known.

    On the CPU it is the process's resident memory, on Linux alone, with all libraries that are
    loaded on the way: a process of its own gives the clearest figure.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return torch.cuda.max_memory_allocated(device) - before
    give_back_freed_memory()  # or what is there already would not count
    try:
        before = _resident("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the peak is from here on
    except OSError:
        work()
        return None
    work()
    return max(_resident("VmHWM") - before, 0) if device.type == "cpu" else None


def _resident(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))

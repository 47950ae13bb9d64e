"""Floating-point operations and activations of a forward pass, module by module.

They are counted while the operators run, so that nothing has to be traceable. Units are those of
papers on detection transformers, which count with fvcore: a multiplication and the addition to it
are one operation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import nn

from detrex.benchmark.measure import FlopCounter, Work

__all__ = ["ModuleCounts", "count_modules", "module_table"]


class ModuleCounts(NamedTuple):
    """What a forward pass takes; modules by name, each with all inside it, the whole as ""."""

    flops: dict[str, float]
    """Multiplications, each with the addition to it."""
    activations: dict[str, int]
    """Numbers that convolutions, matrix products and attention put out."""
    operators: dict[str, float]
    """FLOPs by operator."""


@torch.no_grad()
def count_modules(model: nn.Module, work: Work) -> ModuleCounts:
    """Count what a forward pass takes.

    Args:
        model: its modules are told apart; a module that is called twice counts twice.
        work: calls the model.
    """
    flops: Counter[str] = Counter()
    activations: Counter[str] = Counter()
    with FlopCounter() as counter, ExitStack() as stack:
        for name, module in model.named_modules():
            if module is not model:
                stack.enter_context(_counted(module, name, counter, flops, activations))
        stack.enter_context(_operators_apart())
        work()
        flops[""], activations[""] = counter.total, counter.activations
    for table in (flops, activations):
        _fill_lists(model, table)
    return ModuleCounts(
        {name: count / 2 for name, count in flops.items()},
        dict(activations),
        {name: count / 2 for name, count in counter.operators.most_common()},
    )


def module_table(model: nn.Module, counts: ModuleCounts, depth: int = 3) -> str:
    """Parameters, operations and activations of modules up to a depth, the names indented.

    Args:
        model: its modules, in its order; those without any of the three are left out.
        counts: of the model, or averages of such.
        depth: 1 is the model's own children.
    """
    rows = [("module", "parameters", "GFLOPs", "M activations")]
    for name, module in model.named_modules():
        level = name.count(".") + 1 if name else 0
        parameters = sum(p.numel() for p in module.parameters())
        flops, activations = counts.flops.get(name, 0), counts.activations.get(name, 0)
        if level <= depth and (parameters or flops):
            label = f"{'  ' * level}{name.rpartition('.')[2]}" if name else type(model).__name__
            numbers = f"{flops / 1e9:.3f}", f"{activations / 1e6:.3f}"
            rows.append((label, f"{parameters:,}", *numbers))
    return _aligned(rows)


def _fill_lists(model: nn.Module, counts: Counter[str]) -> None:
    """Count for modules that are never called themselves, such as lists, what is inside them."""
    for name, module in reversed(list(model.named_modules())):
        if name and name not in counts:
            inside = (counts[f"{name}.{child}"] for child, _ in module.named_children())
            counts[name] = sum(inside)


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    """Columns of a width each, the first one to the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        right = (text.rjust(width) for text, width in zip(others, widths[1:], strict=True))
        lines.append("  ".join([first.ljust(widths[0]), *right]))
    return "\n".join(lines)


@contextmanager
def _counted(
    module: nn.Module,
    name: str,
    counter: FlopCounter,
    flops: Counter[str],
    activations: Counter[str],
) -> Iterator[None]:
    """Add what each call of a module takes to the counts under its name."""
    begun: list[tuple[int, int]] = []

    def enter(*_: Any) -> None:
        begun.append((counter.total, counter.activations))

    def leave(*_: Any) -> None:
        total, put_out = begun.pop()
        flops[name] += counter.total - total
        activations[name] += counter.activations - put_out

    handles: list[Any] = [module.register_forward_pre_hook(enter)]
    handles.append(module.register_forward_hook(leave))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _operators_apart() -> Iterator[None]:
    """Keep torch's encoder layers from running as one operator, which nobody has a formula for."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)

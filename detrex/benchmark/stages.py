"""Seconds and floating-point operations of the stages of a model, forward and backward."""

from __future__ import annotations

import dataclasses
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import register_multi_grad_hook

from detrex.benchmark.measure import Clock, Work, flop_clock, synchronize

__all__ = [
    "REST",
    "MeteredWork",
    "Stage",
    "StageMeter",
    "measure_stages",
    "stage_table",
    "stages_of",
]

REST = "rest"
"""The stage of what belongs to none."""


class Stage(NamedTuple):
    """One row of the table of stages; seconds and FLOPs of one run."""

    name: str
    forward: float
    backward: float
    flops: float

    @property
    def seconds(self) -> float:
        return self.forward + self.backward


class StageMeter:
    """Shares out what a clock counts among the stages of a model, forward and backward.

    What runs inside a stage that is part of another counts for the inner one alone, what runs in
    none for ``REST``. Backward a stage begins with the gradient of its results and ends with those
    of its arguments; a tensor that is the result of two stages counts for the outer one.

    Args:
        stages: modules by the name of their stage.
        clock: seconds, or FLOPs so far.

    Attributes:
        forward, backward: by stage what it took since the last ``reset``.
    """

    def __init__(self, stages: Mapping[str, Sequence[nn.Module]], clock: Clock) -> None:
        self.clock = clock
        self._open = [(REST, False)]
        self._hooks: list[Any] = []
        for name, modules in stages.items():
            for module in modules:
                self._hooks += [
                    module.register_forward_pre_hook(self._entering(name), with_kwargs=True),
                    module.register_forward_hook(self._leaving(name)),
                ]
        self.reset()

    def reset(self) -> None:
        """Forget what was counted."""
        self.forward: dict[str, float] = defaultdict(float)
        self.backward: dict[str, float] = defaultdict(float)
        self._last = self.clock()

    def enter(self, name: str) -> None:
        """From here on it counts for this stage, until it is left."""
        self._charge()
        self._open.append((name, False))

    def leave(self) -> None:
        """Go on with the stage before."""
        self._charge()
        self._open.pop()

    def rest(self) -> None:
        """From here on it counts for no stage."""
        self._charge()
        self._open = [(REST, False)]

    def remove(self) -> None:
        """Take the hooks off the model."""
        for hook in self._hooks:
            hook.remove()

    def _charge(self) -> None:
        now = self.clock()
        name, backward = self._open[-1]
        (self.backward if backward else self.forward)[name] += now - self._last
        self._last = now

    def _back_to(self, name: str) -> None:
        self._charge()
        self._open = [(name, True)]

    def _back_from(self, name: str, outer: str) -> None:
        # An argument that others use as well has its gradient when they are through, too late.
        if self._open == [(name, True)]:
            self._back_to(outer)

    def _entering(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
            outer = self._open[-1][0]
            grads = _differentiable((args, kwargs))
            if grads:
                register_multi_grad_hook(grads, lambda _: self._back_from(name, outer), mode="all")
            self.enter(name)

        return hook

    def _leaving(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, result: Any) -> None:
            grads = _differentiable(result)
            if grads:
                register_multi_grad_hook(grads, lambda _: self._back_to(name), mode="any")
            self.leave()

        return hook


class MeteredWork:
    """Work that tells a meter what no module shows, such as when the optimizer works.

    Attributes:
        meter: whom to tell, while somebody measures.
    """

    meter: StageMeter | None = None

    def __call__(self) -> object:
        raise NotImplementedError


def stages_of(model: nn.Module) -> dict[str, list[nn.Module]]:
    """Modules by stage: the parts of a model, those of its transformer, and the decoder's heads."""
    stages: dict[str, list[nn.Module]] = {}
    for name, part in model.named_children():
        parts = part.named_children() if name == "transformer" else iter([(name, part)])
        stages.update((inner, _called(module)) for inner, module in parts)
    heads = [
        head
        for decoder in stages.get("decoder", [])
        for name in ("class_embed", "bbox_embed")
        for head in _called(getattr(decoder, name, nn.ModuleList()))
    ]
    return {**stages, "heads": heads} if heads else stages


def _called(module: nn.Module) -> list[nn.Module]:
    """The module itself, or what a container that is never called holds."""
    if isinstance(module, nn.ModuleList | nn.ModuleDict):
        return list(module.children())
    return [module]


def measure_stages(
    model: nn.Module,
    work: Work,
    device: torch.device,
    repeats: int = 3,
    clock: Clock = time.perf_counter,
) -> list[Stage]:
    """Mean seconds and FLOPs of each stage of a model in a piece of work, in the order of stages.

    On a GPU each stage is waited for, so that all of them take longer than the work as a whole.

    Args:
        model: whose stages.
        work: what calls the model; a :class:`MeteredWork` also gives what follows the backward
            pass.
        device: of the model.
        repeats: runs that the seconds are the mean of.
        clock: as for :func:`~detrex.benchmark.measure.time_in_turns`.
    """

    def seconds() -> float:
        synchronize(device)
        return clock()

    def run(clock: Clock, times: int) -> StageMeter:
        meter = StageMeter(stages, clock)
        if isinstance(work, MeteredWork):
            work.meter = meter
        for _ in range(times):
            work()
        meter.rest()
        meter.remove()
        if isinstance(work, MeteredWork):
            work.meter = None
        return meter

    stages = stages_of(model)
    timed = run(seconds, repeats)
    with flop_clock() as flops:
        counted = run(flops, 1)
    return list(_rows([*stages, "optimizer", REST], timed, counted, repeats))


def _rows(
    names: Sequence[str], timed: StageMeter, counted: StageMeter, repeats: int
) -> Iterator[Stage]:
    for name in names:
        forward, backward = timed.forward[name] / repeats, timed.backward[name] / repeats
        if forward or backward:
            flops = counted.forward[name] + counted.backward[name]
            yield Stage(name, forward, backward, flops)


def stage_table(stages: Sequence[Stage], limit: float) -> str:
    """A table for people; ``limit`` is the GFLOP/s that matrix products reach."""
    total = sum(stage.seconds for stage in stages)
    training = any(stage.backward for stage in stages)
    split = f"{'forward':>10}{'backward':>10}" if training else ""
    lines = [
        f"{'stage':<20}{'ms':>10}{split}{'share':>8}{'GFLOP':>10}{'GFLOP/s':>9}{'of limit':>10}"
    ]
    for stage in stages:
        split = f"{1e3 * stage.forward:10.1f}{1e3 * stage.backward:10.1f}" if training else ""
        rate = stage.flops / stage.seconds / 1e9
        lines.append(
            f"{stage.name:<20}{1e3 * stage.seconds:10.1f}{split}{stage.seconds / total:8.1%}"
            f"{stage.flops / 1e9:10.2f}{rate:9.1f}{rate / limit:10.0%}"
        )
    return "\n".join(lines)


def _differentiable(value: Any) -> list[Tensor]:
    """Tensors that want a gradient, in nested containers and dataclasses."""
    if isinstance(value, Tensor):
        return [value] if value.requires_grad and torch.is_grad_enabled() else []
    if dataclasses.is_dataclass(value):
        value = vars(value)
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [tensor for item in value for tensor in _differentiable(item)]
    return []
